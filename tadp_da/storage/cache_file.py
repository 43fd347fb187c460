"""The file of one cache entry: tensors, the facts that they depend on, and a digest of both; why it was created."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tadp_da.concept import digest_tensors
from tadp_da.storage.files import file_digest

if TYPE_CHECKING:
    from torch import Tensor

Facts = Mapping[str, Any]
"""What an entry depends on, as flat JSON values; ``image`` is the hash of an image file's bytes."""

ENTRY, DRAFT = ".safetensors", ".draft"


@dataclass(frozen=True)
class EntryRecord:
    """Metadata of an entry.

    Attributes:
        facts: what its tensors depend on.
        source: path of the source file at that time; for people, not part of the key.
        made: time of creation, in ISO 8601.
    """

    facts: dict[str, Any]
    source: str
    made: str


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache: its path, kind (latents, text, captions), size in bytes, and time of last use (epoch)."""

    path: Path
    kind: str
    size: int
    used: float


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of an entry's file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it differs from what was written in any bit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    raw = path.read_bytes()
    try:
        tensors, record = load(raw), _metadata(raw)
        digest, facts = record.pop("digest"), record["facts"]
        intact = digest == _digest(tensors, **record) and path.stem == _hash(facts)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    if not intact:
        raise ValueError("its hash differs")
    return tensors


def read_metadata(path: Path) -> EntryRecord:
    """Metadata of an entry's file; its tensors are not read and nothing is checked.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it has no metadata.
    """
    with path.open("rb") as file:
        raw = file.read(2**20)
    try:
        record = _metadata(raw)
        return EntryRecord(json.loads(record["facts"]), record["source"], record["made"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it has no metadata: {error}") from None


def _metadata(raw: bytes) -> dict[str, str]:
    """Metadata in the header of a safetensors file, whose length is in the first eight bytes."""
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    found: dict[str, str] = header["__metadata__"]
    return found


def write(path: Path, tensors: Mapping[str, Tensor], facts: Facts, source: Path | None) -> int:
    """Write an entry atomically; returns its size in bytes.

    Not flushed to disk: an entry that was torn by a power failure is detected and created again, which costs less than
    waiting for the disk at each of a hundred thousand entries.
    """
    from safetensors.torch import save

    record = {
        "facts": _as_text(facts),
        "source": "" if source is None else os.path.abspath(source),
        "made": datetime.now(UTC).isoformat(timespec="microseconds"),
    }
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    raw = save(kept, metadata=record | {"digest": _digest(kept, **record)})
    # readable by its owner only
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{os.getpid()}-", suffix=DRAFT)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return len(raw)


def key_of(facts: Facts) -> str:
    """The name of the entry with these facts."""
    return _hash(_as_text(facts))


def _as_text(facts: Facts) -> str:
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _hash(facts: str) -> str:
    return hashlib.blake2b(facts.encode(), digest_size=20).hexdigest()


def _digest(tensors: Mapping[str, Tensor], facts: str, source: str, made: str) -> str:
    digest = hashlib.blake2b(json.dumps([facts, source, made]).encode(), digest_size=20)
    digest_tensors(digest, tensors)
    return digest.hexdigest()


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


def why(
    entries: Iterable[CacheEntry], *, source: Path | None = None, prompt: str | None = None
) -> list[Explanation]:
    """Every entry of a file, or of a prompt, oldest first, each with its differences from the nearest older one.

    An entry belongs to a file that has its content, or had the same path when it was created. Entries without metadata
    are left out.
    """
    content, name = ("", "") if source is None else (file_digest(source), os.path.abspath(source))
    known = []
    for entry in entries:
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
