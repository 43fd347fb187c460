"""Domains: the layout of a data set on disk, its labels, and how captions describe it. One file per data set; readers
for your own folders are in ``formats/``. A plug-in registers one or more :class:`Domain`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tadp_da.errors import DataError, UsageError
from tadp_da.registry import Registry
from tadp_da.storage.listing import remarks
from tadp_da.types import DomainDescription, Labeled, LabelSpace, Unlabeled

if TYPE_CHECKING:
    from tadp_da.domains.formats.masks import StoredMask

Doubt = tuple[str, tuple[Path, ...], str]
"""What is wrong with files, which, and what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One visual domain.

    Attributes:
        name: registry name, e.g. ``"camvid-dusk"``.
        description: how captions may describe the domain.
        splits: split names; a domain that can serve as a target has ``"unlabeled"``.
        images: ``(root, split)`` to the image files of a split in a fixed order.
        labels: label space, or None for a domain of images only.
        labelled: splits whose labels may be read; if empty, all but ``"unlabeled"``.
        label: reads the label of one image file: ``uint8 (h, w)`` class ids for segmentation, ``Boxes`` for detection,
            ``float32 (h, w)`` metres (0: unknown) for depth.
        captions: the caption file of a split, for data sets that come with true captions.
        scene: the kind of place that an image file shows, such as ``"home office"``, for data sets sorted by it.
        doubts: mistakes that the masks of a split show only together; ``data check`` and every run warn of them.
        counts: number of images of each complete split as published; compared by ``data check``.
        fetch: where to download the data and how to arrange the folder.
    """

    name: str
    description: DomainDescription = field(default_factory=DomainDescription)
    splits: tuple[str, ...]
    images: Callable[[Path, str], tuple[Path, ...]]
    labels: LabelSpace | None = None
    labelled: tuple[str, ...] = ()
    label: Callable[[Path], Any] | None = None
    captions: Callable[[Path, str], Path] | None = None
    scene: Callable[[Path], str] | None = None
    doubts: Callable[[Sequence[StoredMask]], Sequence[Doubt]] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    fetch: str = ""

    def has_labels(self, split: str) -> bool:
        """Whether the labels of a split may be read."""
        return self.labels is not None and split in (self.labelled or {*self.splits} - {"unlabeled"})

    def unlabeled(self, root: Path, split: str = "unlabeled") -> Unlabeled:
        """The images of a split, without access to their labels.

        Raises:
            UsageError: if the domain has no such split.
            DataError: if the split has no images; the message says how to get the data.
        """
        if split not in self.splits:
            raise UsageError(
                f"domain {self.name!r} has no split {split!r}", fix=f"choose one of: {', '.join(self.splits)}"
            )
        with remarks.recording() as decisions:
            paths = self.images(root, split)
        if not paths:
            kinds = "".join(f"; {what}" for what in dict.fromkeys(remark.what for remark in decisions))
            what = f"no images in split {split!r} of {self.name!r}{kinds}"
            raise DataError(what, where=root, fix=self.fetch)
        return Unlabeled(domain=self.name, root=root, paths=paths)

    def labeled(
        self, root: Path, split: str, captions: Mapping[str, str], images: Unlabeled | None = None
    ) -> Labeled:
        """The labelled images of a split with their captions by key.

        Args:
            root: data root.
            split: which.
            captions: of every image.
            images: the images, where they have been listed already.

        Raises:
            UsageError: if there is no such split, or the domain or the split has no labels.
            DataError: if an image has no caption; the message says how many, and how to create them.
        """
        if self.labels is None or self.label is None:
            raise UsageError(
                f"domain {self.name!r} has no labels", fix="choose a labelled domain, or give masks"
            )
        images, read = images or self.unlabeled(root, split), self.label
        if not self.has_labels(split):
            labelled = self.labelled or [name for name in self.splits if name != "unlabeled"]
            raise UsageError(
                f"split {split!r} of {self.name!r} has no labels", fix=f"choose one of: {', '.join(labelled)}"
            )
        missing = [key for i in range(len(images)) if (key := images.key(i)) not in captions]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(images)} images of {self.name!r} ({split}) have no caption",
                where=missing[0],
                fix=f"create them: tadp-da caption {root} --out captions.json",
            )
        return Labeled(
            domain=self.name,
            labels=self.labels,
            images=images,
            label=partial(_label_at, read, images.paths),
            captions=captions,
        )


def _label_at(read: Callable[[Path], Any], paths: Sequence[Path], index: int) -> Any:
    return read(paths[index])


domains: Registry[Domain] = Registry("domain", "tadp_da.domains")
"""All domains by name; a plug-in calls ``domains.add(name)(Domain(...))``. The contract tests require that a member

- has the split ``"train"``, with labels, or ``"unlabeled"``, and labels for ``"test"`` if it has labels at all;
- names every class once, or, of a quantity, the range in which it counts, and ignores an id that is not a class;
- has different ``nearby`` and ``unrelated`` phrases, which do not describe the domain itself;
- says in ``fetch`` which root to give, which is shown for a root that does not hold the data.
"""
