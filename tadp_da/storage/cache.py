"""The cache of what frozen networks say: latents of pictures, embeddings of prompts, captions, shared by all runs.

An entry is one safetensors file, found by the hash of everything that it was made from, so that nothing stale can be
found: a change makes another key. The plain facts behind the key lie in the file, for ``tadp-da cache why``.

A file is written aside and renamed, hence whole or absent, and read without a lock. What is missing is made under a
lock of its own, so that runs which share the folder share the work: one makes an entry, the others wait and read it.
The system frees the lock of a process that dies; for one that hangs others wait a while, then make the entry too.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tadp_da.errors import UsageError
from tadp_da.storage.cache_file import DRAFT, ENTRY, Facts, key_of, read, write
from tadp_da.storage.files import file_digest, locked

if TYPE_CHECKING:
    from torch import Tensor

OFF = "off"
MOST = "20GB"
_LOCK = ".lock"
_ABANDONED = 3600  # seconds after which a draft or a lock is nobody's any more
_PATIENCE = 120.0  # seconds that one waits for another to make an entry
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
    """Why a folder, made here if it is missing, cannot be trusted or used; empty when it can. A full or
    read-only disk is no fault: what is there is still found."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        told = folder.stat()
        # pictures cannot be checked against their latents, so nobody else may lay any
        if os.name == "posix" and told.st_uid != os.geteuid():
            return f"it belongs to user {told.st_uid}, not to you ({os.geteuid()})"
        if os.name == "posix" and told.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            return "others may write to it"
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS):
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


class Cache:
    """Entries in a folder, one file each.

    Args:
        folder: where they lie; None keeps nothing.
        limit: bytes beyond which those go that were not asked for the longest.
    """

    def __init__(self, folder: Path | None, limit: int) -> None:
        self.folder, self.limit, self.counts = folder, limit, Counts()
        self._unseen: float = float("inf")  # bytes written since the folder was last measured

    def get_or_create(
        self, kind: str, facts: Facts, make: Callable[[], dict[str, Tensor]], *, source: Path | None = None
    ) -> dict[str, Tensor]:
        """The tensors of an entry: read where it stands whole, made and kept otherwise.

        Args:
            kind: what they are; a folder of the cache.
            facts: all that they depend on.
            make: makes them, on the CPU.
            source: the file that ``facts["image"]`` speaks of. One that changed while the entry was made is not kept.
        """
        return self.get_or_create_many(kind, [facts], lambda _: [make()], sources=[source])[0]

    def get_or_create_many(
        self,
        kind: str,
        asked: Sequence[Facts],
        make: Callable[[Sequence[int]], Sequence[dict[str, Tensor]]],
        *,
        sources: Sequence[Path | None],
    ) -> list[dict[str, Tensor]]:
        """The tensors of several entries, those that are missing made in one go.

        Args:
            kind: as for ``once``.
            asked: the facts of each.
            make: makes those of the given places in ``asked``.
            sources: the file of each, as for ``once``.
        """
        found = {i: self.get(kind, facts) for i, facts in enumerate(asked)}
        if missing := [i for i, tensors in found.items() if tensors is None]:
            with self._alone(kind, [asked[i] for i in missing]):
                found |= {i: self.get(kind, asked[i]) for i in missing}  # another process may have been at it
                missing = [i for i in missing if found[i] is None]
                for i, made in zip(missing, make(missing) if missing else (), strict=True):
                    self.put(kind, asked[i], made, source=sources[i])
                    found[i] = made
        return [tensors for tensors in found.values() if tensors is not None]

    @contextmanager
    def _alone(self, kind: str, asked: Iterable[Facts]) -> Iterator[None]:
        """Hold the locks of entries while they are made. Where one cannot be had, the work may be done twice."""
        with ExitStack() as held:
            if self.folder is not None:
                until = time.monotonic() + _PATIENCE  # for all of them together
                # everybody takes them in one order, so that no two wait for each other
                for place in sorted({self._place(kind, facts) for facts in asked}):
                    try:
                        _make_room(self.folder, place)
                        patience = max(0.0, until - time.monotonic())
                        held.enter_context(locked(place.with_suffix(_LOCK), patience=patience))
                    except TimeoutError:
                        _tell_of_wait(self.folder)
                    except OSError as error:
                        _warn_of_loss(self.folder, error.strerror or type(error).__name__)
            yield

    def get(self, kind: str, facts: Facts) -> dict[str, Tensor] | None:
        """The tensors of an entry; None where there is none, or one that is damaged."""
        if self.folder is None:
            return None
        place = self._place(kind, facts)
        try:
            tensors = read(place)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):
                with suppress(OSError):
                    place.unlink()  # it counts as damaged once, and is missing from then on
            self.counts.damaged += 1
            if self.counts.damaged == 1:
                _log.warning(
                    "a damaged entry of the cache is made again: %s (%s); `tadp-da cache verify` looks for others",
                    place,
                    error,
                )
            return None
        with suppress(OSError):
            os.utime(place)  # the moment of its last use; file systems seldom keep track by themselves
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
            _make_room(self.folder, place)
            self._unseen += write(place, tensors, facts, source)
            if self._unseen > self.limit / 16:
                self.prune(self.limit)
        except OSError as error:
            _warn_of_loss(self.folder, error.strerror or type(error).__name__)

    def entries(self) -> Iterator[Entry]:
        """Every entry, damaged ones too, in no order."""
        for path in self._files(ENTRY):
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
        for left in (*self._files(DRAFT), *self._files(_LOCK)):
            if (found := _stamp(left)) is not None and time.time() - found > _ABANDONED:
                left.unlink(missing_ok=True)
        known = sorted(self.entries(), key=lambda entry: entry.used)
        total, gone = sum(entry.size for entry in known), []
        for entry in known:
            if total <= to:
                break
            entry.path.unlink(missing_ok=True)
            total -= entry.size
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
        key = key_of(facts)
        return self.folder / kind / key[:2] / f"{key}{ENTRY}"


def _is(source: Path, content: str) -> bool:
    try:
        return file_digest(source) == content
    except OSError:
        return False


def _make_room(folder: Path, place: Path) -> None:
    """The folders of an entry, for their owner only, whatever the umask says."""
    for made in (folder, place.parent.parent, place.parent):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)


@functools.cache
def _tell_of_wait(folder: Path) -> None:
    _log.warning(
        "another process makes entries of the cache %s for over %.0f s; they are made here too. Look whether it hangs",
        folder,
        _PATIENCE,
    )


@functools.cache
def _warn_of_loss(folder: Path, problem: str) -> None:
    _log.warning(
        "the cache %s cannot be written (%s); going on without. Free space on its disk, set TADP_DA_CACHE to another "
        "folder, or run: tadp-da cache prune --to 1GB",
        folder,
        problem,
    )


def _stamp(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
