"""Domains with only some of their images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tadp_da.domains import Domain
from tadp_da.errors import DataError
from tadp_da.storage.files import digest

Paths = tuple[Path, ...]


def first(domain: Domain, count: int) -> Domain:
    """The first so many images of every split."""
    return replace(domain, images=lambda root, split: domain.images(root, split)[:count])


def drawn(domain: Domain, split: str, count: int, seed: int, setting: str) -> Domain:
    """So many images of a split, drawn by their names and the seed; ``setting`` is where the count is from.

    Raises:
        DataError: when there are not as many, once they are listed.
    """

    def choose(root: Path, paths: Paths) -> Paths:
        if len(paths) < count:
            raise DataError(
                f"{count} images of {domain.name!r} are to be learned from, and there are {len(paths)}",
                where=root,
                fix=f"complete the data, or use --set {setting}={len(paths)}; {domain.fetch}",
            )
        ranks = {p: digest(os.fsencode(f"{seed}:{p.relative_to(root).as_posix()}")) for p in paths}
        chosen = set(sorted(paths, key=ranks.__getitem__)[:count])
        return tuple(path for path in paths if path in chosen)

    return _narrowed(domain, split, choose)


def shared_out(domain: Domain, share: float, content: Callable[[Path], str], *, held_out: bool) -> Domain:
    """The share of the unlabelled images whose digests come first, or the others."""

    def choose(root: Path, paths: Paths) -> Paths:
        found = {path: content(path) for path in paths}
        different = sorted(set(found.values()))
        out = set(different[: round(share * len(different))])
        return tuple(path for path in paths if (found[path] in out) is held_out)

    return _narrowed(domain, "unlabeled", choose)


def _narrowed(domain: Domain, split: str, choose: Callable[[Path, Paths], Paths]) -> Domain:
    def images(root: Path, asked: str) -> Paths:
        paths = domain.images(root, asked)
        return choose(root, paths) if asked == split else paths

    return replace(domain, images=images)
