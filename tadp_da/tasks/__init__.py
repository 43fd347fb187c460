"""Tasks: what a label is, how it moves with its image, how predictions are merged, scored, shown and stored.

A task is one file in this folder: a class with the members of :class:`Task`, of which an instance is registered::

    @tasks.add("depth")
    class Depth: ...

Nothing outside that file asks which task it is: heads name their task, and training, inference, evaluation and reports
go through the registry. Helpers that tasks share are in the sub-folders. ``tests/contract/test_tasks.py`` covers a new
task from the moment its file exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tadp_da.registry import Registry
from tadp_da.types import LabelSpace

if TYPE_CHECKING:
    from PIL.Image import Image

    from tadp_da.tasks.labels.label import Label

Size = tuple[int, int]
Area = tuple[int, int, int, int]
"""A part of an image: rows from the first up to and without the second number, columns likewise by the others."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number that an evaluation reports.

    Attributes:
        name: e.g. ``"mIoU"``.
        value: over all images together; None where there was nothing to measure.
        unit: of the value, e.g. ``"%"`` or ``"m"``.
        higher_is_better: the direction of an improvement.
        per_class: the same by class name; None for a class that does not occur. Empty for tasks without classes.
    """

    name: str
    value: float | None
    unit: str = "%"
    higher_is_better: bool = True
    per_class: Mapping[str, float | None] = field(default_factory=dict)


class Metric(Protocol):
    """An accumulating metric over predictions and labels at the labels' own resolution."""

    def update(self, prediction: Any, truth: Any) -> None:
        """Count one image.

        Raises:
            DataError: when the label is not valid, or the prediction is not one for its image.
        """

    def compute(self) -> Sequence[Measure]:
        """Measures over all images so far, the main one first.

        Raises:
            DataError: when there was nothing to measure.
        """

    def per_image(self, prediction: Any, truth: Any) -> float | None:
        """The main measure of one image by itself, which is not counted; None where there is nothing to measure."""

    def details(self) -> Mapping[str, Any]:
        """Further results as JSON values, e.g. a confusion matrix."""

    def notes(self) -> Sequence[str]:
        """What a reader of the measures has to know, one sentence each."""


def in_unit(value: float | None, unit: str, sign: str = "") -> str:
    """A measure's value as text: one digit behind the point in %, three in other units, "-" for none."""
    return "-" if value is None else format(value, f"{sign}.{1 if unit == '%' else 3}f")


@dataclass(frozen=True)
class SharedClasses:
    """What :meth:`Task.shared` found.

    Attributes:
        labels: label space of the converted labels.
        convert: from a label in the original label space to one in ``labels``.
        left_out: which classes of either side are not scored, as a sentence; empty when there are none.
    """

    labels: LabelSpace
    convert: Callable[[Any], Any]
    left_out: str = ""


@dataclass(frozen=True)
class View:
    """Where one view of an image lies.

    Attributes:
        rows: of the image at the size at which it was read.
        columns: the same; of the mirror image if ``mirrored``.
        shape: that height and width; views of one image may have several.
        mirrored: whether it is part of the mirror image.
    """

    rows: slice
    columns: slice
    shape: Size
    mirrored: bool = False


class Task(Protocol):
    """One kind of label and prediction.

    Attributes:
        suffix: ending of the files that :meth:`write` writes, with its dot.
        files: what these files are, for the name of their folder and for messages, e.g. ``"masks"``.
        pipeline_tag: the Hugging Face hub's name of the task.
        exports: endings of further files that :meth:`write` writes, in which the values may be rounded.
    """

    suffix: str
    files: str
    pipeline_tag: str
    exports: tuple[str, ...]

    def label(self, raw: Any, size: Size, labels: LabelSpace, *, where: object) -> Label:
        """The label of an image of ``size`` (h, w), as a domain read it, in the form that moves with the image.

        Raises:
            DataError: naming ``where``, when the label does not fit the image or the label space.
        """

    def outputs(self, head: Any, raw: Any) -> list[Any]:
        """A head's raw outputs for a batch of views, split into what :meth:`merge` takes, one entry per view."""

    def merge(self, head: Any, outputs: Sequence[Any], views: Sequence[View], size: Size) -> Any:
        """The prediction for one image.

        Args:
            head: the head whose outputs these are.
            outputs: of every view, from :meth:`outputs`.
            views: where each view lies in the image.
            size: height and width of the image itself, at which the prediction is made.
        """

    def metric(self, labels: LabelSpace, predicted: LabelSpace) -> Metric:
        """A fresh metric of predictions with the classes ``predicted`` against labels with the classes ``labels``.

        Raises:
            UsageError: when a class of the labels cannot be predicted.
        """

    def shared(self, labels: LabelSpace, known: LabelSpace) -> SharedClasses:
        """The part of a label space that a model of the label space ``known`` can be scored on, in the model's names.

        Raises:
            UsageError: when no class is shared.
        """

    def inside(self, label: Any, area: Area, labels: LabelSpace) -> Any:
        """The label with nothing to score outside of an area.

        Raises:
            DataError: when the area reaches outside the image.
            UsageError: when labels of this task cannot be scored in part.
        """

    def render(self, image: Image, value: Any, labels: LabelSpace, opacity: float = 0.6) -> Image:
        """A prediction or a label drawn over its image, RGB."""

    def present(self, value: Any, labels: LabelSpace) -> tuple[str, ...]:
        """Names of the classes that :meth:`render` shows, for a legend, in the order of the label space."""

    def write(self, prediction: Any, path: Path, labels: LabelSpace) -> None:
        """Write a prediction to a file, from which :meth:`read` gives back the same if it ends in :attr:`suffix`."""

    def read(self, path: Path, labels: LabelSpace) -> Any:
        """Read a prediction that :meth:`write` wrote.

        Raises:
            DataError: when the file is missing or not such a file.
        """


tasks: Registry[Task] = Registry("task", "tadp_da.tasks")
