"""Why an entry of the cache was created: how it differs from older ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tadp_da.storage.cache import Cache
from tadp_da.storage.cache_file import EntryRecord, Facts, read_metadata
from tadp_da.storage.files import file_digest


@dataclass(frozen=True)
class Explanation(EntryRecord):
    """Why an entry was created.

    Attributes:
        entry: the file.
        kind: what it holds.
        instead: creation time of the nearest older entry of the same file or prompt; None if there was none.
        changed: facts that differ between the two: older, and this one.
    """

    entry: Path
    kind: str
    instead: str | None
    changed: Mapping[str, tuple[Any, Any]]


def why(cache: Cache, *, source: Path | None = None, prompt: str | None = None) -> list[Explanation]:
    """Every entry of a file, or of a prompt, oldest first, each with its differences from the nearest older one.

    An entry belongs to a file that has its content, or had the same path when it was created. Entries without metadata
    are left out.
    """
    content, name = ("", "") if source is None else (file_digest(source), os.path.abspath(source))
    known = []
    for entry in cache.entries():
        with suppress(OSError, ValueError):
            record = read_metadata(entry.path)
            same = record.source == name or record.facts.get("image") == content
            if same if prompt is None else record.facts.get("prompt") == prompt:
                known.append((entry, record))
    answers: list[Explanation] = []
    for entry, record in sorted(known, key=lambda pair: pair[1].made):
        changes = [(differences(a.facts, record.facts), a.made) for a in answers if a.kind == entry.kind]
        changed, made = min(reversed(changes), key=lambda pair: len(pair[0]), default=({}, None))
        answers.append(
            Explanation(**vars(record), entry=entry.path, kind=entry.kind, instead=made, changed=changed)
        )
    return answers


def differences(there: Facts, here: Facts) -> dict[str, tuple[Any, Any]]:
    """Facts that differ between two entries, by name; None for a missing fact."""
    names = sorted(there.keys() | here.keys())
    return {name: (there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)}
