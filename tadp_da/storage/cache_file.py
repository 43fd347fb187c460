"""The file of one cache entry: tensors, the facts that they depend on, and a digest of both."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tadp_da.concept import digest_tensors

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
