"""Bring your own: a domain of folders of pictures and, where there are labels, parallel folders of index masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tadp_da.domains import Domain
from tadp_da.domains.formats.files import (
    SUFFIXES,
    Folders,
    by_split,
    check_pairs,
    inner,
    partner,
    pictures,
    stem,
    under_root,
    whole,
)
from tadp_da.domains.formats.masks import Colour, Mask, read_mask
from tadp_da.errors import DataError, UsageError
from tadp_da.types import DomainDescription, LabelSpace


def folder_domain(
    name: str,
    *,
    images: Folders,
    masks: Folders | None = None,
    classes: Sequence[str] = (),
    palette: Sequence[tuple[int, int, int]] = (),
    ignore: int = 255,
    mapping: Mapping[int, int] | None = None,
    colours: Mapping[Colour, int] | None = None,
    description: DomainDescription | None = None,
) -> Domain:
    """A domain of your own pictures (jpg, jpeg, png, webp, bmp in either case, sub-folders too).

    The folders are given as they lie on disk; the ``root`` that is later given to :meth:`Domain.unlabeled` must hold
    them, because the keys of caption files are paths relative to it.

    Args:
        name: for messages and records.
        images: one folder per split; a single folder is the split ``train`` with masks, ``unlabeled`` without.
        masks: folders of the splits that have labels. A mask belongs to the picture of the same relative path, endings
            left out: ``a/b.JPG`` goes with ``a/b.png``.
        classes: class names in the order of their ids; needed with masks.
        palette: a colour per class for pictures of masks, or none.
        ignore: id of pixels that count neither in training nor in a score.
        mapping: stored value to class id, for masks that number otherwise.
        colours: RGB colour to class id, for masks that paint classes in colours.
        words: how captions may speak of the domain.

    Raises:
        UsageError: when the settings contradict each other.
    """
    image_folders = by_split(images, "train" if masks else "unlabeled")
    mask_folders = by_split(masks) if masks else {}
    labels = LabelSpace(task="segmentation", classes=tuple(classes), ignore=ignore, palette=tuple(palette))
    _check_settings(name, image_folders, mask_folders, labels)
    own = _Folders(
        images=image_folders,
        masks=mask_folders,
        labels=labels,
        mapping=mapping,
        colours=colours,
    )
    return Domain(
        name=name,
        description=description or DomainDescription(),
        splits=tuple(image_folders),
        images=own.list_images,
        labels=labels if mask_folders else None,
        labelled=tuple(mask_folders),
        label=own.read_label if mask_folders else None,
        fetch=f"put pictures ({', '.join(s[1:] for s in SUFFIXES)}) into "
        + ", ".join(f"{path} ({split})" for split, path in image_folders.items()),
    )


@dataclass(frozen=True)
class _Folders:
    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    labels: LabelSpace
    mapping: Mapping[int, int] | None
    colours: Mapping[Colour, int] | None

    def list_images(self, root: Path, split: str) -> tuple[Path, ...]:
        folder = self.images[split]
        found = pictures(folder)
        if found and split in self.masks:
            check_pairs(folder, found, self.masks[split], pictures(self.masks[split]), "mask")
        return under_root(found, folder, root, split)

    def read_label(self, image: Path) -> Mask:
        image = whole(image)
        split = inner(image, {s: self.images[s] for s in self.masks})
        name = stem(image, self.images[split])
        path = partner(self.masks[split], name, (".png", *SUFFIXES))
        if path is None:
            usual = self.masks[split] / f"{name}.png"
            raise DataError("an image has no mask", where=image, fix=f"add {usual} or remove the image")
        return read_mask(path, self.labels, image=image, mapping=self.mapping, colours=self.colours)


def _check_settings(
    name: str, images: Mapping[str, Path], masks: Mapping[str, Path], labels: LabelSpace
) -> None:
    if unknown := sorted(masks.keys() - images.keys()):
        raise UsageError(
            f"domain {name!r} has masks for {', '.join(unknown)} but no images",
            fix=f"give masks for: {', '.join(images)}",
        )
    count = len(labels.classes)
    if masks and not 2 <= count <= 255:
        raise UsageError(
            f"domain {name!r} has masks and {count} class names",
            fix="name 2 to 255 classes in the order of their ids in the masks",
        )
    if len(set(labels.classes)) < count:
        raise UsageError(f"domain {name!r} names a class twice", fix="give every class a name of its own")
    if not count <= labels.ignore <= 255 and count:
        raise UsageError(
            f"the ignore id {labels.ignore} of domain {name!r} is a class or no byte",
            fix=f"choose one from {count} to 255",
        )
    if labels.palette and len(labels.palette) != count:
        raise UsageError(
            f"domain {name!r} has {len(labels.palette)} colours for {count} classes",
            fix="give one colour per class, or none",
        )
