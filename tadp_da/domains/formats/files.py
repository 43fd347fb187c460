"""Files of data sets: images in an order that does not depend on the file system, and pairs of images and labels."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tadp_da.errors import DataError, UsageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Suffixes of image files, in either case."""

Folders = Path | Mapping[str, Path]
"""One folder (or file) per split, or a single one."""


def image_files(folder: Path) -> tuple[Path, ...]:
    """All image files of a folder and its sub-folders, sorted by relative path.

    Hidden files and folders are left out. Links to folders are not followed, so a loop of links is harmless. A missing
    folder has no files.
    """
    return files(folder, SUFFIXES)


def files(folder: Path, suffixes: Sequence[str], *, recursive: bool = True) -> tuple[Path, ...]:
    """All files with some suffixes, in either case, listed as by :func:`image_files`."""
    found = []
    for place, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if recursive and not name.startswith(".")]
        found += [
            Path(place, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def by_split(places: Folders, default: str = "train") -> dict[str, Path]:
    """Absolute paths by split; a single path is the split ``default``."""
    given = {default: places} if isinstance(places, Path) else dict(places)
    return {split: absolute(path) for split, path in given.items()}


def under_root(found: Iterable[Path], folder: Path, root: Path, split: str) -> tuple[Path, ...]:
    """Files below ``folder`` (an absolute path), written relative to ``root`` as it was given.

    Raises:
        UsageError: if the folder is outside the root, so that no key can be made.
    """
    if not folder.is_relative_to(absolute(root)):
        raise UsageError(
            f"the images of split {split!r} are outside the root {root}",
            where=folder,
            fix="give a root that holds every folder of the domain",
        )
    below = folder.relative_to(absolute(root))
    return tuple(root / below / path.relative_to(folder) for path in found)


def split_of(image: Path, folders: Mapping[str, Path]) -> str:
    """The split whose folder holds an image; of nested folders the innermost.

    Raises:
        DataError: if none does.
    """
    holding = [split for split, folder in folders.items() if image.is_relative_to(folder)]
    if not holding:
        raise DataError(
            "an image is in no labelled split", where=image, fix=f"labelled are: {', '.join(folders)}"
        )
    return max(holding, key=lambda split: len(folders[split].parts))


def dataset_folder(root: Path, names: Iterable[str], holds: str) -> Path:
    """The first folder ``root/<name>``, or the root itself, that contains ``holds``.

    If there is none, the first name, so that messages show the usual place.
    """
    places = [root / name for name in names]
    return next((place for place in [*places, root] if (place / holds).exists()), places[0])


def absolute(path: Path) -> Path:
    """An absolute path with dots resolved but links kept: keys must not depend on where links lead."""
    return Path(os.path.abspath(path))


@dataclass(frozen=True)
class PairedFolders:
    """Folders of images and parallel folders of label files.

    The label of an image has the same path within its folder except for the suffix: ``a/b.JPG`` goes with ``a/b.png``.

    Attributes:
        domain: name of the domain, for messages.
        images: absolute image folder by split.
        labels: absolute label folder by labelled split.
        suffixes: suffixes of label files in either case; the preferred one first.
        what: what a label is called, e.g. ``"mask"``.

    Raises:
        UsageError: if a labelled split has no image folder.
    """

    domain: str
    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    suffixes: tuple[str, ...]
    what: str

    def __post_init__(self) -> None:
        if unknown := sorted(self.labels.keys() - self.images.keys()):
            raise UsageError(
                f"domain {self.domain!r} has {self.what}s for {', '.join(unknown)} but no images",
                fix=f"give {self.what}s for: {', '.join(self.images)}",
            )

    @property
    def fetch(self) -> str:
        """What to do if there are no images."""
        folders = ", ".join(f"{path} ({split})" for split, path in self.images.items())
        return f"put images ({', '.join(s[1:] for s in SUFFIXES)}) into {folders}"

    def list_images(self, root: Path, split: str) -> tuple[Path, ...]:
        """The image files of a split, each checked to have one label file if the split is labelled.

        Raises:
            DataError: naming the first files without partner, or a name that several files share.
        """
        folder = self.images[split]
        found = image_files(folder)
        if found and split in self.labels:
            self._check_pairs(folder, found, self.labels[split])
        return under_root(found, folder, root, split)

    def label_file(self, image: Path) -> Path:
        """The label file of an image (an absolute path).

        Raises:
            DataError: if there is none.
        """
        split = split_of(image, {split: self.images[split] for split in self.labels})
        wanted = self.labels[split] / image.relative_to(self.images[split]).with_suffix("")
        usual = wanted.with_name(f"{wanted.name}{self.suffixes[0]}")
        if usual.is_file():
            return usual
        for path in files(wanted.parent, self.suffixes, recursive=False):
            if path.with_suffix("") == wanted:
                return path
        raise DataError(f"an image has no {self.what}", where=image, fix=f"add {usual}, or remove the image")

    def _check_pairs(self, folder: Path, images: Iterable[Path], place: Path) -> None:
        by_image, by_label = _by_stem(folder, images), _by_stem(place, files(place, self.suffixes))
        for where, group in ((folder, by_image), (place, by_label)):
            if shared := sorted(name for name, paths in group.items() if len(paths) > 1):
                raise DataError(
                    f"{len(shared)} names are shared by several files, e.g. "
                    + " and ".join(path.name for path in group[shared[0]]),
                    where=where,
                    fix=f"keep one file per name: images and {self.what}s are paired by name without suffix",
                )
        for there, here, problem, other in (
            (by_label, by_image, f"images have no {self.what}", place),
            (by_image, by_label, f"{self.what}s have no image", folder),
        ):
            if alone := sorted(here.keys() - there.keys()):
                raise DataError(
                    f"{len(alone)} of {len(here)} {problem}: {some(alone)}",
                    where=other,
                    fix=f"give image and {self.what} the same name except for the suffix, sub-folders included; or "
                    "remove the files without partner",
                )


def _by_stem(folder: Path, paths: Iterable[Path]) -> Mapping[str, list[Path]]:
    groups = defaultdict(list)
    for path in paths:
        groups[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return groups


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of some names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
