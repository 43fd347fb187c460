"""The files of a folder in an order that does not depend on the file system, with what was left out and why."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tadp_da.errors import DataError
from tadp_da.images import OUTPUT, SUFFIXES, name_key, opened
from tadp_da.storage.artifacts import MANIFEST

MASK_VALUES = 48
"""Different values of a greyscale or palette file up to which it may be a mask."""

T = TypeVar("T")
_SYSTEM = frozenset({
    "@eadir", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information", "lost+found",
    "__pycache__", "thumbs.db", "desktop.ini",
})  # fmt: skip
_LABELS = frozenset({
    "mask", "masks", "label", "labels", "annotation", "annotations", "gt", "ground_truth", "groundtruth", "gtfine",
    "gtcoarse", "truth", "segmentation", "segmentations", "segmentationclass", "segmentationobject",
})  # fmt: skip
_NO_IMAGES = frozenset({
    ".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".md", ".html", ".pdf", ".log", ".py", ".db",
    ".ini", ".zip", ".ipynb", ".safetensors", ".npy",
})  # fmt: skip
"""Suffixes of files that nobody takes for images: left out without a warning."""


class Recorder(Generic[T]):
    """Collects what is added within a block, in this thread; outside of any block it is dropped."""

    def __init__(self, name: str) -> None:
        self._current: ContextVar[list[T] | None] = ContextVar(name, default=None)

    def add(self, item: T) -> None:
        """Record an item."""
        if (recorded := self._current.get()) is not None:
            recorded.append(item)

    @contextmanager
    def recording(self) -> Iterator[list[T]]:
        """The items that are added within the block; those of a block around it too."""
        outer, recorded = self._current.get(), list[T]()
        token = self._current.set(recorded)
        try:
            yield recorded
        finally:
            self._current.reset(token)
            if outer is not None:
                outer += recorded


@dataclass(frozen=True)
class Remark:
    """What a reader decided by itself, for instance to leave out a file or to clip a box.

    Attributes:
        what: in the plural, without the count: ``"hidden or system files are left out"``.
        path: the file or folder.
        fix: what can be done about it; empty where nothing needs to be done.
        count: of the objects in a label.
    """

    what: str
    path: Path
    fix: str = ""
    count: int = 1


remarks: Recorder[Remark] = Recorder("remarks")
"""What listings decided, and what was corrected in labels."""


def image_files(folder: Path, but: Collection[Path] = ()) -> tuple[Path, ...]:
    """All image files of a folder and its sub-folders, sorted by relative path; links to folders are followed.

    What is left out, and why, is recorded (:data:`remarks`): hidden and system files, files with another suffix,
    folders that cannot be read, links to folders that are listed anyway, sub-folders of labels (``but``, and those of a
    usual name or with content like that), and sub-folders that this project wrote. A missing folder has no files.
    """

    def unwanted(path: Path) -> str:
        if path in but:
            return "folders of labels below the folder of images are left out"
        if _is_output(path):
            return "folders that tadp-da wrote are left out"
        return "folders that are named like labels are left out" if path.name.lower() in _LABELS else ""

    found = _files(folder, SUFFIXES, unwanted, tell=True)
    masks = set(_mask_folders(folder, found))
    return tuple(path for path in found if path.parent not in masks)


def _mask_folders(folder: Path, found: Sequence[Path]) -> Iterator[Path]:
    """Sub-folders whose files are masks by their names and content: each has the stem of an image elsewhere, and a few
    values instead of colours."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in found:
        by_name[name_key(path.stem)].append(path)
        by_folder[path.parent].append(path)

    def partner(path: Path) -> Path | None:
        same = by_name[name_key(path.stem)]
        return next((other for other in same if other.parent != path.parent), None)

    for place, files in by_folder.items():
        if place == folder or not all(map(partner, files)):
            continue
        pairs = [(path, partner(path)) for path in files[:3]]
        if all(_few_values(mask) and image and not _few_values(image) for mask, image in pairs):
            fix = "nothing if they are; images are used when they are saved in RGB"
            remarks.add(Remark("files that look like masks of the other images are left out", place, fix))
            yield place


def _few_values(path: Path) -> bool:
    """Whether a file holds palette indices or grey values of which few are used."""
    with suppress(DataError), opened(path) as image:
        return image.mode in ("1", "L", "P") and len(image.getcolors() or range(256)) <= MASK_VALUES
    return False


def label_files(folder: Path, suffixes: Sequence[str], but: Collection[Path] = ()) -> tuple[Path, ...]:
    """All files with some suffixes, in either case, listed as by :func:`image_files`.

    Args:
        folder: where they are.
        suffixes: with their dot, in lower case.
        but: sub-folders that do not belong to it.
    """
    beside = "folders of images below the folder of labels are left out"
    return _files(folder, suffixes, lambda path: beside if path in but else "", tell=False)


def _files(
    folder: Path, suffixes: Collection[str], unwanted: Callable[[Path], str], *, tell: bool
) -> tuple[Path, ...]:
    found, seen = [], set()
    folders, links = [folder] if folder.is_dir() else [], list[Path]()
    while folders or links:  # links last: what has a place of its own is listed there
        linked = not folders
        place = links.pop(0) if linked else folders.pop()
        status, real = place.stat(), place.resolve()
        if (status.st_dev, status.st_ino) in seen or (linked and folder.resolve().is_relative_to(real)):
            remarks.add(Remark("links to folders that are listed anyway are left out", place))
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in _entries(place):
            path = place / entry.name
            if path.is_dir() if entry.is_symlink() else entry.is_dir():
                if why := unwanted(path):
                    remarks.add(Remark(why, path))
                else:
                    (links if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in suffixes:
                found.append(path)
            elif tell:
                remarks.add(_other(path))
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def _entries(place: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, without hidden and system files."""
    try:
        with os.scandir(place) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        fix = "correct their permissions, or move them elsewhere"
        remarks.add(Remark(f"folders cannot be read and are left out: {error.strerror}", place, fix))
        return
    for entry in inside:
        if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
            if entry.name != OUTPUT:
                remarks.add(Remark("hidden or system files are left out", place / entry.name))
        else:
            yield entry


def _other(path: Path) -> Remark:
    if not path.exists():
        fix = "restore what they point to, or remove them"
        return Remark("links that lead nowhere are left out", path, fix)
    kind = path.suffix.lower()
    what = f"{kind} files are left out" if kind else "files without a suffix are left out"
    if kind in _NO_IMAGES:
        return Remark(what, path)
    return Remark(
        what, path, f"if they are images, convert them: {' '.join(s[1:] for s in SUFFIXES)} are read"
    )


def _is_output(folder: Path) -> bool:
    """Whether this project wrote a folder: images with a mark, or an artifact."""
    if (folder / OUTPUT).exists():
        return True
    try:
        return {"kind", "inputs", "versions"} <= json.loads((folder / MANIFEST).read_bytes()).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
