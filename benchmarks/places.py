"""Where the images and labels of a recipe's domains lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.recipe import OwnData
from tadp_da.domains import Domain, domains
from tadp_da.domains.folder import folder_domain
from tadp_da.domains.preflight import preflight
from tadp_da.errors import DataError
from tadp_da.run import Run, file_digest
from tadp_da.types import Unlabeled

_READ: dict[Any, str] = {}


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


def place(choice: str | OwnData, data: Path, limit: int | None = None) -> Placed:
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


def _place(choice: str | OwnData, data: Path) -> Placed:
    if isinstance(choice, str):
        return Placed(domains[choice], data)
    train = "train" if choice.masks else "unlabeled"
    images = {train: choice.images} | ({"test": choice.test_images} if choice.test_images else {})
    masks = {"train": choice.masks} if choice.masks else {}
    masks |= {"test": choice.test_masks} if choice.test_masks else {}
    domain = folder_domain(
        choice.name,
        images=images,
        masks=masks,
        classes=choice.classes,
        ignore=choice.ignore,
        words=choice.words,
    )
    root = Path(os.path.commonpath([os.path.abspath(path) for path in images.values()]))
    return Placed(domain, root)


def digest(content: bytes) -> str:
    """blake2b of some bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
