"""The cache of what frozen networks say: latents of pictures, embeddings of prompts, captions, shared by all runs.

An entry is one safetensors file, found by the hash of everything that it was made from, so that nothing stale can be
found: a change makes another key. The plain facts behind the key lie in the file, for ``tadp-da cache why``.

There are no locks. A file is written aside and renamed, hence whole or absent, and processes that share the folder make
an entry at most once each; one that is killed holds nothing that another would wait for.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tadp_da.concept import digest_tensors
from tadp_da.errors import UsageError
from tadp_da.run import file_digest

if TYPE_CHECKING:
    from torch import Tensor

Facts = Mapping[str, Any]
"""What an entry was made from, as flat JSON values. Of a picture, ``image`` is the hash of its file's bytes."""

OFF = "off"
MOST = "20GB"
_ENTRY, _DRAFT = ".safetensors", ".draft"
_ABANDONED = 3600  # seconds after which a draft is nobody's any more
_log = logging.getLogger(__name__)


def location() -> Path | None:
    """``TADP_DA_CACHE``, else ``tadp_da`` in the user's cache folder (``XDG_CACHE_HOME``); None for ``off``.

    Raises:
        UsageError: when there is no home folder to put it in.
    """
    if told := os.environ.get("TADP_DA_CACHE", ""):
        return None if told == OFF else Path(told).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "tadp_da"
    except RuntimeError:
        raise UsageError(
            "there is no home folder to keep the cache in", fix="set TADP_DA_CACHE to a folder, or to off"
        ) from None


def size_of(text: str, where: str) -> int:
    """Bytes from text such as ``10GB`` or ``500 MiB``.

    Raises:
        UsageError: when it is no size.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise UsageError(f"{text!r} is no size", where=where, fix="write for example 10GB") from None


def limit() -> int:
    """Bytes that the cache may take: ``TADP_DA_CACHE_LIMIT`` or ``MOST``.

    Raises:
        UsageError: when the variable is no size.
    """
    return size_of(os.environ.get("TADP_DA_CACHE_LIMIT", MOST), "TADP_DA_CACHE_LIMIT")


def fault(folder: Path) -> str:
    """Why a folder, made here if it is missing, cannot be trusted or written; empty when it can."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        told = folder.stat()
        # pictures cannot be checked against their latents, so nobody else may lay any
        if os.name == "posix" and told.st_uid != os.geteuid():
            return f"it belongs to user {told.st_uid}, not to you ({os.geteuid()})"
        if os.name == "posix" and told.st_mode & stat.S_IWOTH:
            return "everybody may write to it"
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        return f"it cannot be written ({error.strerror or type(error).__name__})"
    return ""


def open_cache() -> Cache:
    """The cache of this process. Where its folder cannot be used that is said once, and nothing is kept."""
    return _opened(location(), limit())


@functools.cache
def _opened(folder: Path | None, most: int) -> Cache:
    if folder is not None and (why := fault(folder)):
        _log.warning(
            "going on without the cache %s: %s; set TADP_DA_CACHE to a folder of your own (chmod 700), or to off",
            folder,
            why,
        )
        folder = None
    return Cache(folder, most)


@dataclass
class Counts:
    """What came of the questions that this process asked."""

    found: int = 0
    made: int = 0
    damaged: int = 0


@dataclass(frozen=True)
class Entry:
    """A file of the cache.

    Attributes:
        path: the file.
        kind: what it holds: latents, text, captions.
        size: bytes.
        used: when it was last asked for, in seconds of the epoch.
    """

    path: Path
    kind: str
    size: int
    used: float


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


