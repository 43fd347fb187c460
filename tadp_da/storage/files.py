"""Atomic writes, locks, flushing, and disk errors with advice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]

from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.images import path_key
from tadp_da.terminal import printable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
_LEFT = re.compile(r"^\..+\.(?P<process>\d+)$")  # partially written, named after the process
_UNSAFE = re.compile(r"[^\w .()+,=@~-]|^[. ]|[. ]$|^$")
_FOLDERS: dict[Any, str] = {}
_LONGEST = 200  # bytes; most file systems allow 255 with what is added to it
Key = TypeVar("Key", str, tuple[str, str])


@contextmanager
def storing(where: object) -> Iterator[None]:
    """Report a full disk and a folder without write permission with their path and fix.

    Raises:
        EnvironmentSetupError: naming the path and the fix.
        UsageError: if a file is where a folder should be or the reverse, or a name is too long for the file system.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        place = getattr(error, "filename", None) or where
        if number in _FULL:
            raise EnvironmentSetupError(
                f"no space to write: {os.strerror(number)}",
                where=place,
                fix="free some space or choose a folder on another disk; the same command resumes from what is saved",
            ) from error
        if number in _CLOSED:
            raise EnvironmentSetupError(
                f"no permission to write or read: {os.strerror(number)}",
                where=place,
                fix="choose a writable folder, or correct its permissions",
            ) from error
        if number in _IN_THE_WAY:
            there, wanted = ("folder", "file") if number == errno.EISDIR else ("file", "folder")
            raise UsageError(
                f"a {there} is in the place of a {wanted}",
                where=place,
                fix=f"choose another --out, or move that {there}",
            ) from error
        if number == errno.ENAMETOOLONG:
            raise UsageError(
                "a name or path is too long for the file system",
                where=place,
                fix="choose a shorter one; names of unfinished files and folders are a few characters longer",
            ) from error
        raise


def _number(error: Exception) -> int:
    """The system's error number; libraries in Rust only mention it in the message."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else 0


@contextmanager
def locked(path: Path, what: str = "", *, patience: float = -1) -> Iterator[None]:
    """Hold a lock file for the block; the system releases it when its holder dies.

    Args:
        path: the file, which is created, and removed afterwards.
        what: what a process that has to wait reports to be waiting for; silent if empty.
        patience: maximum seconds to wait; negative for no limit.

    Raises:
        TimeoutError: if another process held it all that time.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if what:
            print(printable(f"another process works on {what}; waiting for it"), file=sys.stderr, flush=True)
        lock.acquire(timeout=patience)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: waiting processes then open a new one
        lock.release()


def flush(folder: Path) -> None:
    """Flush every file below a folder, and the folder entries, to disk."""
    for path in (*sorted(folder.rglob("*")), folder):
        flush_one(path)


def flush_one(path: Path) -> None:
    """Flush one file, or the entries of one folder, to disk."""
    if path.is_dir() and os.name != "posix":
        return  # other systems cannot open a folder
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(paths: Iterator[Path]) -> None:
    """Remove partially written paths of processes that have ended; this process must not be writing any."""
    for path in list(paths):
        left = _LEFT.match(path.name)
        # in a container process ids repeat: one with our id was left by a killed process
        if left and (int(left["process"]) == os.getpid() or not psutil.pid_exists(int(left["process"]))):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def file_name(name: str) -> str:
    """A name from outside (of a row, a benchmark, a domain, a word) as one part of a path: never a folder, a parent, a
    hidden file or too long, and different for different names. Ordinary names stay as they are."""
    escaped = _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()) or "%", name)
    if len(escaped.encode()) <= _LONGEST:
        return escaped
    start = escaped.encode()[: _LONGEST - 33].decode(errors="ignore")
    return f"{start}%{digest(name.encode())}"


def file_names(wanted: Mapping[Key, Sequence[str]]) -> dict[Key, str]:
    """A file name for each key, without suffix: its first wanted name with ``a/b`` as ``a__b``.

    No two are equal, on file systems that ignore case neither. Keys that would share a name get the last one that they
    want. Where that is not enough, or a name is too long for a usual file system, it is cut and ends in a digest.
    """

    def shared() -> set[Key]:
        count = Counter(path_key(name).casefold() for name in names.values())
        return {key for key, name in names.items() if count[path_key(name).casefold()] > 1}

    names: dict[Key, str] = {key: choices[0].replace("/", "__") for key, choices in wanted.items()}
    names |= {key: wanted[key][-1].replace("/", "__") for key in shared()}
    for key in shared() | {key for key, name in names.items() if len(name.encode()) > _LONGEST}:
        start = names[key].encode()[: _LONGEST - 13].decode(errors="ignore")
        names[key] = f"{start}-{digest(repr(key).encode())[:12]}"
    return names


def digest(content: bytes) -> str:
    """blake2b of some bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """blake2b of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def folder_digest(folder: Path) -> str:
    """One digest over the names and bytes of all files in a folder, hidden ones aside; a process reads them again when
    one has changed."""
    stamped = tuple(stamp for stamp in stamps(folder) if "/." not in f"/{stamp[0].relative_to(folder)}")
    if stamped not in _FOLDERS:
        parts = [f"{path.relative_to(folder)}:{file_digest(path)}" for path, *_ in stamped]
        _FOLDERS[stamped] = digest("\n".join(parts).encode())
    return _FOLDERS[stamped]


def stamps(*places: Path) -> tuple[tuple[Path, int, int], ...]:
    """Path, time stamp in ns and size of files, and of all files in folders, in order: who has read them reads them
    again when these have changed."""
    files = [path for place in places for path in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    states = [(path, path.stat()) for path in files if path.is_file()]
    return tuple((path, state.st_mtime_ns, state.st_size) for path, state in states)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically: the file is the old or the new one, never partial. Undecodable bytes of names are
    escaped, in JSON as its own escapes."""
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file or folder to. After the block it replaces ``path``, which may be an empty
    folder if it is one itself; it is removed if the block fails."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield fresh
        if fresh.is_dir() and path.is_dir():
            path.rmdir()
        fresh.replace(path)
    finally:
        shutil.rmtree(fresh) if fresh.is_dir() else fresh.unlink(missing_ok=True)
