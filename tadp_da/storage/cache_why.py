"""Why an entry of the cache was made: in what it differs from those that stood already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tadp_da.storage.cache import Cache
from tadp_da.storage.cache_file import Facts, Record, glance
from tadp_da.storage.files import file_digest


@dataclass(frozen=True)
class Answer:
    """Why an entry was made, where older ones stood already.

    Attributes:
        entry: the file.
        kind: what it holds.
        record: what it was made from, and when.
        instead: when the nearest older entry of the same file or prompt was made; None when there was none.
        changed: facts that keep the two apart: there, and here.
    """

    entry: Path
    kind: str
    record: Record
    instead: str | None
    changed: Mapping[str, tuple[Any, Any]]


def why(cache: Cache, *, source: Path | None = None, prompt: str | None = None) -> list[Answer]:
    """Every entry of a file, or of a prompt, oldest first, each with what it differs in from the nearest older one.

    An entry belongs to a file that has its content, or that was called the same when it was made. Entries that
    tell nothing are left out.
    """
    content, name = ("", "") if source is None else (file_digest(source), os.path.abspath(source))

    def concerns(record: Record) -> bool:
        if prompt is not None:
            return record.facts.get("prompt") == prompt
        return record.source == name or record.facts.get("image") == content

    known = [
        (entry, record)
        for entry in cache.entries()
        if (record := _readable(entry.path)) is not None and concerns(record)
    ]
    known.sort(key=lambda pair: pair[1].made)
    answers: list[Answer] = []
    for entry, record in known:
        older = [answer for answer in answers if answer.kind == entry.kind]
        changes = [(differences(answer.record.facts, record.facts), answer.record.made) for answer in older]
        changed, made = min(reversed(changes), key=lambda pair: len(pair[0]), default=({}, None))
        answers.append(Answer(entry.path, entry.kind, record, made, changed))
    return answers


def differences(there: Facts, here: Facts) -> dict[str, tuple[Any, Any]]:
    """Facts that two entries do not share, by name; None where one has no such fact."""
    names = sorted(there.keys() | here.keys())
    return {name: (there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)}


def _readable(path: Path) -> Record | None:
    try:
        return glance(path)
    except (OSError, ValueError):
        return None
