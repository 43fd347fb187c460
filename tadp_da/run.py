"""Run: where a run's artefacts lie, its seed and its device. An artefact is made once per set of inputs,
whole or absent."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tadp_da.errors import ArtefactError, UsageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
MANIFEST = "manifest.json"
Advance = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        folder: where artefacts go; runs that share a folder share artefacts made from equal inputs.
        seed: every random number is a function of it.
        device: ``"auto"`` takes CUDA, then Apple's MPS, then the CPU; otherwise a torch device name.
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
        import torch

        if self.device != "auto":
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    def with_seed(self, seed: int) -> Run:
        """The same run with another seed."""
        return replace(self, seed=seed)

    def inside(self, folder: Path) -> Run:
        """The same run with another folder: a stage writes its logs beside its artefact."""
        return replace(self, folder=folder)

    @contextmanager
    def progress(self, total: int, description: str) -> Iterator[Advance]:
        """A progress bar on a terminal, one line at the end elsewhere. Call the yielded function once per
        unit with a short note."""
        import sys

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, quiet=self.quiet)
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

        ``make`` fills an empty folder; the folder is flushed, renamed into place and completed by its
        manifest, written last. A folder without a manifest does not count and is made anew.

        Args:
            kind: what it is, e.g. ``"concept"``.
            inputs: everything the artefact depends on, as JSON values.
            make: writes the artefact into the folder it is given.
            load: reads it back; what it returns is what the caller gets, made or found.

        Raises:
            ArtefactError: when a file of the artefact is not what its manifest says.
        """
        place = self.place(kind, inputs)
        if not (place / MANIFEST).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = self.folder / f".{place.name}.{os.getpid()}"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            try:
                make(fresh)
                _complete(fresh, inputs)
                # another process may have been first; ours is then the same and goes
                if not (place / MANIFEST).exists():
                    shutil.rmtree(place, ignore_errors=True)  # a folder without its manifest does not exist
                    fresh.replace(place)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        verify(place)
        return load(place)


def verify(place: Path) -> None:
    """Compare an artefact's files with its manifest.

    Raises:
        ArtefactError: naming the first file that is missing or changed.
    """
    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    for name, known in manifest["files"].items():
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
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _digest(inputs: Mapping[str, Any]) -> str:
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _complete(folder: Path, inputs: Mapping[str, Any]) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = file_digest(path)
    made = {"inputs": dict(inputs), "files": files, "made": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(folder / MANIFEST, made | {"versions": versions()})


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
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        found["commit"] = git.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found["commit"] = "not a git checkout"
    return found
