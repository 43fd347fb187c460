"""Run: where a run's artefacts lie, its seed and its device. An artefact is made once per set of inputs,
whole or absent."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tadp_da._store import flush, flush_one, locked, storing, sweep
from tadp_da.errors import ArtefactError, UsageError
from tadp_da.processes import decided, device_of, is_main, rank, wait

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
UNFINISHED = "unfinished"
"""Folder in an artefact in the making for what is needed only to go on; no part of the artefact."""
IDLE = frozenset({"workers", "checkpoint_every"})
"""Settings that change nothing in a result: they neither name an artefact nor forbid to go on with it."""
_INPUTS = f"{UNFINISHED}/inputs.json"
Advance = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        folder: where artefacts go; runs that share a folder share artefacts made from equal inputs.
        seed: every random number is a function of it.
        device: ``"auto"`` takes CUDA, then Apple's MPS, then the CPU; otherwise a torch device name. Of several
            processes on GPUs each takes its own.
        precision: mixed precision of training.
        quiet: no progress bars.
        skip_bad: go on without pictures that cannot be used, and list them in ``skipped-<domain>.json``.
        allow_overlap: score although test pictures are among those that are learned from.
    """

    folder: Path
    seed: int = 0
    device: str = "auto"
    precision: Literal["no", "bf16", "fp16"] = "no"
    quiet: bool = False
    skip_bad: bool = False
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("no", "bf16", "fp16"):
            raise UsageError(f"precision {self.precision!r} is unknown", fix="choose no, bf16 or fp16")

    @property
    def torch_device(self) -> torch.device:
        """The device that this run computes on."""
        return device_of(self.device)

    def with_seed(self, seed: int) -> Run:
        """The same run with another seed."""
        return replace(self, seed=seed)

    def inside(self, folder: Path) -> Run:
        """The same run with another folder: a stage writes its logs beside its artefact."""
        return replace(self, folder=folder)

    @property
    def unfinished(self) -> Path:
        """Where a stage keeps what it needs to go on after an interruption; may go once its result is saved."""
        return self.folder / UNFINISHED

    @contextmanager
    def progress(self, total: int, description: str) -> Iterator[Advance]:
        """A progress bar on a terminal, one line at the end elsewhere. Call the yielded function once per
        unit with a short note."""
        import sys

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, quiet=self.quiet or not is_main())
        if not sys.stderr.isatty():
            last = ""

            def note_only(note: str) -> None:
                nonlocal last
                last = note

            yield note_only
            console.print(f"{description}: {total} done{', ' + last if last else ''}", highlight=False)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=total, note="")
            yield lambda note: bar.update(task, advance=1, note=note)

    def place(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """Folder of the artefact of this kind made from these inputs, whether or not it stands."""
        return self.folder / f"{kind}-{_digest(inputs)}"

    def once(
        self, kind: str, inputs: Mapping[str, Any], make: Callable[[Path], object], load: Callable[[Path], T]
    ) -> T:
        """The artefact of this kind for these inputs: loaded when it stands whole, made otherwise.

        See :func:`made`.

        Args:
            kind: what it is, e.g. ``"concept"``.
            inputs: everything the artefact depends on, as JSON values.
            make: writes the artefact into the folder it is given.
            load: reads it back; what it returns is what the caller gets, made or found.

        Raises:
            ArtefactError: when a file of the artefact is not what its manifest says.
            EnvironmentFault: when the disk is full or the folder may not be written to.
        """
        return made(self.place(kind, inputs), inputs, make, load, replace=True)


def made(
    place: Path,
    inputs: Mapping[str, Any],
    make: Callable[[Path], object],
    load: Callable[[Path], T],
    *,
    replace: bool = False,
    may_change: Collection[str] = (),
) -> T:
    """The artefact in the folder ``place``: loaded when it stands whole, made otherwise, by one process at a time.

    ``make`` works in a draft beside the place that outlives interruption and error: it finds there what an earlier call
    left, and goes on from it or overwrites it. What it keeps in ``unfinished/`` is no part of the artefact. At the end
    the draft is completed by its manifest, flushed and renamed. A folder without a manifest does not count.

    Several processes (:mod:`tadp_da.processes`) call ``make`` together; what the main one writes is the artefact.

    Args:
        place: the artefact's folder.
        inputs: everything the artefact depends on, as JSON values.
        make: writes the artefact into the folder it is given.
        load: reads it back.
        replace: a folder without a manifest at the place may be removed.
        may_change: dotted names of inputs that may differ from those that a draft was begun with.

    Raises:
        UsageError: when something else stands there, or was begun there with other inputs.
        ArtefactError: when a file of the artefact is not what its manifest says.
        EnvironmentFault: when the disk is full or the folder may not be written to.
    """
    place = decided(place.absolute)  # one that is made while another is made lies beside the main process's

    def missing() -> bool:
        _refuse_other(place, inputs, may_change)
        if not replace:
            _refuse_foreign(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        return not is_made(place)

    def whole() -> None:
        # a process that died just after its artefact stood could not tidy up
        shutil.rmtree(place / UNFINISHED, ignore_errors=True)
        verify(place)

    with storing(place):
        if decided(missing):
            lock = place.with_name(f".{place.name}.lock")
            with locked(lock, place.name) if is_main() else nullcontext():
                if decided(missing):
                    _make(place, inputs, make, replace=replace)
    decided(whole)
    return load(place)


def is_made(place: Path) -> bool:
    """Whether an artefact stands whole in this folder."""
    return (place / MANIFEST).exists()


def _draft(place: Path) -> Path:
    return place.with_name(f".{place.name}.draft")


def _make(place: Path, inputs: Mapping[str, Any], make: Callable[[Path], object], *, replace: bool) -> None:
    draft = _draft(place)
    if decided(_begin, place, inputs):
        try:
            with _desk(place) as folder:
                make(folder)
            wait()  # else the draft would be completed while another process still reads what is unfinished
        finally:
            if is_main() and sorted(draft.rglob("*")) == [draft / UNFINISHED, draft / _INPUTS]:
                shutil.rmtree(draft)  # there is nothing to go on from
    decided(_finish, place, inputs, replace)


def _begin(place: Path, inputs: Mapping[str, Any]) -> bool:
    """Prepare the draft; False if all that is left to do is to rename it."""
    draft = _draft(place)
    sweep(place.parent.glob(f".{place.name}.*"))
    if (draft / MANIFEST).exists():
        return False
    (draft / UNFINISHED).mkdir(parents=True, exist_ok=True)
    write_json(draft / _INPUTS, dict(inputs))
    return True


def _finish(place: Path, inputs: Mapping[str, Any], replace: bool) -> None:
    draft = _draft(place)
    if not (draft / MANIFEST).exists():
        _complete(draft, inputs)
    if place.exists():
        shutil.rmtree(place) if replace else place.rmdir()
    draft.replace(place)
    flush_one(place.parent)


@contextmanager
def _desk(place: Path) -> Iterator[Path]:
    """Where this process makes an artefact: the main one in the draft. Each other has a folder that is thrown away at
    the end, with the main one's unfinished work in it: it reads there what to go on from, and no stage need know."""
    draft = _draft(place)
    if is_main():
        yield draft
        return
    # by rank too: on two machines, and in a container every time, numbers of processes are the same
    own = place.with_name(f".{place.name}.{rank()}.{os.getpid()}")
    shutil.rmtree(own, ignore_errors=True)  # of one that was killed
    own.mkdir()
    (own / UNFINISHED).symlink_to(draft / UNFINISHED, target_is_directory=True)
    try:
        yield own
    finally:
        shutil.rmtree(own)


def _refuse_other(place: Path, inputs: Mapping[str, Any], may_change: Collection[str]) -> None:
    """Refuse to load, or to go on with, what was made of other inputs."""
    whole, begun = place / MANIFEST, _draft(place) / _INPUTS
    # at the first once more, for another process may have renamed its draft between two looks
    for known in (whole, begun, whole):
        with suppress(FileNotFoundError):
            if known.exists():
                before = _read(known)["inputs"] if known is whole else _read(known)
                break
    else:
        return
    old, new = (_flat(_matters(json.loads(json.dumps(found)))) for found in (before, inputs))
    differing = [k for k in sorted(old | new) if old.get(k) != new.get(k)]
    changed = [k for k in differing if known is whole or k not in may_change]
    if differing and not changed:
        _log.warning("going on with other %s; what is done stays as it was done", ", ".join(differing))
    if changed:
        told = "; ".join(f"{k}: {old.get(k)!r} there, {new.get(k)!r} now" for k in changed)
        raise UsageError(
            f"what is there was {'made' if known is whole else 'begun'} with other settings ({told})",
            where=place if known is whole else _draft(place),
            fix="give the settings it was made with, choose another --out, or delete that folder to start over",
        )


def _refuse_foreign(place: Path) -> None:
    taken = place.exists() and (not place.is_dir() or any(place.iterdir()))
    if taken and not is_made(place):  # in this order, for another process may complete it meanwhile
        raise UsageError(
            "the place is taken by something that is no finished run",
            where=place,
            fix="choose a new folder with --out",
        )


def _matters(inputs: Any) -> Any:
    """Inputs without those that change nothing."""
    if not isinstance(inputs, dict):
        return inputs
    return {key: _matters(value) for key, value in inputs.items() if key not in IDLE}


def _flat(inputs: Any, prefix: str = "") -> dict[str, Any]:
    """Nested inputs by dotted name."""
    if not isinstance(inputs, dict):
        return {prefix: inputs}
    pairs = ((f"{prefix}.{key}" if prefix else key, value) for key, value in inputs.items())
    return {name: value for key, inner in pairs for name, value in _flat(inner, key).items()}


def verify(place: Path) -> None:
    """Compare an artefact's files with its manifest.

    Raises:
        ArtefactError: naming the first file that is missing or changed.
    """
    for name, known in _read(place / MANIFEST)["files"].items():
        path = place / name
        if not path.exists() or file_digest(path) != known:
            raise ArtefactError(
                f"{name} is not what the manifest says",
                where=place,
                fix="delete the folder; it will be made again",
            )


def file_digest(path: Path) -> str:
    """blake2b of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


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


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except ValueError as error:
        raise ArtefactError(
            f"cannot read {path.name}: {error}", where=path, fix="delete the folder; it will be made again"
        ) from error


def _digest(inputs: Mapping[str, Any]) -> str:
    text = json.dumps(_matters(inputs), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _complete(draft: Path, inputs: Mapping[str, Any]) -> None:
    """Flush a draft and write its manifest, last."""
    sweep(draft.rglob(".*"))
    flush(draft)
    files = {
        path.relative_to(draft).as_posix(): file_digest(path)
        for path in sorted(draft.rglob("*"))
        if path.is_file() and draft / UNFINISHED not in path.parents
    }
    facts = {"inputs": dict(inputs), "files": files, "made": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(draft / MANIFEST, facts | {"versions": versions()})
    flush_one(draft)


@cache
def versions() -> dict[str, str]:
    """What made an artefact: our commit where there is one, and the libraries' versions."""
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
