"""What an evaluation gives, and the report that it is saved in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from tadp_da.errors import ArtifactError, UsageError
from tadp_da.storage.files import write_json
from tadp_da.tasks import Measure
from tadp_da.types import LabelSpace

REPORT = "report.json"
FORMAT = 2
NAMES = ("source", "target", "test")
"""Names of evaluations: of the source's and the target's test images, or of a benchmark with a single domain."""

Shown = Literal["image", "truth", "prediction"]


@dataclass(frozen=True, kw_only=True)
class SavedImage:
    """A test image that was saved for display: ``<stem>-image.png``, and with the label and the prediction drawn over
    it ``<stem>-truth.png`` and ``<stem>-prediction.png``.

    Attributes:
        stem: of the files' names.
        key: of the image.
        prompt: that the network was given.
        score: the main measure of this image by itself, None where there is nothing to measure.
        classes: names of the classes that are drawn.
    """

    stem: str
    key: str
    prompt: str
    score: float | None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measures of one model on one split.

    Attributes:
        domain: name of the domain.
        labels: label space of the labels.
        images: how many were evaluated.
        main: the main measure, over all images together.
        further: other measures of the same predictions.
        per_image: the main measure of each image by itself, by key; None where there is nothing to measure.
        notes: what a reader of the measures has to know.
        details: further results of the metric, as JSON values.
        saved: images that were saved beside the report.
    """

    domain: str
    labels: LabelSpace
    images: int
    main: Measure
    further: tuple[Measure, ...] = ()
    per_image: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    saved: tuple[SavedImage, ...] = ()

    def measure(self, name: str) -> Measure | None:
        """The measure of that name, None where there is none."""
        return next((m for m in (self.main, *self.further) if m.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one recipe gave at one seed.

    Attributes:
        evaluations: by name: ``"source"``, ``"target"``, or ``"test"`` alone where there is a single domain. One whose
            test images have no labels is left out.
        folder: where it was read from, for its images.
        sees_target: whether its recipe learns anything from target images; None where nobody knows. It is in the notes
            of a table, not in the report's file.

    Raises:
        UsageError: for an unknown name.
    """

    evaluations: Mapping[str, Evaluation]
    folder: Path | None = field(default=None, compare=False)
    sees_target: bool | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.evaluations if name not in NAMES]:
            raise UsageError(f"an evaluation is named {unknown[0]!r}", fix=f"choose from: {', '.join(NAMES)}")

    @property
    def primary_name(self) -> str:
        """Name of the evaluation that recipes are compared by: ``"test"`` where there is a single domain, else
        ``"target"``."""
        return "test" if "test" in self.evaluations else "target"

    @property
    def primary(self) -> Evaluation | None:
        """The evaluation of that name."""
        return self.evaluations.get(self.primary_name)

    def save(self, folder: Path) -> None:
        """Write ``report.json``; the images of an evaluation are in the folder of its name beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        found = {name: dataclasses.asdict(evaluation) for name, evaluation in self.evaluations.items()}
        write_json(folder / REPORT, {"format": FORMAT, "evaluations": found})

    @classmethod
    def load(cls, folder: Path) -> Report:
        """Read a folder written by :meth:`save`.

        Raises:
            ArtifactError: when it does not hold a readable report of this format.
        """
        try:
            stored = json.loads((folder / REPORT).read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise ValueError("another format")
            read = TypeAdapter(dict[str, Evaluation]).validate_python(stored["evaluations"])
            return cls(evaluations=read, folder=folder)
        except (OSError, KeyError, ValueError, TypeError, ValidationError, UsageError) as error:
            raise ArtifactError(
                f"not a readable report of format {FORMAT}: {type(error).__name__}",
                where=folder,
                fix="delete the folder and evaluate again",
            ) from error

    def image(self, name: str, saved: SavedImage, shown: Shown) -> Path:
        """Path of a saved image of the evaluation of that name.

        Raises:
            UsageError: when the report was never saved.
        """
        if self.folder is None:
            raise UsageError("a report that was not saved has no images", fix="save it and load it")
        return self.folder / name / f"{saved.stem}-{shown}.png"
