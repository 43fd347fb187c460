"""Your own boxes: folders of images with the JSON of COCO (Lin et al., ECCV 2014).

COCO counts pixels from 0 and writes ``[left, top, width, height]``, so a box is ``(x, y, x + width, y + height)``; an
annotation without one has that of its polygons. Crowds (``iscrowd``) become *difficult* boxes, which count neither as
found nor as missed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from tadp_da.domains import Domain
from tadp_da.domains.formats.boxes import check_size, kept, to_boxes
from tadp_da.domains.formats.coco_file import CocoContent, load
from tadp_da.domains.formats.files import Folders, absolute, by_split, some, split_of, under_root
from tadp_da.errors import DataError, UsageError
from tadp_da.storage.listing import Remark, image_files, remarks
from tadp_da.types import Boxes, DomainDescription, LabelSpace


def coco_domain(
    name: str,
    *,
    images: Folders,
    annotations: Folders,
    classes: Sequence[str] = (),
    drop: Collection[str] = (),
    description: DomainDescription | None = None,
) -> Domain:
    """A domain of your own images with boxes in one COCO file per split; the file lists the images that belong to it.

    Args:
        name: for messages and records.
        images: one folder per split, which the file names are relative to; a single folder is the split ``train``.
        annotations: the JSON file of each split.
        classes: class names in the order of their ids; if empty, the categories of the first file by their ids, except
            those that are only the supercategory of others.
        drop: names of categories to leave out.
        description: how captions may describe the domain.

    Raises:
        UsageError: if the splits of images and files differ.
        DataError: if a file is missing or not in COCO's format.
    """
    folders, labelled = by_split(images), by_split(annotations)
    if folders.keys() != labelled.keys():
        raise UsageError(
            f"domain {name!r} has images for {', '.join(folders)} and COCO files for {', '.join(labelled)}",
            fix="give one folder and one file for each split",
        )

    def content(split: str) -> CocoContent:
        return load(labelled[split], folders[split])

    known = kept(classes, drop) or kept(content(next(iter(labelled))).classes, drop)

    def list_images(root: Path, split: str) -> tuple[Path, ...]:
        found = _listed(content(split), folders[split], labelled[split])
        return under_root(found, folders[split], root, split)

    def read(image: Path) -> Boxes:
        image = absolute(image)
        split = split_of(image, folders)
        file, key = labelled[split], image.relative_to(folders[split]).as_posix()
        entry = content(split).images.get(key)
        if entry is None:
            raise DataError(f"a COCO file has no image {key!r}", where=file, fix="add the image to it")
        return to_boxes(entry.objects, image, check_size(entry.size, image, file), known, drop=drop)

    return Domain(
        name=name,
        description=description or DomainDescription(),
        splits=tuple(folders),
        images=list_images,
        labels=LabelSpace(task="detection", classes=known),
        label=read,
        fetch="put the images that the COCO file names into "
        + ", ".join(f"{path} ({split})" for split, path in folders.items()),
    )


def _listed(content: CocoContent, folder: Path, file: Path) -> list[Path]:
    """The images that a file names, all of which must exist; what else is in the folder is recorded."""
    found = [folder / key for key in sorted(content.images)]
    # not Path.is_file, which raises for a name too long for the system
    if missing := [path.relative_to(folder).as_posix() for path in found if not os.path.isfile(path)]:
        raise DataError(
            f"{len(missing)} of {len(found)} images are missing: {some(missing)}",
            where=folder,
            fix=f"put them there, or remove them from {file}",
        )
    if content.parents:
        names = ", ".join(content.parents)
        remarks.add(
            Remark(
                f"categories without objects that are only the parent of others are no class: {names}", file
            )
        )
    for path in sorted({*image_files(folder)}.difference(found)):
        remarks.add(Remark("images that the COCO file does not name are left out", path))
    for path in (folder / key for key, image in content.images.items() if image.moved):
        what = "images are found by their base name, the COCO file has other paths"
        remarks.add(Remark(what, path, "write file names relative to the image folder"))
    return found
