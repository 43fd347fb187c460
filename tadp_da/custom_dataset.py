"""Your own folders as a data set: images with masks, boxes or depth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from tadp_da.domains import Domain
from tadp_da.domains.formats.box_folder import box_folder_domain, box_suffix
from tadp_da.domains.formats.coco import coco_domain
from tadp_da.domains.formats.depth import holds_depth
from tadp_da.domains.formats.depth_folder import NEAREST, depth_folder_domain
from tadp_da.domains.formats.folder import folder_domain
from tadp_da.domains.formats.legend import Legend, read_legend
from tadp_da.errors import UsageError
from tadp_da.settings import STRICT, Effect, build
from tadp_da.types import DomainDescription


@settings(frozen=True, kw_only=True, config=STRICT)
class CustomDataset:
    """Your own folders: images with masks, boxes or depth.

    Attributes:
        name: for messages and reports.
        images: folder of training (source) or unlabelled (target) images.
        masks: folder of masks with the same relative stems.
        boxes: folder of Pascal VOC XML, YOLO or labelme files with the same relative stems, or a COCO JSON file;
            instead of masks.
        depth: or folder of depth maps with the same relative stems: 16-bit PNG or NPY.
        classes: class names in the order of their ids; not needed with a legend or a COCO file. Boxes of ``"-name"``
            are left out.
        legend: file that maps the values or colours of the masks to classes (:func:`read_legend`).
        test_images: folder of test images.
        test_masks: their masks.
        test_boxes, test_depth: or their boxes or depth.
        depth_unit: metres that a stored depth of 1 means in files that do not say it; if None, 0.001 for whole numbers
            and 1 for fractions.
        max_depth: metres beyond which depths are not learned from and not scored.
        medium: what the images are, e.g. ``photo``.
        style: the simple words for the domain, e.g. ``dark night``.
        ignore: mask value that counts neither in training nor in a score, or ``"none"``.
    """

    name: str
    images: Annotated[Path, Effect.PLACE]
    masks: Annotated[Path | None, Effect.PLACE] = None
    boxes: Annotated[Path | None, Effect.PLACE] = None
    depth: Annotated[Path | None, Effect.PLACE] = None
    classes: tuple[str, ...] = ()
    legend: Annotated[Path | None, Effect.PLACE] = None
    test_images: Annotated[Path | None, Effect.PLACE] = None
    test_masks: Annotated[Path | None, Effect.PLACE] = None
    test_boxes: Annotated[Path | None, Effect.PLACE] = None
    test_depth: Annotated[Path | None, Effect.PLACE] = None
    depth_unit: Annotated[float, Field(gt=0)] | None = None
    max_depth: Annotated[float, Field(gt=NEAREST)] = 10.0
    medium: str = "photo"
    style: str = ""
    ignore: int | Literal["none"] = 255

    def __post_init__(self) -> None:
        if len(self.kinds) > 1:
            raise UsageError(
                f"a data set has masks, boxes or depth, and here are {' and '.join(self.kinds)}",
                where=self.name,
                fix="omit all but one of them",
            )
        if self.legend and self.kinds in (["boxes"], ["depth"]):
            raise UsageError("a legend is for masks", where=self.name, fix="name the classes instead")
        if self.kinds == ["depth"] and self.classes:
            raise UsageError("depth has no classes", where=self.name, fix="omit them")
        if self.kinds == ["masks"] and (wrong := [name for name in self.classes if name.startswith("-")]):
            raise UsageError(
                f"{wrong[0]} leaves out objects with boxes, and here are masks",
                where=self.name,
                fix="name the value or colour `ignore` in a legend: --legend legend.yaml",
            )
        if bool(self.test_images) != bool(self.test_labels):
            raise UsageError(
                "test images and their labels go together",
                where=self.name,
                fix="give both, or neither; images without labels are for the unlabelled folder, or for predict",
            )

    @property
    def kinds(self) -> list[str]:
        """Which kinds of labels are given."""
        return [k for k in ("masks", "boxes", "depth") if getattr(self, k) or getattr(self, f"test_{k}")]

    @property
    def train_labels(self) -> Path | None:
        """Labels of the training images."""
        return self.masks or self.boxes or self.depth

    @property
    def test_labels(self) -> Path | None:
        """Labels of the test images."""
        return self.test_masks or self.test_boxes or self.test_depth

    @property
    def description(self) -> DomainDescription:
        """How captions describe it."""
        return DomainDescription(medium=self.medium, style=self.style)

    @property
    def root(self) -> Path:
        """The folder that holds all of its image folders; keys of captions are relative to it."""
        folders = [folder for folder in (self.images, self.test_images) if folder]
        return Path(os.path.commonpath([os.path.abspath(path) for path in folders]))

    @classmethod
    def checked(cls, facts: Mapping[str, Any]) -> CustomDataset:
        """A data set from its attributes.

        Raises:
            UsageError: naming the one that is out of its range.
        """
        found: CustomDataset = build(cls, facts, str(facts["name"]))
        return found

    @classmethod
    def of(
        cls,
        images: Path,
        labels: Path | None = None,
        *,
        classes: Sequence[str] = (),
        legend: Path | None = None,
        ignore: int | Literal["none"] = 255,
        test: bool = False,
        **more: Any,
    ) -> CustomDataset:
        """One folder of images with its labels, whose kind is read from what is there.

        Args:
            images: the folder.
            labels: a folder of masks, of depth maps, of VOC XML, YOLO or labelme files, or a COCO JSON file.
            classes, legend, ignore, medium, style, depth_unit, max_depth: see the attributes.
            test: the images are the ``test`` split; else ``train`` with labels and ``unlabeled`` without.
        """
        facts: dict[str, Any] = {"name": images.name, "images": images, "classes": tuple(classes)}
        facts |= {"ignore": ignore} | ({"test_images": images} if test else {}) | more
        if labels is not None:
            kind = "boxes" if labels.is_file() or box_suffix(labels, images) else "masks"
            if kind == "masks" and not classes and not legend and holds_depth(labels):
                kind = "depth"
            facts |= {("test_" if test else "") + kind: labels}
            facts |= {"legend": legend} if kind == "masks" else {}
        return cls.checked(facts)


def custom_domain(own: CustomDataset) -> Domain:
    """A user's folders as a domain: its splits are ``train`` or ``unlabeled``, and ``test`` where there is one."""
    train, test = own.train_labels, own.test_labels
    labels = ({"train": train} if train else {}) | ({"test": test} if test else {})
    images = {"train" if train else "unlabeled": own.images}
    images |= {"test": own.test_images} if own.test_images else {}
    if own.kinds in ([], ["masks"]):
        return _with_masks(own, images, labels)
    build = _with_boxes if own.kinds == ["boxes"] else _with_depth
    labelled = build(own, {split: images[split] for split in labels}, labels)
    if train:
        return labelled
    plain = folder_domain(own.name, images={"unlabeled": own.images}, description=own.description)

    def listed(root: Path, split: str) -> tuple[Path, ...]:
        return (plain if split == "unlabeled" else labelled).images(root, split)

    return replace(
        labelled, splits=(*plain.splits, *labelled.splits), labelled=labelled.splits, images=listed
    )


