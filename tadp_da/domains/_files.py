"""Picture files in folders, in an order that no file system decides."""

from __future__ import annotations

import os
from pathlib import Path

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
