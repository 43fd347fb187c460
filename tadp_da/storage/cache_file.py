"""The file of one entry of the cache: tensors, what they were made from, and a digest over both."""

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
"""What an entry was made from, as flat JSON values. Of a picture, ``image`` is the hash of its file's bytes."""

ENTRY, DRAFT = ".safetensors", ".draft"


@dataclass(frozen=True)
class Record:
    """What an entry's file says of itself.

    Attributes:
        facts: what its tensors were made from.
        source: the file they were made of as it was then called; for people, no part of the key.
        made: when, in ISO 8601.
    """

    facts: dict[str, Any]
    source: str
    made: str


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of an entry's file.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is not what was written, down to the last bit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    raw = path.read_bytes()
    try:
        tensors = load(raw)
        told = _told(raw[8 : 8 + _header(raw)])
        digest, facts = told.pop("digest"), told["facts"]
        whole = digest == _digest(tensors, **told)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    if not whole or path.stem != _key(facts):
        raise ValueError("its hash is another")
    return tensors


def glance(path: Path) -> Record:
    """What an entry's file says of itself; its tensors are not read and nothing is checked.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it says nothing.
    """
    with path.open("rb") as file:
        told = _told(file.read(min(_header(file.read(8)), 2**20)))
    try:
        return Record(json.loads(told["facts"]), told["source"], told["made"])
    except KeyError as error:
        raise ValueError(f"it does not tell its {error}") from None


def _header(raw: bytes) -> int:
    """Length of a safetensors file's header, which follows behind the first eight bytes."""
    return int.from_bytes(raw[:8], "little")


def _told(header: bytes) -> dict[str, str]:
    found = json.loads(header)
    if not isinstance(found, dict) or not isinstance(told := found.get("__metadata__"), dict):
        raise ValueError("it tells nothing of itself")
    return told


def write(place: Path, tensors: Mapping[str, Tensor], facts: Facts, source: Path | None) -> int:
    """Write an entry aside and rename it; its bytes.

    Not forced to disk: an entry that a power cut tore is found damaged and made again, for less than it would cost to
    wait for the disk at every one of a hundred thousand.
    """
    from safetensors.torch import save

    told = {
        "facts": _plain(facts),
        "source": "" if source is None else os.path.abspath(source),
        "made": datetime.now(UTC).isoformat(timespec="microseconds"),
    }
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    raw = save(kept, metadata=told | {"digest": _digest(kept, **told)})
    # readable by its owner only
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=f"{os.getpid()}-", suffix=DRAFT)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)
    return len(raw)


def _plain(facts: Facts) -> str:
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)


def key_of(facts: Facts) -> str:
    """The name of the entry that is made from these facts."""
    return _key(_plain(facts))


def _key(facts: str) -> str:
    return hashlib.blake2b(facts.encode(), digest_size=20).hexdigest()


def _digest(tensors: Mapping[str, Tensor], facts: str, source: str, made: str) -> str:
    digest = hashlib.blake2b(json.dumps([facts, source, made]).encode(), digest_size=20)
    digest_tensors(digest, tensors)
    return digest.hexdigest()
