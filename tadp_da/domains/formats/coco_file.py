"""The content of a file in the JSON of COCO, checked: classes, and images with their objects."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from tadp_da.domains.formats.boxes import RawObject, flag
from tadp_da.domains.formats.files import some
from tadp_da.errors import DataError
from tadp_da.images import name_key
from tadp_da.storage.listing import image_files

_FORM = (
    'the file holds {"images": [{"id", "file_name", "width", "height"}], "categories": [{"id", "name"}], '
    '"annotations": [{"image_id", "category_id", "bbox": [x, y, width, height]}]}'
)


def _id(value: object) -> str:
    """An id as text: tools write 7, 7.0 and "7"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a number or text")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


_Id = Annotated[str, BeforeValidator(_id)]
_Sides = tuple[float, float, float, float]


_entry = dataclass(
    slots=True,  # there may be a million of them
    config=ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True, str_strip_whitespace=True),
)


@_entry
class _Image:
    id: _Id
    file_name: str
    width: float | None = None
    height: float | None = None


@_entry
class _Category:
    id: _Id
    name: Annotated[str, Field(min_length=1)]
    supercategory: str | None = None


@_entry
class _Annotation:
    image_id: _Id
    category_id: _Id
    bbox: Annotated[_Sides | None, BeforeValidator(lambda value: None if value == [] else value)] = None
    segmentation: Any = None
    iscrowd: Annotated[bool, BeforeValidator(flag)] = False

    @model_validator(mode="after")
    def _box_of_polygons(self) -> Self:
        if self.bbox is None:
            try:
                points = np.concatenate(
                    [np.reshape(part, (-1, 2)).astype(float) for part in self.segmentation]
                )
                (x, y), (width, height) = points.min(axis=0).tolist(), np.ptp(points, axis=0).tolist()
            except (TypeError, ValueError):
                raise ValueError("it has neither a bbox nor polygons") from None
            self.bbox = x, y, width, height
        self.segmentation = None
        return self


@_entry
class _Coco:
    images: list[_Image]
    categories: Annotated[list[_Category], Field(min_length=1)]
    annotations: list[_Annotation]


class CocoImage(NamedTuple):
    """Height and width as stated, objects, and whether the file has another path for it."""

    size: tuple[int, int] | None
    objects: tuple[RawObject, ...]
    moved: bool


class CocoContent(NamedTuple):
    """Class names, categories that are only the parent of others, and images by their path in the folder."""

    classes: tuple[str, ...]
    parents: tuple[str, ...]
    images: Mapping[str, CocoImage]


def load(file: Path, folder: Path) -> CocoContent:
    """The content of a file, which is read again when it has changed.

    Args:
        file: the JSON file.
        folder: the images that it names.

    Raises:
        DataError: naming the entry that is missing, malformed or not unique.
    """
    try:
        status = file.stat()
        return _read(file, folder, (status.st_mtime_ns, status.st_size))
    except OSError as error:
        raise DataError(
            f"a COCO file is missing: {error.strerror}", where=file, fix="check the path"
        ) from None


@lru_cache(maxsize=8)
def _read(file: Path, folder: Path, _stamp: tuple[int, int]) -> CocoContent:
    coco = _parsed(file)
    names = {entry.id: entry.name for entry in coco.categories}
    objects: dict[str, list[RawObject]] = defaultdict(list)
    for index, entry in enumerate(coco.annotations):
        where = f"{file}, annotations[{index}]"
        if entry.category_id not in names:
            what = f"an annotation has the unknown category {entry.category_id}"
            raise DataError(what, where=where, fix=_FORM)
        x, y, width, height = entry.bbox or (0, 0, 0, 0)
        box = x, y, x + width, y + height
        objects[entry.image_id].append(RawObject(names[entry.category_id], box, entry.iscrowd, where))
    images = _images(coco, file, folder, objects)
    used = {names[entry.category_id] for entry in coco.annotations}
    above = {c.supercategory for c in coco.categories if c.supercategory != c.name} - used
    classes, parents = ([n for n in names.values() if (n in above) is parent] for parent in (False, True))
    return CocoContent(tuple(classes), tuple(parents), images)


def _parsed(file: Path) -> _Coco:
    """The entries; categories in the order of their ids, each of another name."""
    try:
        coco = TypeAdapter(_Coco).validate_json(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
        part, *place = problem["loc"] or ("images",)
        if place:
            what = f"an entry is malformed: {problem['msg']}"
        elif problem["type"] == "json_invalid":
            what = f"a COCO file is not valid JSON: {problem['msg']}"
        else:
            what = f"a COCO file has no list {part!r}"
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
        raise DataError(what, where=f"{file}, {part}{steps}" if place else file, fix=_FORM) from None
    coco.categories.sort(key=lambda entry: (not entry.id.isdecimal(), len(entry.id), entry.id))
    for field, fix in (
        ("id", "give every category an id of its own"),
        ("name", "rename one, or remove it and give the other's id to its annotations"),
    ):
        value, count = Counter(getattr(entry, field) for entry in coco.categories).most_common(1)[0]
        if count > 1:
            raise DataError(f"{count} categories share the {field} {value!r}", where=file, fix=fix)
    return coco


def _images(
    coco: _Coco, file: Path, folder: Path, objects: dict[str, list[RawObject]]
) -> dict[str, CocoImage]:
    """Images by path; takes their objects out of ``objects``."""
    images: dict[str, CocoImage] = {}
    names: dict[str, str] = {}
    by_base = defaultdict(list)
    for path in image_files(folder):
        by_base[name_key(path.name)].append(path.relative_to(folder).as_posix())
    for entry in coco.images:
        if entry.id in names:
            raise DataError(
                f"two images share the id {entry.id}: {names[entry.id]} and {entry.file_name}",
                where=file,
                fix="give every image an id of its own, which its annotations name as image_id",
            )
        names[entry.id] = entry.file_name
        key, moved = _key(entry.file_name.replace("\\", "/"), folder, by_base, file)
        if key in images:
            raise DataError(f"the image {key!r} is listed twice", where=file, fix="keep one entry per image")
        size = (int(entry.height), int(entry.width)) if entry.height and entry.width else None
        images[key] = CocoImage(size, tuple(objects.pop(entry.id, ())), moved)
    if objects:
        raise DataError(
            f"{sum(map(len, objects.values()))} annotations belong to no image: ids {some(list(objects))}",
            where=file,
            fix="add the images to the file, or remove the annotations",
        )
    return images


def _key(name: str, folder: Path, by_base: Mapping[str, list[str]], file: Path) -> tuple[str, bool]:
    """The path in the folder of the image that a file name means, and whether it is another one: the only image of its
    base name, since Label Studio and tools on Windows write paths of their own machine.

    Raises:
        DataError: when there is no such image and the name leads out of the folder.
    """
    path = PurePosixPath(name)
    inside = not (path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0])
    if inside and os.path.isfile(folder / path):
        return path.as_posix(), False
    found = by_base.get(name_key(name.split("?d=")[-1].rpartition("/")[-1]), [])
    if len(found) == 1:
        return found[0], True
    if inside:
        return path.as_posix(), False
    raise DataError(
        f"an image entry names {name!r}, which leads out of the image folder, and {len(found) or 'no'} images in the "
        "folder have this base name",
        where=file,
        fix=f"write file names relative to the image folder {folder}",
    )
