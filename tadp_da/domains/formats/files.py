"""Folders of images by split, and pairs of images and labels."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tadp_da.domains.formats.pairing import find_swaps
from tadp_da.errors import DataError, UsageError
from tadp_da.images import SUFFIXES, name_key
from tadp_da.storage.listing import Remark, image_files, label_files, remarks

Folders = Path | Mapping[str, Path]
"""One folder (or file) per split, or a single one."""


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
    Where no label has the name of an image, one ending or beginning of all names may be exchanged for another:
    ``a/b.jpg`` goes with ``a/b_mask.png``.

    Attributes:
        domain: name of the domain, for messages.
        images: absolute image folder by split.
        labels: absolute label folder by labelled split.
        suffixes: suffixes of label files in either case; the preferred one first.
        what: what a label is called, e.g. ``"mask"``.
        others: names of files beside the labels that are none, e.g. ``"classes.txt"``.
        optional: an image without a label is one without objects, if others have labels.

    Raises:
        UsageError: if a labelled split has no image folder.
    """

    domain: str
    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    suffixes: tuple[str, ...]
    what: str
    others: tuple[str, ...] = ()
    optional: bool = False
    _pairs: dict[Path, Path] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        found = image_files(folder, but=self.labels.values())
        if found and split in self.labels:
            self._pairs.update(self._paired(folder, found, self.labels[split]))
        return under_root(found, folder, root, split)

    def label_file(self, image: Path) -> Path:
        """The label file of an image (an absolute path).

        Raises:
            DataError: if there is none.
        """
        split = split_of(image, {split: self.images[split] for split in self.labels})
        if image not in self._pairs:
            self.list_images(self.images[split], split)
        usual = self.labels[split] / image.relative_to(self.images[split]).with_suffix(self.suffixes[0])
        label = self._pairs.get(image, usual)
        if not label.is_file() and not self.optional:
            fix = f"add {label}, or remove the image"
            raise DataError(f"an image has no {self.what}", where=image, fix=fix)
        return label

    def _paired(self, folder: Path, images: Iterable[Path], place: Path) -> dict[Path, Path]:
        by_image = _by_stem(folder, images)
        labels = label_files(place, self.suffixes, but=self.images.values())
        by_label = _by_stem(place, [path for path in labels if path.name not in self.others])
        for where, group in ((folder, by_image), (place, by_label)):
            if shared := sorted(name for name, paths in group.items() if len(paths) > 1):
                raise DataError(
                    f"{len(shared)} names are shared by several files, e.g. "
                    + " and ".join(path.name for path in group[shared[0]]),
                    where=where,
                    fix=f"keep one file per name: images and {self.what}s are paired by name without suffix",
                )
        swaps = find_swaps(list(by_image), by_label) if by_image.keys().isdisjoint(by_label) else []
        if len(swaps) > 1:
            stem = next(iter(by_image))
            raise DataError(
                f"several {self.what}s fit each image: {' and '.join(sorted(s(stem) for s in swaps)[:3])} fit {stem}",
                where=place,
                fix=f"give a folder that holds one {self.what} per image",
            )
        names = {stem: (swaps and swaps[0](stem)) or stem for stem in by_image}
        alone = sorted(stem for stem, name in names.items() if name not in by_label)
        spare = sorted(by_label.keys() - set(names.values()))
        if self.optional and len(alone) < len(by_image) and not spare:
            for stem in alone:
                what = "images without a label file are background"
                remarks.add(Remark(what, by_image[stem][0]))
                del names[stem]
            alone = []
        if alone or spare:
            here, total = (alone, len(by_image)) if alone else (spare, len(by_label))
            problem = f"images have no {self.what}" if alone else f"{self.what}s have no image"
            others = f"; there are {self.what}s without image: {some(spare)}" if alone and spare else ""
            raise DataError(
                f"{len(here)} of {total} {problem}: {some(here)}{others}",
                where=place if alone else folder,
                fix=f"give image and {self.what} the same name except for the suffix, sub-folders included; or "
                "remove the files without partner",
            )
        pairs = {by_image[stem][0]: by_label[name][0] for stem, name in names.items()}
        if swaps:
            image, label = next(iter(pairs.items()))
            what = f"images are paired with {self.what}s of other names ({image.name} with {label.name})"
            remarks.add(Remark(what, image))
        return pairs


def _by_stem(folder: Path, paths: Iterable[Path]) -> Mapping[str, list[Path]]:
    groups = defaultdict(list)
    for path in paths:
        groups[name_key(path.relative_to(folder).with_suffix("").as_posix())].append(path)
    return groups


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of some names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
