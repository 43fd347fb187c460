"""Run: where the artifacts of a run are kept, its seed and its device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tadp_da.distributed.processes import broadcast, device_of, has_bf16, is_main
from tadp_da.errors import UsageError
from tadp_da.settings import Effect
from tadp_da.storage.artifacts import UNFINISHED, T, copy_files, find_equal, get_or_create, input_digest
from tadp_da.terminal import progress
from tadp_da.tracking import Tracker, check_tracker

if TYPE_CHECKING:
    import torch

Advance = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        folder: where artifacts go; runs that share a folder share artifacts made from equal inputs.
        seed: every random number is a function of it.
        device: ``"auto"`` takes CUDA, then Apple's MPS, then the CPU; otherwise a torch device name. Of several
            processes on GPUs each takes its own.
        precision: mixed precision of forward and backward passes. ``"auto"`` becomes bf16 on a GPU that has it, and
            ``"no"`` elsewhere.
        quiet: no progress bars.
        tracker: where curves and images go, beside ``metrics.jsonl``.
        skip_bad: go on without pictures that cannot be used, and list them in ``skipped-<domain>.json``.
        allow_overlap: score although test pictures are among those that are learned from.
    """

    folder: Annotated[Path, Effect.PLACE]
    seed: int = 0
    device: Annotated[str, Effect.SPEED] = "auto"
    precision: Literal["no", "bf16", "fp16"] = "no"
    quiet: Annotated[bool, Effect.WORDING] = False
    tracker: Annotated[Tracker, Effect.WORDING] = "none"
    skip_bad: Annotated[bool, Effect.WORDING] = False
    allow_overlap: Annotated[bool, Effect.WORDING] = False

    def __post_init__(self) -> None:
        asked: str = self.precision
        if asked == "auto":
            object.__setattr__(self, "precision", "bf16" if has_bf16(self.torch_device) else "no")
        elif asked not in ("no", "bf16", "fp16"):
            raise UsageError(f"precision {asked!r} is unknown", fix="choose auto, no, bf16 or fp16")
        check_tracker(self.tracker)

    @property
    def torch_device(self) -> torch.device:
        """The device that this run computes on."""
        return device_of(self.device)

    def with_seed(self, seed: int) -> Run:
        """The same run with another seed."""
        return replace(self, seed=seed)

    def inside(self, folder: Path) -> Run:
        """The same run with another folder: a stage writes its logs beside its artifact."""
        return replace(self, folder=folder)

    @property
    def unfinished(self) -> Path:
        """Where a stage keeps what it needs to go on after an interruption; may go once its result is saved."""
        return self.folder / UNFINISHED

    def progress(self, total: int, description: str) -> AbstractContextManager[Advance]:
        """A progress bar of the main process, see :func:`tadp_da.terminal.progress`."""
        return progress(total, description, quiet=self.quiet or not is_main())

    def artifact_path(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """Folder of the artifact of this kind made from these inputs, whether or not it stands."""
        return self.folder / f"{kind}-{input_digest(inputs)}"

    def get_or_create(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], object],
        load: Callable[[Path], T],
        *,
        folder: Path | None = None,
        may_change: Collection[str] = (),
    ) -> T:
        """The artifact of this kind for these inputs: loaded when it is complete, made otherwise.

        An equal artifact beside it, whatever its name, is used instead of being made again. ``folder`` is where it is
        to be, instead of a name that follows from the inputs; for the rest and for errors see
        :func:`tadp_da.storage.artifacts.get_or_create`.
        """
        place = folder or self.artifact_path(kind, inputs)
        equal = broadcast(find_equal, place, kind, inputs)
        if equal and folder is None:
            place = equal
        elif equal:
            make = partial(copy_files, equal)
        return get_or_create(
            place, inputs, make, load, kind=kind, replace=folder is None and not equal, may_change=may_change
        )
