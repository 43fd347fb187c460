"""The images that an analysis of models looks at, with their captions and labels.

Labels are read to describe what models do on images; nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.analyses import Given
from tadp_da.captions.provider import ANY, CaptionProvider
from tadp_da.captions.rewrite import Rewrite
from tadp_da.datasets import DataSource, find
from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.files import file_names
from tadp_da.tasks import tasks
from tadp_da.types import LabelSpace, Unlabeled

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One image.

    Attributes:
        key: of the image.
        image: itself.
        caption: of the image.
        truth: its label in the label space ``labels``; None where it has none.
        labels: the classes that label and model share, in the model's names.
    """

    key: str
    image: Image
    caption: str
    truth: Any
    labels: LabelSpace

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the classes that the label holds."""
        return () if self.truth is None else tasks[self.labels.task].present(self.truth, self.labels)

    def mask(self, name: str) -> NDArray[np.bool_]:
        """``(h, w)``: where the label, a mask, has a class."""
        found: NDArray[np.bool_] = self.truth == self.labels.classes.index(name)
        return found


def load_models(given: Given, run: Run) -> Iterator[tuple[str, PerceptionModel]]:
    """Every model with its name, one at a time: the folder's name, or its path where two share a name."""
    short = [folder.name for folder in given.folders]
    for folder, name in zip(given.folders, short, strict=True):
        model = PerceptionModel.load(folder, device=run.torch_device)
        yield (name if short.count(name) == 1 else str(folder)), model


def require_masks(model: PerceptionModel, analysis: str) -> None:
    """Refuse a model that does not give a probability of every class for every pixel.

    Raises:
        UsageError: for one of boxes or depth.
    """
    if model.labels.task != "segmentation":
        raise UsageError(
            f"{analysis} reads the probabilities of classes at pixels, and this model is of {model.labels.task}",
            where=model.folder,
            fix="give a segmentation model",
        )


def picture_names(shown: Sequence[Seen]) -> dict[str, str]:
    """Names for pictures by key: without folder and suffix, but the whole key where two would be alike."""
    return file_names({each.key: (PurePosixPath(each.key).stem, each.key) for each in shown})


def open_images(
    model: PerceptionModel, given: Given, run: Run, *, limit: int, split: str = "test", labels: bool = True
) -> list[Seen]:
    """The images that ``--images`` names, at most ``limit``, at even distances, with captions and labels.

    Args:
        model: its captioner captions them where no caption file is given; its classes are those of the labels.
        given: names the images, and labels and captions of a folder.
        run: device and progress; keeps what the captioner writes.
        limit: images at most.
        split: of a registered data set.
        labels: refuse images without labels; otherwise they are read where there are some.

    Raises:
        UsageError: when no images are named, or labels are needed and there are none.
        DataError: when the images are not there, or one cannot be read.
    """
    if not given.images:
        raise UsageError(
            "this analysis needs images",
            fix="give --images FOLDER, or a name that `tadp-da data list` prints",
        )
    source, images, split = _opened(model, given, run, limit, split)
    if labels and (source is None or not source.has(split)):
        raise UsageError(
            "this analysis compares with labels, and the images have none",
            where=given.images,
            fix="give --labels FOLDER of masks, or a labelled data set of `tadp-da data list`",
        )
    files = {ANY: given.captions} if given.captions else {}
    provider = CaptionProvider(captioner=model.captioner, files=files)
    if source is not None and source.has(split):
        return labelled(model, source, split, provider(images, split, run))
    captions = provider(images, split, run)
    keys = [images.key(i) for i in range(len(images))]
    return [
        Seen(key=key, image=images[i], caption=captions[key], truth=None, labels=model.labels)
        for i, key in enumerate(keys)
    ]


def labelled(
    model: PerceptionModel, source: DataSource, split: str, captions: Mapping[str, str]
) -> list[Seen]:
    """Every image of a split with its caption and label."""
    data = source.domain.labeled(source.root, split, captions, source.images(split))
    shared = tasks[model.labels.task].shared(data.labels, model.labels)
    examples = (data[i] for i in range(len(data)))
    return [
        Seen(
            key=each.key,
            image=each.image,
            caption=each.caption,
            truth=shared.convert(each.target),
            labels=shared.labels,
        )
        for each in examples
    ]


def thinned(source: DataSource, split: str, limit: int) -> DataSource:
    """The same with at most so many images of a split, at even distances."""
    paths = source.images(split).paths
    chosen = tuple(paths[i] for i in spread_indices(len(paths), limit))
    return replace(source, domain=replace(source.domain, images=lambda *_: chosen))


def _opened(
    model: PerceptionModel, given: Given, run: Run, limit: int, split: str
) -> tuple[DataSource | None, Unlabeled, str]:
    path = Path(given.images)
    if path.is_file():
        return None, Unlabeled(domain=path.stem, root=path.parent, paths=(path,)), ""
    how: dict[str, Any] = {}
    if given.labels:
        how = {"labels": given.labels, "classes": model.labels.classes, "ignore": model.labels.ignore}
    source, registered = find(given.images, given.data, test=bool(given.labels), **how)
    split = split if registered else "test" if given.labels else "unlabeled"
    source = thinned(source, split, limit).checked([split], run)
    return source, source.images(split), split


def spread_indices(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices at even distances."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def listed(model: PerceptionModel, names: Sequence[str], strategy: str = "class-names") -> str:
    """The prompt that lists class names as a strategy does; the empty one for no names."""
    return (
        prompt_of(model, "", replace(model.rewrite, strategy=strategy, classes=tuple(names))) if names else ""
    )


def prompt_of(model: PerceptionModel, caption: str, rewrite: Rewrite) -> str:
    """The prompt of a caption on the target side, within the tokenizer's limit."""
    return model.fitted(rewrite.target, caption)
