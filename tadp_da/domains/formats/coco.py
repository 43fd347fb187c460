"""Bring your own boxes: folders of pictures with the JSON of COCO (Lin et al., ECCV 2014).

COCO counts pixels from 0 and says ``[left, top, width, height]``, so a box is ``(x, y, x + width, y + height)`` as it
stands. Crowds (``iscrowd``) become *difficult* boxes: neither to be found nor to be blamed for.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from tadp_da.domains import Domain
from tadp_da.domains.formats.boxes import Annotation, Found, agreed_size, settle
from tadp_da.domains.formats.files import Folders, by_split, inner, some, under_root, whole
from tadp_da.errors import DataError, UsageError
from tadp_da.types import Boxes, DomainDescription, LabelSpace

_FORM = (
    'the file holds {"images": [{"id", "file_name", "width", "height"}], "categories": [{"id", "name"}], '
    '"annotations": [{"image_id", "category_id", "bbox": [x, y, width, height]}]}'
)


def coco_domain(
    name: str,
    *,
    images: Folders,
    annotations: Folders,
    classes: Sequence[str] = (),
    drop: Collection[str] = (),
    description: DomainDescription | None = None,
) -> Domain:
    """A domain of your own pictures with boxes in a COCO file per split; the file says which pictures belong to it.

    Args:
        name: for messages and records.
        images: one folder per split, which the file names are relative to; a single folder is the split ``train``.
        annotations: the JSON file of each split.
        classes: class names in the order of their ids; none for the categories of the first file by their ids.
        drop: names of categories that are left out on purpose.
        words: how captions may speak of the domain.

    Raises:
        UsageError: when the splits of images and files differ.
        DataError: when a file is missing or not of COCO's form.
    """
    folders, labelled = by_split(images), by_split(annotations)
    if folders.keys() != labelled.keys():
        raise UsageError(
            f"domain {name!r} has images for {', '.join(folders)} and COCO files for {', '.join(labelled)}",
            fix="give one folder and one file for each split",
        )
    named = tuple(classes) or _categories(next(iter(labelled.values())), drop)
    own = _Coco(folders, labelled, named, tuple(drop))
    return Domain(
        name=name,
        description=description or DomainDescription(),
        splits=tuple(folders),
        images=own.images,
        labels=LabelSpace(task="detection", classes=named),
        label=own.boxes,
        remarks=own.remarks,
        fetch="put the pictures that the COCO file names into "
        + ", ".join(f"{path} ({split})" for split, path in folders.items()),
    )


@dataclass(frozen=True)
class _Image:
    size: tuple[int, int] | None
    found: tuple[Found, ...]


@dataclass(frozen=True)
class _Coco:
    folders: Mapping[str, Path]
    labelled: Mapping[str, Path]
    classes: tuple[str, ...]
    drop: tuple[str, ...]

    def images(self, root: Path, split: str) -> tuple[Path, ...]:
        folder, file = self.folders[split], self.labelled[split]
        found = [folder / name for name in sorted(_load(file))]
        # not Path.is_file, which raises for a name too long for the system
        if missing := [path for path in found if not os.path.isfile(path)]:
            raise DataError(
                f"{len(missing)} of {len(found)} pictures are missing: "
                + some([path.relative_to(folder).as_posix() for path in missing]),
                where=folder,
                fix=f"put them there, or take them out of {file}",
            )
        return under_root(found, folder, root, split)

    def _annotation(self, image: Path) -> Annotation:
        image = whole(image)
        split = inner(image, self.folders)
        file, key = self.labelled[split], image.relative_to(self.folders[split]).as_posix()
        entry = _load(file).get(key)
        if entry is None:
            raise DataError(f"a COCO file does not know {key!r}", where=file, fix="add the image to it")
        size = agreed_size(entry.size, image, file)
        return settle(entry.found, size, self.classes, drop=self.drop)

    def boxes(self, image: Path) -> Boxes:
        return self._annotation(image).boxes

    def remarks(self, image: Path) -> tuple[str, ...]:
        return self._annotation(image).remarks


def _load(file: Path) -> Mapping[str, _Image]:
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
        raise DataError(f"a COCO file is no valid JSON: {error}", where=file, fix=_FORM) from None
    for part in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise DataError(f"a COCO file has no list {part!r}", where=file, fix=_FORM)
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _names(file: Path) -> dict[Any, str]:
    """Category names by id, in the order of the ids."""
    entries = _content(file, _stamp(file))["categories"]
    try:
        found = {entry["id"]: str(entry["name"]) for entry in sorted(entries, key=lambda e: e["id"])}
    except (TypeError, KeyError) as error:
        raise DataError(f"a category lacks {error}", where=file, fix=_FORM) from None
    if len(found) < len(entries):
        raise DataError("two categories share an id", where=file, fix="give every category an id of its own")
    return found


def _categories(file: Path, drop: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in _names(file).values() if name not in drop)


@lru_cache(maxsize=8)
def _images(file: Path, stamp: tuple[int, int]) -> Mapping[str, _Image]:
    content, names = _content(file, stamp), _names(file)
    objects: dict[Any, list[Found]] = defaultdict(list)
    for index, entry in enumerate(content["annotations"]):
        where = f"{file}, annotation {entry.get('id', index) if isinstance(entry, dict) else index}"
        try:
            x, y, width, height = map(float, entry["bbox"])
            thing = Found(
                names[entry["category_id"]],
                (x, y, x + width, y + height),
                bool(entry.get("iscrowd", 0)),
                where,
            )
            objects[entry["image_id"]].append(thing)
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"an annotation lacks or misstates {error}"
                if isinstance(error, KeyError)
                else f"an annotation is malformed: {error}",
                where=where,
                fix=_FORM,
            ) from None
    images: dict[str, _Image] = {}
    for entry in content["images"]:
        key, number, size = _image_entry(entry, file)
        if key in images:
            raise DataError(f"the picture {key!r} comes twice", where=file, fix="keep one entry per picture")
        images[key] = _Image(size, tuple(objects.pop(number, ())))
    if objects:
        raise DataError(
            f"{sum(map(len, objects.values()))} annotations belong to no image: ids {some([str(i) for i in objects])}",
            where=file,
            fix="add the images to the file, or remove the annotations",
        )
    return images


def _image_entry(entry: Any, file: Path) -> tuple[str, Any, tuple[int, int] | None]:
    """(path, id, stated size) of an image; a path that leads out of the folder is refused."""
    try:
        name, number = str(entry["file_name"]).replace("\\", "/"), entry["id"]
        height, width = int(entry.get("height") or 0), int(entry.get("width") or 0)
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"an image entry is malformed: {error}", where=file, fix=_FORM) from None
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise DataError(
            f"an image entry names {name!r}, which leads out of the folder of pictures",
            where=file,
            fix="write file names relative to the folder of pictures",
        )
    return path.as_posix(), number, (height, width) if height and width else None
