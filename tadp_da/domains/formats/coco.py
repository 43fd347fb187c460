"""Your own boxes: folders of images with the JSON of COCO (Lin et al., ECCV 2014).

COCO counts pixels from 0 and writes ``[left, top, width, height]``, so a box is ``(x, y, x + width, y + height)``; an
annotation without one has that of its polygons. Crowds (``iscrowd``) become *difficult* boxes, which count neither as
found nor as missed.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tadp_da.domains import Domain
from tadp_da.domains.formats.boxes import (
    RawObject,
    check_size,
    flag,
    to_boxes,
)
from tadp_da.domains.formats.files import Folders, absolute, by_split, some, split_of, under_root
from tadp_da.domains.formats.listing import image_files
from tadp_da.domains.formats.recording import Remark, remarks
from tadp_da.errors import DataError, UsageError
from tadp_da.images import name_key
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

    def content(split: str) -> _Content:
        return _load(labelled[split], folders[split])

    known = tuple(classes) or tuple(c for c in content(next(iter(labelled))).classes if c not in drop)

    def list_images(root: Path, split: str) -> tuple[Path, ...]:
        folder, entries = folders[split], content(split).images
        found = [folder / key for key in sorted(entries)]
        # not Path.is_file, which raises for a name too long for the system
        if missing := [path.relative_to(folder).as_posix() for path in found if not os.path.isfile(path)]:
            raise DataError(
                f"{len(missing)} of {len(found)} images are missing: {some(missing)}",
                where=folder,
                fix=f"put them there, or remove them from {labelled[split]}",
            )
        for path in set(image_files(folder)).difference(found):
            remarks.add(Remark("images that the COCO file does not name are left out", path))
        for path in (folder / key for key, entry in entries.items() if entry.moved):
            what = "images are found by their base name, the COCO file has other paths"
            remarks.add(Remark(what, path, "write file names relative to the image folder"))
        return under_root(found, folder, root, split)

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


def _id(value: object) -> str:
    """An id as text: tools write 7, 7.0 and "7"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a number or text")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


_Id = Annotated[str, BeforeValidator(_id)]
_Sides = tuple[float, float, float, float]


class _Entry(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True, str_strip_whitespace=True)


class _Image(_Entry):
    id: _Id
    file_name: str
    width: float | None = None
    height: float | None = None


class _Category(_Entry):
    id: _Id
    name: Annotated[str, Field(min_length=1)]
    supercategory: str | None = None


