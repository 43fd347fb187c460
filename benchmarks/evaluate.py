"""Score a model on labelled test images.

The target's test labels are read here and nowhere else; nothing is ever chosen by them.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol
from zipfile import BadZipFile

import numpy as np
import torch
from PIL.Image import Image
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as settings

from tadp_da.distributed.processes import all_gather_object, count, rank
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.heads import Score, TaskHead
from tadp_da.run import Run
from tadp_da.storage.files import write_json
from tadp_da.types import Detections, Example, Labeled, LabelSpace, Side
from tadp_da.visualize import save_mask

REPORT = "report.json"
Picture = Literal["image", "truth", "decision"]
_UNREADABLE = (OSError, ValueError, EOFError, TypeError, RuntimeError, BadZipFile, zlib.error)
"""What reading a kept decision raises where the file is missing, or one of its bytes is not what was written."""


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EvaluationSettings:
    """How test images are scored.

    Attributes:
        keep: images, spread evenly over the split, whose decisions are kept as pictures; 0 for none.
    """

    keep: Annotated[int, Field(ge=0, le=64)] = 6


class Model(Protocol):
    """What is asked of a ``PerceptionModel``: a head that can score, and decisions at the image's own resolution."""

    @property
    def head(self) -> TaskHead: ...

    def predict(self, image: Image, prompt: str, /) -> Any: ...

    def to(self, device: torch.device, /) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class SavedImage:
    """An image whose pictures were kept, as ``<stem>-image.png``, ``<stem>-truth.png``, ``<stem>-decision.png``."""

    stem: str
    key: str
    prompt: str
    score: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one model on one split. Plain numbers in %, None where nothing could be scored.

    Attributes:
        domain: name of the domain.
        metric: name of the main figure, e.g. ``"mIoU"``.
        main: the main figure, over all images together.
        classes: the metric per class; None for a class that is in no truth and in no decision.
        images: how many images were scored.
        per_image: the main figure of each image by itself, by key; None where the image shows nothing to score.
        details: what else the score gave, as plain JSON.
        labels: the label space, for pictures.
        kept: images whose pictures lie beside the report.
    """

    domain: str
    metric: str
    main: float | None
    classes: Mapping[str, float | None]
    images: int
    per_image: Mapping[str, float | None]
    labels: LabelSpace
    details: Mapping[str, Any] = field(default_factory=dict)
    kept: tuple[SavedImage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of one recipe at one seed: scores on the source's test images and on the target's.

    Attributes:
        source: scores on the source's test images, None where it has none.
        target: scores on the target's test images, None where they are not labelled.
        folder: where it was read from, for pictures.
    """

    source: Evaluation | None
    target: Evaluation | None
    folder: Path | None = field(default=None, compare=False)

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """Those that there are, by name."""
        sides = {"source": self.source, "target": self.target}
        return {name: found for name, found in sides.items() if found is not None}

    def save(self, folder: Path) -> None:
        """Write ``report.json``; the pictures lie in ``source/`` and ``target/`` beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        sides = {"source": self.source, "target": self.target}
        write_json(
            folder / REPORT, {k: None if v is None else dataclasses.asdict(v) for k, v in sides.items()}
        )

    @classmethod
    def load(cls, folder: Path) -> Report:
        """Read a folder written by :meth:`save`.

        Raises:
            ArtifactError: when it holds no readable report.
        """
        try:
            stored = json.loads((folder / REPORT).read_text(encoding="utf-8"))
            sides = TypeAdapter(dict[Side, Evaluation | None]).validate_python(stored)
            return cls(source=sides["source"], target=sides["target"], folder=folder)
        except (OSError, KeyError, ValueError, ValidationError) as error:
            raise ArtifactError(
                f"not a readable report: {type(error).__name__}",
                where=folder,
                fix="delete the folder and score again",
            ) from error

    def picture(self, side: Side, kept: SavedImage, what: Picture) -> Path:
        """Path of a kept picture.

        Raises:
            UsageError: when the report was never saved.
        """
        if self.folder is None:
            raise UsageError("a report that was not saved has no pictures", fix="save it and load it")
        return self.folder / side / f"{kept.stem}-{what}.png"


def evaluate(
    model: Model,
    data: Labeled,
    rewrite: Callable[[str], str],
    run: Run,
    settings: EvaluationSettings | None = None,
    *,
    pictures: Path | None = None,
    decisions: Path | None = None,
) -> Evaluation:
    """Score a model on every image of a split, at the resolution of the labels.

    Several processes decide on an image each at a time; every one then scores all decisions in the order of the images,
    so that the result is that of one process, and the same in all.

    Args:
        model: decides; its head brings the score. It is moved to the run's device.
        data: test images, labels and captions.
        rewrite: caption to prompt, as the strategy writes it for this side.
        run: progress bars.
        settings: how; the defaults of :class:`EvaluationSettings` when None.
        pictures: folder for the kept pictures; none are kept when it is None.
        decisions: folder for the decision on every image, so that an interrupted scoring of the same model, images and
            prompts goes on there: the score sees the same decisions in the same order.

    Raises:
        UsageError: when the model's decisions cannot be held against such labels.
    """
    settings = settings or EvaluationSettings()
    chosen = set(_spread(len(data), settings.keep)) if pictures is not None else set()
    model.to(run.torch_device)
    total = model.head.score(data.labels)
    per_image: dict[str, float | None] = {}
    kept: list[SavedImage] = []
    with run.progress(len(data), f"scoring {data.domain}") as advance:
        for index, (example, prompt, decision) in enumerate(_decisions(model, data, rewrite, decisions)):
            total.update(decision, example.target)
            per_image[example.key] = score = total.alone(decision, example.target)
            if pictures is not None and index in chosen:
                kept.append(SavedImage(stem=f"{len(kept):02d}", key=example.key, prompt=prompt, score=score))
                _keep(pictures, kept[-1].stem, example, decision, data.labels, total)
            advance("" if score is None else f"last {score:.1f}")
    found = dict(total.compute())
    return Evaluation(
        domain=data.domain,
        metric=found.pop("metric"),
        main=found.pop("main"),
        classes=found.pop("classes"),
        images=found.pop("images"),
        per_image=per_image,
        labels=data.labels,
        details=found,
        kept=tuple(kept),
    )


def _decisions(
    model: Model, data: Labeled, rewrite: Callable[[str], str], folder: Path | None
) -> Iterator[tuple[Example, str, Any]]:
    """Every example with its prompt and the decision on it, in order; each process decides on its share."""

    def decide(index: int) -> tuple[Example, Any] | None:
        if index >= len(data):
            return None  # of the last ones there need not be one for every process
        example = data[index]
        file = folder and folder / f"{index:06d}.npz"
        return example, _decide(model, example, rewrite(example.caption), file)

    for first in range(0, len(data), count()):
        for example, decision in filter(None, all_gather_object(decide, first + rank())):
            yield example, rewrite(example.caption), decision


def _decide(model: Model, example: Example, prompt: str, file: Path | None) -> Any:
    """The decision that the file holds; where there is none, the model's, which is then kept in it."""
    if file is None:
        return model.predict(example.image, prompt)
    try:
        with np.load(file, allow_pickle=False) as known:
            arrays = dict(known)
        return arrays["mask"] if "mask" in arrays else Detections(**arrays)
    except _UNREADABLE:  # missing, or torn by a power cut
        decision = model.predict(example.image, prompt)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}")
    with fresh.open("wb") as target:
        np.savez_compressed(
            target, **({"mask": decision} if isinstance(decision, np.ndarray) else vars(decision))
        )
    fresh.replace(file)
    return decision


def _spread(count: int, keep: int) -> list[int]:
    """At most ``keep`` of ``count`` indices at even distances: chosen by place, never by score."""
    return np.unique(np.linspace(0, count - 1, min(keep, count)).round().astype(int)).tolist()


def _keep(folder: Path, stem: str, example: Example, decision: Any, labels: LabelSpace, score: Score) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    example.image.save(folder / f"{stem}-image.png")
    size = example.image.height, example.image.width
    for what, picture in zip(("decision", "truth"), score.paint(decision, example.target, size), strict=True):
        save_mask(picture, labels, folder / f"{stem}-{what}.png")
