"""Your own boxes: folders of images with parallel folders of Pascal VOC XML, as LabelImg and CVAT write them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from tadp_da.domains import Domain
from tadp_da.domains.formats.boxes import BoxAnnotation, readers
from tadp_da.domains.formats.files import Folders, PairedFolders, absolute, by_split
from tadp_da.domains.formats.voc_xml import read_annotation
from tadp_da.errors import UsageError
from tadp_da.types import DomainDescription, LabelSpace


def voc_domain(
    name: str,
    *,
    images: Folders,
    annotations: Folders,
    classes: Sequence[str],
    drop: Collection[str] = (),
    description: DomainDescription | None = None,
) -> Domain:
    """A domain of your own images with boxes in VOC XML. The ``root`` that is given later must contain the image
    folders: keys of caption files are paths relative to it.

    Args:
        name: for messages and records.
        images: one folder per split; a single folder is the split ``train``.
        annotations: folders of the splits that have labels. ``a/b.JPG`` goes with ``a/b.xml``; an image without
            objects has an XML file without objects.
        classes: class names in the order of their ids, in any usual spelling.
        drop: names of objects to leave out.
        description: how captions may describe the domain.

    Raises:
        UsageError: if there are no classes, a class is named twice, or a labelled split has no images.
    """
    if not classes or len(set(classes)) < len(classes):
        raise UsageError(
            f"domain {name!r} has {len(classes)} class names, {len(set(classes))} of them different",
            fix="name every class once",
        )
    pairs = PairedFolders(name, by_split(images), by_split(annotations), (".xml",), "annotation")

    def read(image: Path) -> BoxAnnotation:
        image = absolute(image)
        return read_annotation(pairs.label_file(image), image, classes, drop=drop)

    label, remarks = readers(read)
    return Domain(
        name=name,
        description=description or DomainDescription(),
        splits=tuple(pairs.images),
        images=pairs.list_images,
        labels=LabelSpace(task="detection", classes=tuple(classes)),
        labelled=tuple(pairs.labels),
        label=label,
        remarks=remarks,
        fetch=pairs.fetch,
    )
