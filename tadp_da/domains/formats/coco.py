"""Your own boxes: folders of images with the JSON of COCO (Lin et al., ECCV 2014).

COCO counts pixels from 0 and writes ``[left, top, width, height]``, so a box is ``(x, y, x + width, y + height)``.
Crowds (``iscrowd``) become *difficult* boxes, which count neither as found nor as missed.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

from tadp_da.domains import Domain
from tadp_da.domains.formats.boxes import BoxAnnotation, RawObject, check_size, readers, to_boxes
from tadp_da.domains.formats.files import Folders, absolute, by_split, some, split_of, under_root
from tadp_da.errors import DataError, UsageError
from tadp_da.types import DomainDescription, LabelSpace

_FORM = (
    'the file holds {"images": [{"id", "file_name", "width", "height"}], "categories": [{"id", "name"}], '
    '"annotations": [{"image_id", "category_id", "bbox": [x, y, width, height]}]}'
)
_MALFORMED = (TypeError, KeyError, ValueError, AttributeError, OverflowError)


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
        classes: class names in the order of their ids; if empty, the categories of the first file by their ids.
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
    if not (known := tuple(classes)):
        known = tuple(c for c in _categories(next(iter(labelled.values()))).values() if c not in drop)

    def list_images(root: Path, split: str) -> tuple[Path, ...]:
        return under_root(_listed(folders[split], labelled[split]), folders[split], root, split)

    def read(image: Path) -> BoxAnnotation:
        image = absolute(image)
        split = split_of(image, folders)
        file, key = labelled[split], image.relative_to(folders[split]).as_posix()
        entry = _load(file).get(key)
        if entry is None:
            raise DataError(f"a COCO file has no image {key!r}", where=file, fix="add the image to it")
        return to_boxes(entry.objects, check_size(entry.size, image, file), known, drop=drop)

    label, remarks = readers(read)
    return Domain(
        name=name,
        description=description or DomainDescription(),
        splits=tuple(folders),
        images=list_images,
        labels=LabelSpace(task="detection", classes=known),
        label=label,
        remarks=remarks,
        fetch="put the images that the COCO file names into "
        + ", ".join(f"{path} ({split})" for split, path in folders.items()),
    )


def _listed(folder: Path, file: Path) -> list[Path]:
    """The images that a COCO file lists, all of which must exist."""
    found = [folder / key for key in sorted(_load(file))]
    # not Path.is_file, which raises for a name too long for the system
    if missing := [path for path in found if not os.path.isfile(path)]:
        raise DataError(
            f"{len(missing)} of {len(found)} images are missing: "
            + some([path.relative_to(folder).as_posix() for path in missing]),
            where=folder,
            fix=f"put them there, or remove them from {file}",
        )
    return found


class _CocoImage(NamedTuple):
    size: tuple[int, int] | None
    objects: tuple[RawObject, ...]


def _load(file: Path) -> Mapping[str, _CocoImage]:
    """Images by their path in the folder; the file is read again when it has changed."""
    return _images(file, _stamp(file))


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        raise DataError("a COCO file is missing", where=file, fix="check the path") from None
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=8)
def _content(file: Path, _stamp: tuple[int, int]) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"a COCO file is not valid JSON: {error}", where=file, fix=_FORM) from None
    for part in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise DataError(f"a COCO file has no list {part!r}", where=file, fix=_FORM)
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _categories(file: Path) -> dict[Any, str]:
    """Category names by id, in the order of the ids."""
    entries = _content(file, _stamp(file))["categories"]
    try:
        found = {entry["id"]: str(entry["name"]) for entry in sorted(entries, key=lambda e: e["id"])}
    except (TypeError, KeyError) as error:
        raise DataError(f"a category lacks {error}", where=file, fix=_FORM) from None
    if len(found) < len(entries):
        raise DataError("two categories share an id", where=file, fix="give every category an id of its own")
    return found


@lru_cache(maxsize=8)
def _images(file: Path, stamp: tuple[int, int]) -> Mapping[str, _CocoImage]:
    content, names = _content(file, stamp), _categories(file)
    objects: dict[Any, list[RawObject]] = defaultdict(list)
    for index, entry in enumerate(content["annotations"]):
        where = f"{file}, annotation {entry.get('id', index) if isinstance(entry, dict) else index}"
        try:
            x, y, width, height = map(float, entry["bbox"])
            crowd = bool(entry.get("iscrowd", 0))
            thing = RawObject(names[entry["category_id"]], (x, y, x + width, y + height), crowd, where)
            objects[entry["image_id"]].append(thing)
        except _MALFORMED as error:
            problem = "lacks or misstates" if isinstance(error, KeyError) else "is malformed:"
            raise DataError(f"an annotation {problem} {error}", where=where, fix=_FORM) from None
    images: dict[str, _CocoImage] = {}
    for entry in content["images"]:
        key, number, size = _image_entry(entry, file)
        if key in images:
            raise DataError(f"the image {key!r} is listed twice", where=file, fix="keep one entry per image")
        images[key] = _CocoImage(size, tuple(objects.pop(number, ())))
    if objects:
        raise DataError(
            f"{sum(map(len, objects.values()))} annotations belong to no image: ids {some([str(i) for i in objects])}",
            where=file,
            fix="add the images to the file, or remove the annotations",
        )
    return images


def _image_entry(entry: Any, file: Path) -> tuple[str, Any, tuple[int, int] | None]:
    """(path, id, stated size) of an image; a path that leaves the folder is refused."""
    try:
        name, number = str(entry["file_name"]).replace("\\", "/"), entry["id"]
        height, width = int(entry.get("height") or 0), int(entry.get("width") or 0)
    except _MALFORMED as error:
        raise DataError(f"an image entry is malformed: {error}", where=file, fix=_FORM) from None
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise DataError(
            f"an image entry names {name!r}, which leads out of the image folder",
            where=file,
            fix="write file names relative to the image folder",
        )
    return path.as_posix(), number, (height, width) if height and width else None
