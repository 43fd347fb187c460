"""Bring your own boxes: folders of pictures with parallel folders of Pascal VOC XML, as LabelImg and CVAT write."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tadp_da.domains import Domain
from tadp_da.domains.formats.boxes import Annotation
from tadp_da.domains.formats.files import (
    SUFFIXES,
    Folders,
    by_split,
    check_pairs,
    files,
    inner,
    partner,
    pictures,
    stem,
    under_root,
    whole,
)
from tadp_da.domains.formats.voc_xml import read_annotation
from tadp_da.errors import UsageError
from tadp_da.types import Boxes, DomainDescription, LabelSpace


def voc_domain(
    name: str,
    *,
    images: Folders,
    annotations: Folders,
    classes: Sequence[str],
    drop: Collection[str] = (),
    description: DomainDescription | None = None,
) -> Domain:
    """A domain of your own pictures with boxes in VOC's XML. The folders of pictures must lie in the ``root`` that is
    given later: keys of caption files are paths relative to it.

    Args:
        name: for messages and records.
        images: one folder per split; a single folder is the split ``train``.
        annotations: folders of the splits that have labels. ``a/b.JPG`` goes with ``a/b.xml``; a picture without
            objects has an XML file without objects.
        classes: class names in the order of their ids, in any usual spelling.
        drop: names of objects that are left out on purpose.
        words: how captions may speak of the domain.

    Raises:
        UsageError: when there is no class, one comes twice, or a labelled split has no pictures.
    """
    folders, labelled = by_split(images), by_split(annotations)
    if not classes or len(set(classes)) < len(classes):
        raise UsageError(
            f"domain {name!r} has {len(classes)} class names, {len(set(classes))} of them different",
            fix="name every class once",
        )
    if unknown := sorted(labelled.keys() - folders.keys()):
        raise UsageError(
            f"domain {name!r} has annotations for {', '.join(unknown)} but no images",
            fix=f"give annotations for: {', '.join(folders)}",
        )
    own = _VocFolders(folders, labelled, tuple(classes), tuple(drop))
    return Domain(
        name=name,
        description=description or DomainDescription(),
        splits=tuple(folders),
        images=own.images,
        labels=LabelSpace(task="detection", classes=tuple(classes)),
        labelled=tuple(labelled),
        label=own.boxes,
        remarks=own.remarks,
        fetch=f"put pictures ({', '.join(s[1:] for s in SUFFIXES)}) into "
        + ", ".join(f"{path} ({split})" for split, path in folders.items()),
    )


@dataclass(frozen=True)
class _VocFolders:
    folders: Mapping[str, Path]
    labelled: Mapping[str, Path]
    classes: tuple[str, ...]
    drop: tuple[str, ...]

    def images(self, root: Path, split: str) -> tuple[Path, ...]:
        folder = self.folders[split]
        found = pictures(folder)
        if found and split in self.labelled:
            place = self.labelled[split]
            check_pairs(folder, found, place, files(place, (".xml",)), "annotation")
        return under_root(found, folder, root, split)

    def _annotation(self, image: Path) -> Annotation:
        image = whole(image)
        split = inner(image, {s: self.folders[s] for s in self.labelled})
        name = stem(image, self.folders[split])
        place = self.labelled[split]
        path = partner(place, name, (".xml",)) or place / f"{name}.xml"
        return read_annotation(path, image, self.classes, drop=self.drop)

    def boxes(self, image: Path) -> Boxes:
        return self._annotation(image).boxes

    def remarks(self, image: Path) -> tuple[str, ...]:
        return self._annotation(image).remarks