class _Annotation(_Entry):
    image_id: _Id
    category_id: _Id
    bbox: Annotated[_Sides | None, BeforeValidator(lambda value: None if value == [] else value)] = None
    segmentation: Any = None
    iscrowd: Annotated[bool, BeforeValidator(flag)] = False

    def xyxy(self) -> _Sides:
        """Corners of the box, or of the polygons.

        Raises:
            ValueError: when it has neither.
        """
        if self.bbox:
            x, y, width, height = self.bbox
            return x, y, x + width, y + height
        try:
            points = np.concatenate([np.reshape(part, (-1, 2)).astype(float) for part in self.segmentation])
            (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        except (TypeError, ValueError):
            raise ValueError("it has neither a bbox nor polygons") from None
        return left, top, right, bottom


class _Coco(_Entry):
    images: list[_Image]
    categories: Annotated[list[_Category], Field(min_length=1)]
    annotations: list[_Annotation]


class _CocoImage(NamedTuple):
    size: tuple[int, int] | None
    objects: tuple[RawObject, ...]
    moved: bool


class _Content(NamedTuple):
    """Class names, and images by their path in the folder."""

    classes: tuple[str, ...]
    images: Mapping[str, _CocoImage]


def _load(file: Path, folder: Path) -> _Content:
    """The content of a file, which is read again when it has changed."""
    try:
        status = file.stat()
    except OSError:
        raise DataError("a COCO file is missing", where=file, fix="check the path") from None
    return _read(file, folder, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=8)
def _read(file: Path, folder: Path, _stamp: tuple[int, int]) -> _Content:
    coco = _parsed(file)
    names = _categories(coco, file)
    objects: dict[str, list[RawObject]] = defaultdict(list)
    for index, entry in enumerate(coco.annotations):
        where = f"{file}, annotations[{index}]"
        if entry.category_id not in names:
            raise DataError(
                f"an annotation has the unknown category {entry.category_id}", where=where, fix=_FORM
            )
        try:
            thing = RawObject(names[entry.category_id], entry.xyxy(), entry.iscrowd, where)
        except ValueError as error:
            raise DataError(f"an annotation is malformed: {error}", where=where, fix=_FORM) from None
        objects[entry.image_id].append(thing)
    images = _images(coco, file, folder, objects)
    used = {entry.category_id for entry in coco.annotations}
    parents = {c.supercategory for c in coco.categories if c.supercategory != c.name}
    return _Content(tuple(name for i, name in names.items() if i in used or name not in parents), images)


def _parsed(file: Path) -> _Coco:
    try:
        return _Coco.model_validate_json(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise DataError(f"a COCO file cannot be read: {error}", where=file, fix="check the path") from None
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
    part, *place = problem["loc"] or ("images",)
    if problem["type"] == "json_invalid":
        what = f"a COCO file is not valid JSON: {problem['msg']}"
    elif not place:
        what = f"a COCO file has no list {part!r}"
    else:
        what = f"an entry is malformed: {problem['msg']}"
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    raise DataError(what, where=f"{file}, {part}{where}" if place else file, fix=_FORM)


def _categories(coco: _Coco, file: Path) -> dict[str, str]:
    """Category names by id, in the order of the ids."""
    entries = sorted(coco.categories, key=lambda c: (not c.id.isdecimal(), len(c.id), c.id))
    for what, fix in (
        ("id", "give every category an id of its own"),
        ("name", "rename one, or remove it and give the other's id to its annotations"),
    ):
        value, count = Counter(getattr(entry, what) for entry in entries).most_common(1)[0]
        if count > 1:
            raise DataError(f"{count} categories share the {what} {value!r}", where=file, fix=fix)
    return {entry.id: entry.name for entry in entries}


def _images(
    coco: _Coco, file: Path, folder: Path, objects: dict[str, list[RawObject]]
) -> dict[str, _CocoImage]:
    """Images by path; takes their objects out of ``objects``."""
    images: dict[str, _CocoImage] = {}
    names: dict[str, str] = {}
    bases = _by_base(folder)
    for entry in coco.images:
        if entry.id in names:
            raise DataError(
                f"two images share the id {entry.id}: {names[entry.id]} and {entry.file_name}",
                where=file,
                fix="give every image an id of its own, which its annotations name as image_id",
            )
        names[entry.id] = entry.file_name
        name = entry.file_name.replace("\\", "/")
        key = _key(name, folder, bases, file)
        if key in images:
            raise DataError(f"the image {key!r} is listed twice", where=file, fix="keep one entry per image")
        size = (int(entry.height), int(entry.width)) if entry.height and entry.width else None
        moved = key != PurePosixPath(name).as_posix()
        images[key] = _CocoImage(size, tuple(objects.pop(entry.id, ())), moved)
    if objects:
        raise DataError(
            f"{sum(map(len, objects.values()))} annotations belong to no image: ids {some(list(objects))}",
            where=file,
            fix="add the images to the file, or remove the annotations",
        )
    return images


def _key(name: str, folder: Path, bases: Mapping[str, list[str]], file: Path) -> str:
    """The path in the folder of the image that a file name means: itself, or the only image of its base name, since
    Label Studio and tools on Windows write paths of their own machine.

    Raises:
        DataError: when there is no such image and the name leads out of the folder.
    """
    path = PurePosixPath(name)
    inside = not (path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0])
    if inside and os.path.isfile(folder / path):
        return path.as_posix()
    found = bases.get(name_key(path.as_posix().split("?d=")[-1].rpartition("/")[-1]), ())
    if len(found) == 1:
        return found[0]
    if not inside:
        raise DataError(
            f"an image entry names {name!r}, which leads out of the image folder, and the folder holds "
            f"{len(found) or 'no'} images of this base name",
            where=file,
            fix=f"write file names relative to the image folder {folder}",
        )
    return path.as_posix()


def _by_base(folder: Path) -> Mapping[str, list[str]]:
    """Paths in a folder by base name."""
    found = defaultdict(list)
    for path in image_files(folder):
        found[name_key(path.name)].append(path.relative_to(folder).as_posix())
    return found
