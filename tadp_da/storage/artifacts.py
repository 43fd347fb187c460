"""Artifacts: folders that are complete or absent, made once per set of inputs, by one process at a time."""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tadp_da.distributed.processes import broadcast, is_main, rank, wait
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.storage.files import file_digest, flush, flush_one, locked, storing, sweep, write_json

T = TypeVar("T")
_log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
UNFINISHED = "unfinished"
"""Folder in an artifact in the making for what is needed only to go on; no part of the artifact."""
_INPUTS = f"{UNFINISHED}/inputs.json"


def get_or_create(
    place: Path,
    inputs: Mapping[str, Any],
    make: Callable[[Path], object],
    load: Callable[[Path], T],
    *,
    kind: str = "",
    replace: bool = False,
    may_change: Collection[str] = (),
) -> T:
    """The artifact in the folder ``place``: loaded when it is complete, made otherwise, by one process at a time.

    ``make`` works in a scratch folder beside ``place`` that survives interruption and error: it finds there what an
    earlier call left, and continues from it or overwrites it. What it keeps in ``unfinished/`` is not part of the
    artifact. At the end the manifest is written, everything is flushed, and the scratch folder is renamed. A folder
    without a manifest does not count.

    Several processes (:mod:`tadp_da.distributed.processes`) call ``make`` together; what the main one writes
    is the artifact.

    Args:
        place: the artifact's folder.
        inputs: everything the artifact depends on, as JSON values.
        make: writes the artifact into the folder it is given.
        load: reads it back.
        kind: what it is, e.g. ``"concept"``, for :func:`find_equal`.
        replace: a folder without a manifest at the place may be removed.
        may_change: dotted names of inputs that may differ from those that a scratch folder was started with.

    Raises:
        UsageError: when something else is there, or was started there with other inputs.
        ArtifactError: when a file of the artifact is not what its manifest says.
        EnvironmentSetupError: when the disk is full or the folder may not be written to.
    """
    # the main process decides where, for nested artifacts too; a link stands for the folder that it leads to
    place = broadcast(place.resolve if place.is_symlink() else place.absolute)

    def missing() -> bool:
        _refuse_other(place, inputs, may_change)
        if not replace:
            _refuse_foreign(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        return not is_complete(place)

    def whole() -> None:
        # a process that died just after it had completed its artifact could not clean up
        shutil.rmtree(place / UNFINISHED, ignore_errors=True)
        verify(place)

    with storing(place):
        if broadcast(missing):
            lock = place.with_name(f".{place.name}.lock")
            with locked(lock, place.name) if is_main() else nullcontext():
                if broadcast(missing):
                    _make(place, kind, inputs, make, replace=replace)
    broadcast(whole)
    return load(place)


def find_equal(place: Path, kind: str, inputs: Mapping[str, Any]) -> Path | None:
    """A complete artifact of the same kind and inputs beside ``place``, where there is none at ``place`` yet: a model
    made by a single command is found by a table in the same folder, and the other way round."""
    if is_complete(place):
        return None
    key = input_digest(inputs)
    for manifest in sorted(place.parent.glob(f"*/{MANIFEST}")):
        with suppress(ArtifactError, OSError):
            facts = _read(manifest)
            if isinstance(facts, dict) and (facts.get("kind"), facts.get("key")) == (kind, key):
                return manifest.parent
    return None


def copy_files(artifact: Path, folder: Path) -> None:
    """Put the files of an artifact into a folder: weights as hard links where the file system has them.

    Raises:
        ArtifactError: when a file is not what the artifact's manifest says; a copy would pass for whole.
    """
    verify(artifact)
    for name in _fact(artifact, "files"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if target.suffix == ".safetensors":
            with suppress(OSError):
                os.link(artifact / name, target)
                continue
        shutil.copy2(artifact / name, target)


def inputs_of(artifact: Path) -> dict[str, Any] | None:
    """What an artifact was made from; None for a folder that has no manifest."""
    return dict(_fact(artifact, "inputs")) if is_complete(artifact) else None


def is_complete(place: Path) -> bool:
    """Whether a complete artifact is in this folder."""
    return (place / MANIFEST).exists()


def _scratch(place: Path) -> Path:
    return place.with_name(f".{place.name}.draft")


def _make(
    place: Path, kind: str, inputs: Mapping[str, Any], make: Callable[[Path], object], *, replace: bool
) -> None:
    scratch, begun = _scratch(place), time.monotonic()
    if broadcast(_begin, place, inputs):
        try:
            with _workspace(place) as folder:
                make(folder)
            wait()  # else it would be completed while another process still reads what is unfinished
        finally:
            if is_main() and sorted(scratch.rglob("*")) == [scratch / UNFINISHED, scratch / _INPUTS]:
                shutil.rmtree(scratch)  # there is nothing to continue from
    broadcast(_finish, place, kind, inputs, replace, time.monotonic() - begun)


def _begin(place: Path, inputs: Mapping[str, Any]) -> bool:
    """Prepare the scratch folder; False if all that is left to do is to rename it."""
    scratch = _scratch(place)
    sweep(place.parent.glob(f".{glob.escape(place.name)}.*"))
    if (scratch / MANIFEST).exists():
        return False
    (scratch / UNFINISHED).mkdir(parents=True, exist_ok=True)
    write_json(scratch / _INPUTS, dict(inputs))
    return True


def _finish(place: Path, kind: str, inputs: Mapping[str, Any], replace: bool, seconds: float) -> None:
    scratch = _scratch(place)
    if not (scratch / MANIFEST).exists():
        _complete(scratch, kind, inputs, seconds)
    if place.exists():
        shutil.rmtree(place) if replace else place.rmdir()
    scratch.replace(place)
    flush_one(place.parent)


@contextmanager
def _workspace(place: Path) -> Iterator[Path]:
    """Where this process makes an artifact: the main one in the scratch folder. Every other has a folder that is
    deleted at the end, with a link to the main one's unfinished work to continue from; no stage needs to know."""
    scratch = _scratch(place)
    if is_main():
        yield scratch
        return
    # by rank too: on two machines, and in a container every time, numbers of processes are the same
    own = place.with_name(f".{place.name}.{rank()}.{os.getpid()}")
    shutil.rmtree(own, ignore_errors=True)  # of one that was killed
    own.mkdir()
    (own / UNFINISHED).symlink_to(scratch / UNFINISHED, target_is_directory=True)
    try:
        yield own
    finally:
        shutil.rmtree(own)


def _refuse_other(place: Path, inputs: Mapping[str, Any], may_change: Collection[str]) -> None:
    """Refuse to load, or to continue, what was created from other inputs."""
    whole, begun = place / MANIFEST, _scratch(place) / _INPUTS
    # at the first once more, for another process may have renamed its scratch folder in between
    for known in (whole, begun, whole):
        with suppress(FileNotFoundError):
            if known.exists():
                before = _fact(place, "inputs") if known is whole else _read(known)
                break
    else:
        return
    old, new = (_flat(json.loads(json.dumps(found))) for found in (before, inputs))
    differing = [k for k in sorted(old | new) if old.get(k) != new.get(k)]
    changed = [k for k in differing if known is whole or k not in may_change]
    if differing and not changed:
        _log.warning("continuing with other %s; what is done stays as it is", ", ".join(differing))
    if changed:
        told = [f"{k}: {old.get(k)!r} there, {new.get(k)!r} now" for k in changed[:3]]
        told += [f"and {len(changed) - 3} more"] if len(changed) > 3 else []
        found = "; ".join(told)
        state = "existing artifact was created" if known is whole else "unfinished artifact was started"
        raise UsageError(
            f"the {state} with different settings ({found})",
            where=place if known is whole else _scratch(place),
            fix="use the settings it was created with, choose another --out, or delete that folder to start over",
        )


def _refuse_foreign(place: Path) -> None:
    taken = place.exists() and (not place.is_dir() or any(place.iterdir()))
    if taken and not is_complete(place):  # in this order, for another process may complete it meanwhile
        raise UsageError(
            "the output folder exists and is not a finished run",
            where=place,
            fix="choose a new folder with --out",
        )


def _flat(inputs: Any, prefix: str = "") -> dict[str, Any]:
    """Nested inputs by dotted name; parts of lists by their number."""
    if isinstance(inputs, list) and inputs:
        inputs = dict(enumerate(inputs))
    if not isinstance(inputs, dict):
        return {prefix: inputs}
    pairs = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in inputs.items())
    return {name: value for key, inner in pairs for name, value in _flat(inner, key).items()}


def verify(place: Path) -> None:
    """Compare an artifact's files with its manifest.

    Raises:
        ArtifactError: naming the first file that is missing or changed.
    """
    for name, known in _fact(place, "files").items():
        path = place / name
        if not path.exists() or file_digest(path) != known:
            raise ArtifactError(
                f"{name} is not what the manifest says",
                where=place,
                fix="delete the folder; it will be made again",
            )


def _fact(place: Path, name: str) -> dict[str, Any]:
    """A fact about a complete artifact, from its manifest. Web pages and data sets have files of this name, too."""
    found = _read(place / MANIFEST)
    if not isinstance(found, dict) or not isinstance(found.get(name), dict):
        raise UsageError(
            f"the {MANIFEST} in this folder is not that of a finished run",
            where=place,
            fix="choose a new folder with --out",
        )
    return dict(found[name])


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(
            f"cannot read {path.name}: {error}", where=path, fix="delete the folder; it will be made again"
        ) from error


def input_digest(inputs: Mapping[str, Any]) -> str:
    """Key of an artifact that is made from these inputs."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _complete(scratch: Path, kind: str, inputs: Mapping[str, Any], seconds: float) -> None:
    """Flush a scratch folder and write its manifest, last; with the seconds since this process began it."""
    sweep(scratch.rglob(".*"))
    flush(scratch)
    files = {
        path.relative_to(scratch).as_posix(): file_digest(path)
        for path in sorted(scratch.rglob("*"))
        if path.is_file() and scratch / UNFINISHED not in path.parents
    }
    facts = {
        "kind": kind,
        "key": input_digest(inputs),
        "inputs": dict(inputs),
        "files": files,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }
    write_json(scratch / MANIFEST, facts | {"versions": versions()})
    flush_one(scratch)


@cache
def versions() -> dict[str, str]:
    """What made an artifact: our commit where there is one, and the libraries' versions."""
    found = {}
    for name in ("tadp-da", "torch", "diffusers", "transformers", "peft", "accelerate"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    here = Path(__file__).resolve().parent
    try:
        command = ["git", "describe", "--always", "--dirty"]
        git = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10, check=True)
        found["commit"] = git.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found["commit"] = "not a git checkout"
    return found
