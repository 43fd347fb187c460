"""Files of data sets: pictures in an order that no file system decides, pairs by name, sizes from headers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tadp_da.errors import DataError
from tadp_da.types import opened

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""What counts as a picture, in either case."""


def pictures(folder: Path, *, deep: bool = True) -> tuple[Path, ...]:
    """All picture files of a folder and, if ``deep``, its sub-folders, sorted by relative path.

    Hidden files and folders are left out. Links to folders are not followed, so a loop of links does no harm. A folder
    that is missing has none.
    """
    found = []
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if deep and not name.startswith(".")]
        found += [
            Path(place, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def home(root: Path, names: Iterable[str], holds: str) -> Path:
    """The folder of a data set: ``root/<name>`` that has ``holds`` in it, or the root itself if that has.

    When there is none, the first name, so that messages name the usual place.
    """
    places = [root / name for name in names]
    return next((place for place in [*places, root] if (place / holds).exists()), places[0])


def whole(path: Path) -> Path:
    """The path from the file system's root, dots resolved, links kept: keys must not depend on where links lead."""
    return Path(os.path.abspath(path))


def stem(path: Path, folder: Path) -> str:
    """A file's path below a folder, without its ending: what an image and its label have in common."""
    return path.relative_to(folder).with_suffix("").as_posix()


def by_stem(folder: Path, paths: Iterable[Path]) -> Mapping[str, list[Path]]:
    """Files by what :func:`stem` says of them."""
    groups = defaultdict(list)
    for path in paths:
        groups[stem(path, folder)].append(path)
    return groups


def check_pairs(folder: Path, images: Iterable[Path], place: Path, labels: Iterable[Path], what: str) -> None:
    """Refuse images and labels that do not pair one to one. By names only: no label is opened.

    Args:
        folder: where the images lie.
        images: their files.
        place: where the labels lie.
        labels: their files.
        what: what a label is called, e.g. ``"mask"``.

    Raises:
        DataError: naming the first files without partner, or the first name that several files have.
    """
    by_image, by_label = by_stem(folder, images), by_stem(place, labels)
    for where, group in ((folder, by_image), (place, by_label)):
        if twice := sorted(name for name, paths in group.items() if len(paths) > 1):
            raise DataError(
                f"{len(twice)} names stand for several files, e.g. "
                + " and ".join(path.name for path in group[twice[0]]),
                where=where,
                fix=f"keep one file per name: images and {what}s are paired by name without ending",
            )
    for there, here, problem, other in (
        (by_label, by_image, f"images have no {what}", place),
        (by_image, by_label, f"{what}s have no image", folder),
    ):
        if alone := sorted(here.keys() - there.keys()):
            raise DataError(
                f"{len(alone)} of {len(here)} {problem}: {some(alone)}",
                where=other,
                fix=f"name image and {what} alike but for the ending, sub-folders too; or remove what has no partner",
            )


def some(names: list[str], most: int = 3) -> str:
    """The first few of some names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


_EXIF_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)


def displayed_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture after its EXIF turn, from the file's header alone.

    Raises:
        DataError: when the file is missing or no picture.
    """
    with opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS
    return (width, height) if turned else (height, width)


def stored_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture as its pixels are stored, before any EXIF turn.

    Raises:
        DataError: when the file is missing or no picture.
    """
    with opened(path) as image:
        return image.height, image.width
