"""Your own boxes: folders of images with parallel folders of label files: Pascal VOC XML, YOLO or labelme."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from tadp_da.domains import Domain
from tadp_da.domains.formats.boxes import kept
from tadp_da.domains.formats.files import Folders, PairedFolders, absolute, by_split
from tadp_da.domains.formats.labelme import read_labelme
from tadp_da.domains.formats.voc_xml import read_annotation
from tadp_da.domains.formats.yolo import CLASS_FILE, class_file, read_yolo
from tadp_da.errors import UsageError
from tadp_da.images import SUFFIXES
from tadp_da.storage.listing import label_files
from tadp_da.types import Boxes, DomainDescription, LabelSpace

_READERS = {".xml": read_annotation, ".json": read_labelme, ".txt": read_yolo}
"""Readers of one label file, by its suffix."""


def box_suffix(labels: Path, images: Path | None = None) -> str:
    """Suffix of the box labels in a folder; empty for a folder of masks, which may have such files beside them."""
    suffixes = {
        path.suffix.lower() for path in label_files(labels, (*_READERS, *SUFFIXES)) if path.name != CLASS_FILE
    }
    if labels != images and suffixes & {*SUFFIXES} and ".xml" not in suffixes:
        return ""
    return next((suffix for suffix in _READERS if suffix in suffixes), "")


def box_folder_domain(
    name: str,
    *,
    images: Folders,
    annotations: Folders,
    classes: Sequence[str] = (),
    drop: Collection[str] = (),
    description: DomainDescription | None = None,
) -> Domain:
    """A domain of your own images with a file of boxes each: Pascal VOC XML (LabelImg, CVAT), YOLO or labelme. The
    ``root`` that is given later must contain the image folders: keys of caption files are paths relative to it.

    Args:
        name: for messages and records.
        images: one folder per split; a single folder is the split ``train``.
        annotations: folders of the splits that have labels. ``a/b.JPG`` goes with ``a/b.xml``; an image without
            objects has a file without objects, with YOLO also none.
        classes: class names in the order of their ids, in any usual spelling; for YOLO, those of ``classes.txt`` in the
            first folder of labels where none are given.
        drop: names of objects to leave out; YOLO's ids count them, too, if ``classes`` names them.
        description: how captions may describe the domain.

    Raises:
        UsageError: if there are no classes, a class is named twice, or a labelled split has no images.
    """
    folders = by_split(annotations)
    suffix = next((s for folder in folders.values() if (s := box_suffix(folder, folder))), ".xml")
    names = tuple(classes) if kept(classes, drop) else ()
    names = names or next((c for folder in folders.values() if (c := class_file(folder))), ())
    known = kept(names, drop)
    if not known or len(set(known)) < len(known):
        raise UsageError(
            f"domain {name!r} names a class twice"
            if known
            else f"domain {name!r} has boxes and no class names",
            fix="name every class once, in the order of their ids: --classes car,person",
        )
    yolo = suffix == ".txt"
    pairs = PairedFolders(
        name, by_split(images), folders, (suffix,), "annotation", (CLASS_FILE,), optional=yolo
    )

    def read(image: Path) -> Boxes:
        image = absolute(image)
        return _READERS[suffix](pairs.label_file(image), image, names if yolo else known, drop=drop)

    return Domain(
        name=name,
        description=description or DomainDescription(),
        splits=tuple(pairs.images),
        images=pairs.list_images,
        labels=LabelSpace(task="detection", classes=known),
        labelled=tuple(pairs.labels),
        label=read,
        fetch=pairs.fetch,
    )
