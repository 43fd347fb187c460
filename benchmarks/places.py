"""Where the images and labels of a recipe's domains lie."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.recipe import CustomDataset
from tadp_da.domains import Domain, domains
from tadp_da.domains.checks.preflight import preflight
from tadp_da.domains.formats.coco import coco_domain
from tadp_da.domains.formats.folder import folder_domain
from tadp_da.domains.formats.masks import Colour
from tadp_da.domains.formats.voc_folder import voc_domain
from tadp_da.errors import DataError, UsageError
from tadp_da.plain_yaml import parse_yaml
from tadp_da.registry import nearest
from tadp_da.run import Run
from tadp_da.storage.files import file_digest
from tadp_da.types import Unlabeled

_READ: dict[Any, str] = {}
_IGNORE = "ignore"


@dataclass(frozen=True)
class Placed:
    """A domain and the root its files lie under."""

    domain: Domain
    root: Path

    def images(self, split: str) -> Unlabeled:
        """The images of a split."""
        return self.domain.unlabeled(self.root, split)

    def contents(self, split: str, *, labels: bool = True) -> str:
        """One digest over the keys and bytes of the images of a split and, where it has them, over its labels."""
        images, label = self.images(split), self.domain.label if labels else None
        # every row of a table asks for the same folders: read again only when a time stamp or a size has changed
        stamps = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in images.paths)
        known = (self.domain.name, split, labels, stamps)
        if known not in _READ:
            parts = [
                f"{images.key(i)}:{file_digest(path)}:{digest(label(path).tobytes()) if label else ''}"
                for i, path in enumerate(images.paths)
            ]
            _READ[known] = digest("\n".join(parts).encode())
        return _READ[known]

    def checked(self, splits: Sequence[str], run: Run) -> Placed:
        """The same after a look at every file of those of these splits that the domain has."""
        used = [s for s in splits if s in self.domain.splits and (s == "unlabeled" or self.has(s))]
        return replace(self, domain=preflight(self.domain, self.root, used, run)) if used else self

    def has(self, split: str) -> bool:
        """Whether the split exists and is labelled."""
        return split in self.domain.splits and self.domain.has_labels(split)


def place(choice: str | CustomDataset, data: Path, limit: int | None = None) -> Placed:
    """A registered domain under the data root, or the user's own folders under their common parent.

    Args:
        choice: which domain.
        data: root of the registry's domains.
        limit: only the first so many images of every split.
    """
    placed = _place(choice, data)
    listed = placed.domain.images
    if limit is None:
        return placed
    return Placed(replace(placed.domain, images=lambda root, split: listed(root, split)[:limit]), placed.root)


def drawn(placed: Placed, count: int | None, seed: int) -> Placed:
    """The same domain with this many of its unlabelled images, a function of their names and the seed alone: more of
    them hold the fewer.

    Raises:
        DataError: when there are not as many.
    """
    if count is None:
        return placed
    listed = placed.domain.images

    def images(root: Path, split: str) -> tuple[Path, ...]:
        paths = listed(root, split)
        if split != "unlabeled":
            return paths
        if len(paths) < count:
            raise DataError(
                f"the concept is to be learned from {count} images of {placed.domain.name!r}, there are {len(paths)}",
                where=root,
                fix=f"complete the data, or say --set target_images={len(paths)}; {placed.domain.fetch}",
            )
        ranks = {path: digest(f"{seed}:{path.relative_to(root).as_posix()}".encode()) for path in paths}
        chosen = set(sorted(paths, key=ranks.__getitem__)[:count])
        return tuple(path for path in paths if path in chosen)

    return replace(placed, domain=replace(placed.domain, images=images))


def _place(choice: str | CustomDataset, data: Path) -> Placed:
    if isinstance(choice, str):
        return Placed(domains[choice], data)
    folders = [folder for folder in (choice.images, choice.test_images) if folder]
    return Placed(own_domain(choice), Path(os.path.commonpath([os.path.abspath(path) for path in folders])))


def own_domain(own: CustomDataset) -> Domain:
    """A user's folders as a domain: its splits are ``train`` or ``unlabeled``, and ``test`` where there is one."""
    train, test = own.masks or own.boxes, own.test_masks or own.test_boxes
    labels = ({"train": train} if train else {}) | ({"test": test} if test else {})
    images = {"train": own.images} | ({"test": own.test_images} if own.test_images else {})
    plain = folder_domain(own.name, images={"unlabeled": own.images}, description=own.description)
    if not labels:
        return plain
    build = _with_boxes if own.boxes or own.test_boxes else _with_masks
    labelled = build(own, {split: images[split] for split in labels}, labels)
    if train:
        return labelled

    def listed(root: Path, split: str) -> tuple[Path, ...]:
        return (plain if split == "unlabeled" else labelled).images(root, split)

    return replace(
        labelled, splits=(*plain.splits, *labelled.splits), labelled=labelled.splits, images=listed
    )