class Cache:
    """Entries in a folder, one file each.

    Args:
        folder: where they lie; None keeps nothing.
        limit: bytes beyond which those go that were not asked for the longest.
    """

    def __init__(self, folder: Path | None, limit: int) -> None:
        self.folder, self.limit, self.counts = folder, limit, Counts()
        self._unseen: float = float("inf")  # bytes written since the folder was last measured

    def once(
        self, kind: str, facts: Facts, make: Callable[[], dict[str, Tensor]], *, source: Path | None = None
    ) -> dict[str, Tensor]:
        """The tensors of an entry: read where it stands whole, made and kept otherwise.

        Args:
            kind: what they are; a folder of the cache.
            facts: all that they depend on.
            make: makes them, on the CPU.
            source: the file that ``facts["image"]`` speaks of. One that changed while the entry was made is not kept.
        """
        if (found := self.get(kind, facts)) is not None:
            return found
        made = make()
        self.put(kind, facts, made, source=source)
        return made

    def get(self, kind: str, facts: Facts) -> dict[str, Tensor] | None:
        """The tensors of an entry; None where there is none, or one that is damaged."""
        if self.folder is None:
            return None
        place = self._place(kind, facts)
        try:
            tensors = read(place)
            os.utime(place)  # the moment of its last use; file systems seldom keep track by themselves
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.counts.damaged += 1
            if self.counts.damaged == 1:
                _log.warning(
                    "a damaged entry of the cache is made again: %s (%s); `tadp-da cache verify` looks for others",
                    place,
                    error,
                )
            return None
        self.counts.found += 1
        return tensors

    def put(
        self, kind: str, facts: Facts, tensors: Mapping[str, Tensor], *, source: Path | None = None
    ) -> None:
        """Keep tensors; a folder that has become full or unwritable is told of once, and nothing else happens."""
        self.counts.made += 1
        if self.folder is None or (source is not None and not _is(source, facts["image"])):
            return
        place = self._place(kind, facts)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._unseen += _write(place, tensors, facts, source)
            if self._unseen > self.limit / 16:
                self.prune(self.limit)
        except OSError as error:
            _warn_of_loss(self.folder, error.strerror or type(error).__name__)

    def entries(self) -> Iterator[Entry]:
        """Every entry, damaged ones too, in no order."""
        for path in self._files(_ENTRY):
            try:
                told = path.stat()
            except FileNotFoundError:  # another process prunes
                continue
            yield Entry(path, path.parent.parent.name, told.st_size, told.st_mtime)

    def prune(self, to: int) -> tuple[int, int]:
        """Remove entries until they take at most ``to`` bytes, those first that were not asked for the longest; and
        what killed processes left behind.

        Returns:
            How many entries went, and their bytes.
        """
        for draft in self._files(_DRAFT):
            if (found := _stamp(draft)) is not None and time.time() - found > _ABANDONED:
                draft.unlink(missing_ok=True)
        known = sorted(self.entries(), key=lambda entry: entry.used)
        left, gone = sum(entry.size for entry in known), []
        for entry in known:
            if left <= to:
                break
            entry.path.unlink(missing_ok=True)
            left -= entry.size
            gone.append(entry.size)
        self._unseen = 0
        return len(gone), sum(gone)

    def _files(self, ending: str) -> Iterator[Path]:
        if self.folder is None:
            return
        for place, _, names in os.walk(self.folder):
            yield from (Path(place, name) for name in names if name.endswith(ending))

    def _place(self, kind: str, facts: Facts) -> Path:
        assert self.folder is not None
        key = _key(_plain(facts))
        return self.folder / kind / key[:2] / f"{key}{_ENTRY}"


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


def _write(place: Path, tensors: Mapping[str, Tensor], facts: Facts, source: Path | None) -> int:
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
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=f"{os.getpid()}-", suffix=_DRAFT)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)
    return len(raw)


def _is(source: Path, content: str) -> bool:
    try:
        return file_digest(source) == content
    except OSError:
        return False


@functools.cache
def _warn_of_loss(folder: Path, problem: str) -> None:
    _log.warning(
        "the cache %s cannot be written (%s); going on without. Free space on its disk, set TADP_DA_CACHE to another "
        "folder, or run: tadp-da cache prune --to 1GB",
        folder,
        problem,
    )


def _plain(facts: Facts) -> str:
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _key(facts: str) -> str:
    return hashlib.blake2b(facts.encode(), digest_size=20).hexdigest()


def _digest(tensors: Mapping[str, Tensor], facts: str, source: str, made: str) -> str:
    digest = hashlib.blake2b(json.dumps([facts, source, made]).encode(), digest_size=20)
    digest_tensors(digest, tensors)
    return digest.hexdigest()


def _stamp(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
