"""What keeps files whole: locks, flushing, and errors of the disk that say what to do."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from tadp_da.errors import EnvironmentSetupError, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR}
_LEFT = re.compile(r"^\..+\.(?P<process>\d+)$")  # half-written, named after the process


@contextmanager
def storing(where: object) -> Iterator[None]:
    """Tell a full disk and a folder that may not be written to as what they are.

    Raises:
        EnvironmentSetupError: naming the path, and the mend.
        UsageError: when a file is where a folder should be.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        place = getattr(error, "filename", None) or where
        if number in _FULL:
            raise EnvironmentSetupError(
                f"no room to write: {os.strerror(number)}",
                where=place,
                fix="free some space or choose a folder on another disk; the same command goes on from what is saved",
            ) from error
        if number in _CLOSED:
            raise EnvironmentSetupError(
                f"no right to write or read: {os.strerror(number)}",
                where=place,
                fix="choose a folder that you may write to, or correct its rights",
            ) from error
        if number in _IN_THE_WAY:
            raise UsageError(
                "a file stands where a folder is needed",
                where=place,
                fix="choose another --out, or move that file",
            ) from error
        raise


def _number(error: Exception) -> int:
    """The system's error number; libraries in Rust give it in words only."""
    if isinstance(error, OSError):
        return error.errno or 0
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else 0


@contextmanager
def locked(path: Path, what: str = "", *, patience: float = -1) -> Iterator[None]:
    """Hold a lock file for the block; it is free again when its holder dies, however it dies.

    Args:
        path: the file; it is made, and gone afterwards.
        what: what a process that has to wait says, once, that it waits for; nothing is said without.
        patience: seconds that it waits at most; for ever below 0.

    Raises:
        TimeoutError: when somebody else held it all that time.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if what:
            print(f"another process works on {what}; waiting for it", file=sys.stderr, flush=True)
        lock.acquire(timeout=patience)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: who waits for it looks for a new one
        lock.release()


def flush(folder: Path) -> None:
    """Bring every file below a folder, and the names in it, to the disk."""
    for path in (*sorted(folder.rglob("*")), folder):
        flush_one(path)


def flush_one(path: Path) -> None:
    """Bring one file, or the names in one folder, to the disk."""
    if path.is_dir() and os.name != "posix":
        return  # other systems cannot open a folder
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(paths: Iterator[Path]) -> None:
    """Remove what processes that are no more left half-written among these paths; this process must be writing none."""
    for path in list(paths):
        left = _LEFT.match(path.name)
        # in a container numbers repeat: what bears ours was left by one that was killed
        if left and (int(left["process"]) == os.getpid() or not psutil.pid_exists(int(left["process"]))):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def digest(content: bytes) -> str:
    """blake2b of some bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """blake2b of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def folder_digest(*folders: Path) -> str:
    """One digest over the names and bytes of all files in these folders, hidden ones aside."""
    files = [(p.relative_to(folder), p) for folder in folders for p in sorted(folder.rglob("[!.]*"))]
    parts = [f"{name}:{file_digest(p)}" for name, p in files if p.is_file() and "/." not in f"/{name}"]
    return digest("\n".join(parts).encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is the old one or the new one, never half."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 so that the file is the old one or the new one, never half."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
