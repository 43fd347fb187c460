"""Evaluate a model on labelled test images.

The target's test labels are read here and nowhere else; nothing is ever chosen by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from benchmarks.results import Evaluation, SavedImage
from tadp_da.distributed.processes import all_gather_object, count, rank
from tadp_da.errors import UsageError
from tadp_da.inference import InferenceSettings, Scale, read_ahead
from tadp_da.run import Run
from tadp_da.settings import Effect
from tadp_da.storage.files import file_digest
from tadp_da.tasks import Area, SharedClasses, Task, tasks
from tadp_da.types import Example, Labeled, LabelSpace
from tadp_da.visualize import recoloured

OPACITY = 0.85
"""Of labels and predictions over the saved images."""


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EvaluationSettings:
    """How test images are evaluated.

    Attributes:
        save_images: images, spread evenly over the split, that are saved with label and prediction; 0 for none.
        crop: the part of the images that is scored: rows from the first up to and without the second number, columns
            likewise by the others. NYUv2 is scored on 45, 471, 41, 601 (Eigen et al., 2014). All of them if None.
        batch: images of one size in one forward pass. More is faster on a GPU; predictions may then differ in the last
            digits from those of single images.
        flip, scales: in place of those of the model's :class:`~tadp_da.inference.InferenceSettings`, for testing with
            mirror images and at several scales; its own if None.
    """

    save_images: Annotated[int, Field(ge=0, le=64), Effect.ILLUSTRATION] = 6
    crop: Area | None = None
    batch: Annotated[int, Field(ge=1), Effect.SPEED] = 1
    flip: Annotated[bool | None, Effect.ADDED] = None
    scales: Annotated[tuple[Scale, ...] | None, Field(min_length=1), Effect.ADDED] = None

    def __post_init__(self) -> None:
        if self.crop and not (0 <= self.crop[0] < self.crop[1] and 0 <= self.crop[2] < self.crop[3]):
            raise UsageError(
                f"crop {self.crop} has no pixels", where="evaluate.crop", fix="give top, bottom, left, right"
            )

    def inference(self, own: InferenceSettings) -> InferenceSettings:
        """How a model with settings of its own is applied to test images."""
        return replace(
            own,
            flip=own.flip if self.flip is None else self.flip,
            scales=self.scales or own.scales,
        )


def evaluate(
    model: Any,
    data: Labeled,
    rewrite: Callable[[str], str],
    run: Run,
    settings: EvaluationSettings | None = None,
    *,
    images: Path | None = None,
    predictions: Path | None = None,
) -> Evaluation:
    """Evaluate a model on every image of a split, at the resolution of the labels.

    Where labels and model have different classes, those that they share are evaluated, and a note says so.

    Of several processes each predicts its share of the images; all of them then count all predictions in the order of
    the images, so that the result is that of one process, and the same in all.

    Args:
        model: a :class:`tadp_da.perception_model.PerceptionModel`; it is moved to the run's device.
        data: test images, labels and captions.
        rewrite: caption to prompt, as the strategy writes it for this side.
        run: progress bars and precision.
        settings: how; the defaults of :class:`EvaluationSettings` when None.
        images: folder for the saved images; none are saved when it is None.
        predictions: folder for the prediction on every image, from which an interrupted evaluation of the same model,
            images and prompts is resumed.

    Raises:
        UsageError: when labels and model share no class.
        DataError: when a label is not valid.
    """
    settings, task = settings or EvaluationSettings(), tasks[model.labels.task]
    shared, notes = _scored(task, data, model.labels, settings.crop)
    save = _Saver(images, _spread(len(data), settings.save_images), task, model.labels, shared.labels)
    model.to(run.torch_device)
    metric = task.metric(shared.labels, model.labels)
    per_image: dict[str, float | None] = {}
    found = _Predictions(model, data, rewrite, run, settings, predictions)
    with run.progress(len(data), f"evaluating {data.domain}") as advance:
        for index, (example, prompt, prediction) in enumerate(found):
            truth = shared.convert(example.target)
            metric.update(prediction, truth)
            per_image[example.key] = score = metric.per_image(prediction, truth)
            save(index, example, prompt, prediction, truth, score)
            advance("" if score is None else f"last {score:.3g}")
    main, *further = metric.compute()
    return Evaluation(
        domain=data.domain,
        labels=shared.labels,
        images=len(data),
        main=main,
        further=tuple(further),
        per_image=per_image,
        notes=(*metric.notes(), *notes),
        details=metric.details(),
        saved=tuple(save.saved),
    )


def _scored(
    task: Task, data: Labeled, known: LabelSpace, crop: Area | None
) -> tuple[SharedClasses, list[str]]:
    """What labels and model share, inside the part of the images that is scored; and notes on what is left out."""
    shared = task.shared(data.labels, known)
    notes = [f"{data.domain} is {shared.left_out}"] if shared.left_out else []
    if crop is None:
        return shared, notes
    notes.append("only rows {} to {} and columns {} to {} are scored".format(*crop))
    return replace(
        shared, convert=lambda label: task.inside(shared.convert(label), crop, shared.labels)
    ), notes


@dataclass(frozen=True)
class _Predictions:
    """Every example with its prompt and the prediction, in order; each process predicts its share."""

    model: Any
    data: Labeled
    rewrite: Callable[[str], str]
    run: Run
    settings: EvaluationSettings
    folder: Path | None

    @property
    def batch(self) -> int:
        """Images in a forward pass."""
        return self.settings.batch

    def __iter__(self) -> Iterator[tuple[Example, str, Any]]:
        starts = [i + self.batch * rank() for i in range(0, len(self.data), self.batch * count())]
        for first, waiting in zip(starts, read_ahead(self._examples, starts), strict=True):
            for part in all_gather_object(self.share, first, waiting):
                for example, prediction in part:
                    yield example, self.rewrite(example.caption), prediction

    def _examples(self, first: int) -> list[Example]:
        """Examples of a process, from an index on; of the last ones there may be none."""
        return [self.data[i] for i in range(first, min(first + self.batch, len(self.data)))]

    def share(self, first: int, waiting: Future[list[Example]]) -> list[tuple[Example, Any]]:
        """Examples and predictions of a process."""
        examples = waiting.result()
        found = {i: self._read(first + i) for i in range(len(examples))}
        missing = [i for i, prediction in found.items() if prediction is None]
        items = [(examples[i].image, self.rewrite(examples[i].caption)) for i in missing]
        inference = self.settings.inference(self.model.inference)
        fresh = self.model.predict_images(
            items, batch=self.batch, precision=self.run.precision, inference=inference
        )
        for i, prediction in zip(missing, fresh, strict=True):
            found[i] = prediction
            self._write(first + i, prediction)
        return [(example, found[i]) for i, example in enumerate(examples)]

    @property
    def _task(self) -> Task:
        return tasks[self.model.labels.task]

    def _read(self, index: int) -> Any:
        """The stored prediction on an image, None where there is none. Its file is named after its content, so that one
        that a power failure has damaged is not read."""
        stored = sorted(self.folder.glob(f"{index:06d}-*{self._task.suffix}")) if self.folder else []
        for file in stored:
            if file.stem.partition("-")[2] == file_digest(file):
                return self._task.read(file, self.model.labels)
        return None

    def _write(self, index: int, prediction: Any) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / f".{index:06d}{self._task.suffix}"
        self._task.write(prediction, fresh, self.model.labels)
        fresh.replace(self.folder / f"{index:06d}-{file_digest(fresh)}{self._task.suffix}")


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices at even distances: chosen by position, never by score."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


class _Saver:
    """Saves chosen images by themselves, and with label and prediction drawn over them."""

    def __init__(
        self,
        folder: Path | None,
        chosen: list[int],
        task: Task,
        predicted: LabelSpace,
        labels: LabelSpace,
    ) -> None:
        self.folder, self.chosen, self.task, self.labels = folder, set(chosen), task, labels
        self.predicted = recoloured(predicted, labels)
        self.saved: list[SavedImage] = []

    def __call__(
        self, index: int, example: Example, prompt: str, prediction: Any, truth: Any, score: float | None
    ) -> None:
        if self.folder is None or index not in self.chosen:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        stem, classes = f"{len(self.saved):02d}", dict[str, None]()
        example.image.save(self.folder / f"{stem}-image.png")
        shown = {"truth": (truth, self.labels), "prediction": (prediction, self.predicted)}
        for name, (value, labels) in shown.items():
            drawn = self.task.render(example.image, value, labels, OPACITY)
            drawn.save(self.folder / f"{stem}-{name}.png")
            classes |= dict.fromkeys(self.task.present(value, labels))
        self.saved.append(
            SavedImage(stem=stem, key=example.key, prompt=prompt, score=score, classes=tuple(classes))
        )
