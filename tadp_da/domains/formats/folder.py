"""Your own data: a domain of folders of images and, where there are labels, parallel folders of index masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tadp_da.domains import Domain
from tadp_da.domains.formats.files import Folders, PairedFolders, absolute, by_split
from tadp_da.domains.formats.masks import Colour, Mask, read_mask
from tadp_da.errors import UsageError
from tadp_da.images import SUFFIXES
from tadp_da.types import DomainDescription, LabelSpace


def folder_domain(
    name: str,
    *,
    images: Folders,
    masks: Folders | None = None,
    classes: Sequence[str] = (),
    palette: Sequence[tuple[int, int, int]] = (),
    ignore: int | None = 255,
    mapping: Mapping[int, int] | None = None,
    colours: Mapping[Colour, int] | None = None,
    description: DomainDescription | None = None,
) -> Domain:
    """A domain of your own images, sub-folders included (:func:`~tadp_da.storage.listing.image_files`).

    The ``root`` that is later given to :meth:`Domain.unlabeled` must contain the folders, because the keys of caption
    files are paths relative to it.

    Args:
        name: for messages and records.
        images: one folder per split; a single folder is the split ``train`` with masks, ``unlabeled`` without.
        masks: folders of the splits that have labels, paired by :class:`~tadp_da.domains.formats.files.PairedFolders`.
        classes: class names in the order of their ids; required with masks.
        palette: one colour per class for rendered masks, or none.
        ignore: id of pixels that count neither in training nor in a score. None: every value counts, and the second
            of two classes may be stored as 1, 127, 128, 254 or 255.
        mapping: stored value to class id, for masks with another numbering.
        colours: RGB colour to class id, for masks that paint classes in colours.
        description: how captions may describe the domain.

    Raises:
        UsageError: if the settings contradict each other.
    """
    ignored = 255 if ignore is None else ignore
    labels = LabelSpace("segmentation", tuple(classes), ignored, tuple(palette))
    pairs = PairedFolders(
        domain=name,
        images=by_split(images, "train" if masks else "unlabeled"),
        labels=by_split(masks) if masks else {},
        suffixes=(".png", *SUFFIXES),
        what="mask",
    )
    _check_labels(name, labels, bool(masks))

    meaning: Any = {"mapping": mapping, "colours": colours, "ignoring": ignore is not None}

    def read(image: Path) -> Mask:
        image = absolute(image)
        return read_mask(pairs.label_file(image), labels, image=image, **meaning)

    return Domain(
        name=name,
        description=description or DomainDescription(),
        splits=tuple(pairs.images),
        images=pairs.list_images,
        labels=labels if masks else None,
        labelled=tuple(pairs.labels),
        label=read if masks else None,
        fetch=pairs.fetch,
    )


def _check_labels(name: str, labels: LabelSpace, has_masks: bool) -> None:
    count = len(labels.classes)
    if has_masks and not 2 <= count <= 255:
        raise UsageError(
            f"domain {name!r} has masks and {count} class names",
            fix="name 2 to 255 classes in the order of their ids in the masks: --classes sky,road; or give a legend",
        )
    if len(set(labels.classes)) < count:
        raise UsageError(f"domain {name!r} names a class twice", fix="give every class a name of its own")
    if not count <= labels.ignore <= 255 and count:
        lines = f"`0: ignore` and `1: {labels.classes[0]}`"
        legend = "" if labels.ignore else f"; or, where 0 is no class, give a legend that begins with {lines}"
        raise UsageError(
            f"the ignore id {labels.ignore} of domain {name!r} is a class id or above 255",
            fix=f"choose one from {count} to 255: --ignore-index 255{legend}",
        )
    if labels.palette and len(labels.palette) != count:
        raise UsageError(
            f"domain {name!r} has {len(labels.palette)} colours for {count} classes",
            fix="give one colour per class, or none",
        )
