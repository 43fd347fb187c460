"""The cache of outputs of frozen networks: latents of images, embeddings of prompts, captions, shared by all runs.

An entry is one safetensors file, named by the hash of everything that it depends on, so that a stale entry cannot be
found: any change gives another key. The facts behind the key are in the file, for ``tadp-da cache why``.

A file is written to a temporary name and renamed, hence complete or absent, and read without a lock. What is missing is
created under a lock of its own, so that runs which share the folder share the work: one creates an entry, the others
wait and read it. The system releases the lock of a process that dies; if one hangs, others stop waiting after a while
and create the entry too.
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
from tadp_da.storage.cache_file import DRAFT, ENTRY, CacheEntry, Facts, key_of, read, write
from tadp_da.storage.files import file_digest, locked

if TYPE_CHECKING:
    from torch import Tensor

OFF = "off"
MOST = "20GB"
_LOCK = ".lock"
_ABANDONED = 3600  # seconds after which a draft or a lock belongs to no running process
_PATIENCE = 120.0  # seconds to wait for another process to create an entry
_log = logging.getLogger(__name__)


def location() -> Path | None:
    """``TADP_DA_CACHE``, else ``tadp_da`` in the user's cache folder (``XDG_CACHE_HOME``); None for ``off``.

    Raises:
        UsageError: if there is no home folder to put it in.
    """
    if chosen := os.environ.get("TADP_DA_CACHE", ""):
        return None if chosen == OFF else Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "tadp_da"
    except RuntimeError:
        fix = "set TADP_DA_CACHE to a folder, or to off"
        raise UsageError("there is no home folder for the cache", fix=fix) from None


def size_of(text: str, where: str) -> int:
    """Bytes from text such as ``10GB`` or ``500 MiB``.

    Raises:
        UsageError: if it is not a size.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise UsageError(f"{text!r} is not a size", where=where, fix="write for example 10GB") from None


def limit() -> int:
    """Maximum size of the cache in bytes: ``TADP_DA_CACHE_LIMIT`` or ``MOST``.

    Raises:
        UsageError: if the variable is not a size.
    """
    return size_of(os.environ.get("TADP_DA_CACHE_LIMIT", MOST), "TADP_DA_CACHE_LIMIT")