def _with_boxes(own: CustomDataset, images: dict[str, Path], labels: dict[str, Path]) -> Domain:
    build = coco_domain if all(path.is_file() for path in labels.values()) else box_folder_domain
    return build(
        own.name,
        images=images,
        annotations=labels,
        classes=[name.removeprefix("-") for name in own.classes],
        drop=[name[1:] for name in own.classes if name.startswith("-")],
        description=own.description,
    )


def _with_depth(own: CustomDataset, images: dict[str, Path], labels: dict[str, Path]) -> Domain:
    return depth_folder_domain(
        own.name,
        images=images,
        depth=labels,
        unit=own.depth_unit,
        furthest=own.max_depth,
        description=own.description,
    )


def _with_masks(own: CustomDataset, images: dict[str, Path], labels: dict[str, Path]) -> Domain:
    legend, ignore = Legend(classes=own.classes), None if own.ignore == "none" else own.ignore
    if own.legend and labels:
        legend = read_legend(own.legend, own.classes, 255 if ignore is None else ignore)
    return folder_domain(
        own.name,
        images=images,
        masks=labels or None,
        classes=legend.classes if labels else (),
        palette=legend.palette,
        ignore=ignore,
        mapping=legend.values,
        colours=legend.colours,
        description=own.description,
    )
