"""Files of data sets: pictures in an order that no file system decides, pairs by name, sizes from headers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tadp_da.errors import DataError, UsageError
from tadp_da.images import opened

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""What counts as a picture, in either case."""

Folders = Path | Mapping[str, Path]
"""A place for each split, or one place."""


def pictures(folder: Path, *, deep: bool = True) -> tuple[Path, ...]:
    """All picture files of a folder and, if ``deep``, its sub-folders, sorted by relative path.

    Hidden files and folders are left out. Links to folders are not followed, so a loop of links does no harm. A folder
    that is missing has none.
    """
    return files(folder, SUFFIXES, deep=deep)


def files(folder: Path, suffixes: Sequence[str], *, deep: bool = True) -> tuple[Path, ...]:
    """All files of some endings, in either case, as :func:`pictures` finds them."""
    found = []
    for place, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if deep and not name.startswith(".")]
        found += [
            Path(place, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def by_split(places: Folders, alone: str = "train") -> dict[str, Path]:
    """Whole paths by split; a single place is the split ``alone``."""
    given = {alone: places} if isinstance(places, Path) else dict(places)
    return {split: whole(path) for split, path in given.items()}


def under_root(found: Iterable[Path], folder: Path, root: Path, split: str) -> tuple[Path, ...]:
    """Files below ``folder`` (a whole path), spelled from ``root`` as it was given.

    Raises:
        UsageError: when the folder lies outside the root, so that no key can be made.
    """
    if not folder.is_relative_to(whole(root)):
        raise UsageError(
            f"the images of split {split!r} lie outside the root {root}",
            where=folder,
            fix="give a root that holds every folder of the domain",
        )
    below = folder.relative_to(whole(root))
    return tuple(root / below / path.relative_to(folder) for path in found)


def inner(image: Path, folders: Mapping[str, Path]) -> str:
    """The split whose folder holds an image; of nested folders the inner one.

    Raises:
        DataError: when none does.
    """
    holding = [split for split, folder in folders.items() if image.is_relative_to(folder)]
    if not holding:
        raise DataError(
            "an image lies in no labelled split", where=image, fix=f"labelled are: {', '.join(folders)}"
        )
    return max(holding, key=lambda split: len(folders[split].parts))


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


def partner(place: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    """The file below ``place`` with a stem and one of some endings, in either case; the first ending first."""
    usual = place / f"{name}{suffixes[0]}"
    if usual.is_file():
        return usual
    wanted = place / name
    return next(
        (path for path in files(wanted.parent, suffixes, deep=False) if path.with_suffix("") == wanted), None
    )


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


def stored_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture as its pixels are stored, before any EXIF turn.

    Raises:
        DataError: when the file is missing or no picture.
    """
    with opened(path) as image:
        return image.height, image.width