def folder_problem(folder: Path) -> str:
    """Why a folder, created here if missing, cannot be trusted or used; empty if it can. A full or read-only disk is
    not a problem: existing entries are still found."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
        # latents cannot be compared with their images, so nobody else may write any
        if os.name == "posix" and status.st_uid != os.geteuid():
            return f"it belongs to user {status.st_uid}, not to you ({os.geteuid()})"
        if os.name == "posix" and status.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            return "others may write to it"
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS):
            return f"it cannot be written ({error.strerror or type(error).__name__})"
    return ""


def open_cache() -> Cache:
    """The cache of this process. If its folder cannot be used, a warning is given once and nothing is stored."""
    return _opened(location(), limit())


@functools.cache
def _opened(folder: Path | None, most: int) -> Cache:
    if folder is not None and (problem := folder_problem(folder)):
        _warn_once(
            f"continuing without the cache {folder}: {problem}; set TADP_DA_CACHE to a folder of your own (chmod 700), "
            "or to off"
        )
        folder = None
    return Cache(folder, most)


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


@dataclass
class CacheCounts:
    """Number of entries that this process found, created, and found damaged."""

    found: int = 0
    made: int = 0
    damaged: int = 0


class Cache:
    """Entries in a folder, one file each.

    Args:
        folder: the folder; None stores nothing.
        limit: size in bytes above which the least recently used entries are removed.
    """

    def __init__(self, folder: Path | None, limit: int) -> None:
        self.folder, self.limit, self.counts = folder, limit, CacheCounts()
        self._unmeasured: float = float("inf")  # bytes written since the size of the folder was last measured

    def get_or_create(
        self, kind: str, facts: Facts, make: Callable[[], dict[str, Tensor]], *, source: Path | None = None
    ) -> dict[str, Tensor]:
        """The tensors of an entry: read if it exists intact, otherwise created and stored.

        Args:
            kind: what they are; a sub-folder of the cache.
            facts: everything that they depend on.
            make: computes them, on the CPU.
            source: the file whose digest is ``facts["image"]``. If it changes meanwhile, the entry is not stored.
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
        """The tensors of several entries, the missing ones computed together.

        Args:
            kind: as for :meth:`get_or_create`.
            asked: the facts of each.
            make: computes those at the given indices of ``asked``.
            sources: the file of each, as for :meth:`get_or_create`.
        """
        found = [self.get(kind, facts) for facts in asked]
        if missing := [i for i, tensors in enumerate(found) if tensors is None]:
            with self._locks(kind, [asked[i] for i in missing]):
                for i in missing:  # another process may have created them
                    found[i] = self.get(kind, asked[i])
                missing = [i for i in missing if found[i] is None]
                for i, made in zip(missing, make(missing) if missing else (), strict=True):
                    self.put(kind, asked[i], made, source=sources[i])
                    found[i] = made
        return [tensors for tensors in found if tensors is not None]

    @contextmanager
    def _locks(self, kind: str, asked: Iterable[Facts]) -> Iterator[None]:
        """Hold the locks of entries while they are created. Without a lock, the work may be done twice."""
        until = time.monotonic() + _PATIENCE  # for all of them together
        # every process takes them in the same order, so that no two wait for each other
        paths = set() if self.folder is None else {self._path(kind, facts) for facts in asked}
        with ExitStack() as held:
            for path in sorted(paths):
                try:
                    self._make_folders(path)
                    patience = max(0.0, until - time.monotonic())
                    held.enter_context(locked(path.with_suffix(_LOCK), patience=patience))
                except TimeoutError:
                    _warn_once(
                        f"another process has been creating entries of the cache {self.folder} for over "
                        f"{_PATIENCE:.0f} s; they are created here too. Check whether it hangs"
                    )
                except OSError as error:
                    self._warn_of_loss(error)
            yield

    def get(self, kind: str, facts: Facts) -> dict[str, Tensor] | None:
        """The tensors of an entry; None if it is missing or damaged."""
        if self.folder is None:
            return None
        path = self._path(kind, facts)
        try:
            tensors = read(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):
                with suppress(OSError):
                    path.unlink()  # counted as damaged once, missing from then on
            self.counts.damaged += 1
            if self.counts.damaged == 1:
                _log.warning(
                    "a damaged entry of the cache is created again: %s (%s); `tadp-da cache verify` finds others",
                    path,
                    error,
                )
            return None
        with suppress(OSError):
            os.utime(path)  # the time of its last use; file systems rarely record it themselves
        self.counts.found += 1
        return tensors

    def put(
        self, kind: str, facts: Facts, tensors: Mapping[str, Tensor], *, source: Path | None = None
    ) -> None:
        """Store tensors; if the folder is full or not writable, warn once and continue."""
        self.counts.made += 1
        if self.folder is None or (source is not None and not _has_digest(source, facts["image"])):
            return
        path = self._path(kind, facts)
        try:
            self._make_folders(path)
            self._unmeasured += write(path, tensors, facts, source)
            if self._unmeasured > self.limit / 16:
                self.prune(self.limit)
        except OSError as error:
            self._warn_of_loss(error)

    def _warn_of_loss(self, error: OSError) -> None:
        problem = error.strerror or type(error).__name__
        _warn_once(
            f"the cache {self.folder} cannot be written ({problem}); continuing without it. "
            "Free space on its disk, set TADP_DA_CACHE to another folder, or run: tadp-da cache prune --to 1GB"
        )

    def entries(self) -> Iterator[CacheEntry]:
        """Every entry, including damaged ones, in no particular order."""
        for path in self._files(ENTRY):
            with suppress(FileNotFoundError):  # another process prunes
                status = path.stat()
                yield CacheEntry(path, path.parent.parent.name, status.st_size, status.st_mtime)

    def prune(self, to: int) -> tuple[int, int]:
        """Remove the least recently used entries until at most ``to`` bytes are left, and files of killed processes.

        Returns:
            Number of entries removed, and their bytes.
        """
        for left in (*self._files(DRAFT), *self._files(_LOCK)):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED:
                    left.unlink()
        known = sorted(self.entries(), key=lambda entry: entry.used)
        total, removed = sum(entry.size for entry in known), []
        while known and total > to:
            entry = known.pop(0)
            entry.path.unlink(missing_ok=True)
            total -= entry.size
            removed.append(entry.size)
        self._unmeasured = 0
        return len(removed), sum(removed)

    def _files(self, ending: str) -> Iterator[Path]:
        """Files of the cache; others in its folder are none of its business."""
        if self.folder is not None:
            yield from self.folder.glob(f"*/[0-9a-f][0-9a-f]/*{ending}")

    def _path(self, kind: str, facts: Facts) -> Path:
        assert self.folder is not None
        key = key_of(facts)
        return self.folder / kind / key[:2] / f"{key}{ENTRY}"

    def _make_folders(self, path: Path) -> None:
        """Create the folders of an entry, accessible to their owner only, whatever the umask."""
        assert self.folder is not None
        for folder in (self.folder, path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _has_digest(source: Path, digest: str) -> bool:
    try:
        return file_digest(source) == digest
    except OSError:
        return False