def _with_boxes(own: CustomDataset, images: dict[str, Path], labels: dict[str, Path]) -> Domain:
    build = coco_domain if all(path.is_file() for path in labels.values()) else voc_domain
    return build(
        own.name, images=images, annotations=labels, classes=own.classes, description=own.description
    )


def _with_masks(own: CustomDataset, images: dict[str, Path], labels: dict[str, Path]) -> Domain:
    legend = read_legend(own.legend, own.classes, own.ignore) if own.legend else Legend(classes=own.classes)
    return folder_domain(
        own.name,
        images=images,
        masks=labels,
        classes=legend.classes,
        palette=legend.palette,
        ignore=own.ignore,
        mapping=legend.values,
        colours=legend.colours,
        description=own.description,
    )


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What masks say.

    Attributes:
        classes: names in the order of their ids.
        values: stored value to class id, or None where they are the same or colours tell.
        colours: RGB colour to class id, or None.
        palette: a colour of each class, where colours tell.
    """

    classes: tuple[str, ...]
    values: dict[int, int] | None = None
    colours: dict[Colour, int] | None = None
    palette: tuple[Colour, ...] = ()


def read_legend(file: Path, classes: tuple[str, ...] = (), ignore: int = 255) -> Legend:
    """A YAML file with a line for every value or every colour that the masks hold::

        7: road                     128 64 128: road
        26: car                     0 0 142: car
        0: ignore                   0 0 0: ignore

    Args:
        file: values or colours to class names; several may mean the same class.
        classes: the order of the class ids; that of the file when none is given.
        ignore: id of what counts nowhere, said ``ignore`` in the file.

    Raises:
        UsageError: when it is no such file, mixes values and colours, or names a class that is not in ``classes``.
    """
    try:
        entries = parse_yaml(file.read_text(encoding="utf-8"), where=str(file))
    except OSError as error:
        raise UsageError(
            f"cannot read the legend: {error.strerror}", where=file, fix="check the path"
        ) from None
    keys = [_key(key, file) for key in entries]
    names = [str(name) for name in entries.values()]
    if len({type(key) for key in keys}) != 1:
        raise UsageError(
            "a legend is of values or of colours, and not empty",
            where=file,
            fix="write 7: road or 128 64 128: road",
        )
    order = classes or tuple(dict.fromkeys(name for name in names if name != _IGNORE))
    if strange := [name for name in names if name not in (*order, _IGNORE)]:
        raise UsageError(
            f"the legend names a class {strange[0]!r} that is not among the classes{nearest(strange[0], list(order))}",
            where=file,
            fix=f"write one of {', '.join(order)}, or {_IGNORE}",
        )
    ids = [ignore if name == _IGNORE else order.index(name) for name in names]
    values = {key: number for key, number in zip(keys, ids, strict=True) if isinstance(key, int)}
    if values:
        return Legend(classes=order, values=values)
    colours = {key: number for key, number in zip(keys, ids, strict=True) if isinstance(key, tuple)}
    if lacking := [name for name in order if order.index(name) not in ids]:
        raise UsageError(
            f"the legend has no colour of {', '.join(lacking)}", where=file, fix="add a line for it"
        )
    shown = {number: colour for colour, number in reversed(colours.items())}
    return Legend(classes=order, colours=colours, palette=tuple(shown[i] for i in range(len(order))))


def _key(key: Any, file: Path) -> int | Colour:
    if type(key) is int and 0 <= key < 2**16:
        return key
    numbers = [int(part) for part in re.findall(r"\d+", str(key))]
    if not re.fullmatch(r"\d+[ ,]+\d+[ ,]+\d+", str(key)) or max(numbers) > 255:
        raise UsageError(
            f"a legend has the key {key!r}",
            where=file,
            fix="write values as 7: road, colours as 128 64 128: road",
        )
    red, green, blue = numbers
    return red, green, blue


def digest(content: bytes) -> str:
    """blake2b of some bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
