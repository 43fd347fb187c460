"""Checkpoints of a training: parameters, their average, state of optimizer and objectives, in one safetensors file; a
checkpoint is complete when its manifest is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tadp_da.distributed.processes import broadcast, is_main
from tadp_da.distributed.sharding import like, whole
from tadp_da.errors import ArtifactError
from tadp_da.storage.artifacts import MANIFEST, verify
from tadp_da.storage.files import file_digest, flush, flush_one, storing, write_json
from tadp_da.training.average import MovingAverage
from tadp_da.training.objective import Objective

STATE = "state.safetensors"


class Checkpoints:
    """Keeps the newest complete checkpoint of a training in a folder.

    Args:
        folder: has one sub-folder per step; None saves nothing.
        model: names the parameters.
        trained: the parameters that change.
        optimizer, objectives: their state is saved.
        average: over ``trained``, if there is one.
        scaler: of gradients, if there is one.
    """

    def __init__(
        self,
        folder: Path | None,
        model: nn.Module,
        trained: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None = None,
        scaler: Any = None,
        objectives: Sequence[Objective] = (),
    ) -> None:
        self.folder, self.optimizer, self.average, self.scaler = folder, optimizer, average, scaler
        self.objectives = objectives
        names = {id(p): name for name, p in model.named_parameters()}
        self.parameters = {names[id(p)]: p for p in trained}

    def _complete(self) -> list[Path]:
        return sorted(p.parent for p in self.folder.glob(f"step-*/{MANIFEST}")) if self.folder else []

    def _weights(self) -> dict[str, Mapping[str, Tensor]]:
        if self.average is None:
            return {"parameters": self.parameters}
        average = dict(zip(self.parameters, self.average.values, strict=True))
        return {"parameters": self.parameters, "average": average}

    def save(self, step: int) -> None:
        """Write the checkpoint of ``step``, then delete older ones. Every process must call this, to gather sharded
        tensors; the main process writes.

        Raises:
            EnvironmentSetupError: when the disk is full; the older checkpoint is kept.
        """
        if self.folder is None:
            return
        state = {"optimizer": self.optimizer.state_dict()["state"]}
        objectives = dict(enumerate(objective.state_dict() for objective in self.objectives))
        flat = dict(_flatten({**self._weights(), **state, "objectives": objectives}))
        tensors = _on_cpu({name: value for name, value in flat.items() if isinstance(value, Tensor)})
        plain = {name: value for name, value in flat.items() if not isinstance(value, Tensor)}
        broadcast(self._store, self.folder, step, tensors, plain)

    def _store(self, folder: Path, step: int, tensors: dict[str, Tensor], plain: Mapping[str, Any]) -> None:
        place, fresh = folder / f"step-{step:08d}", folder / f".step-{step:08d}"
        older = self._complete()
        if place in older:
            return
        try:
            with storing(folder):
                shutil.rmtree(place, ignore_errors=True)  # without its manifest it is not a checkpoint
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir(parents=True)
                self._write(fresh, step, tensors, plain)
                fresh.replace(place)
                flush_one(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for old in older:
            (old / MANIFEST).unlink()  # first: one that is half deleted does not count
            shutil.rmtree(old, ignore_errors=True)

    def _write(self, fresh: Path, step: int, tensors: dict[str, Tensor], plain: Mapping[str, Any]) -> None:
        save_file(tensors, fresh / STATE)
        flush(fresh)
        averaged = self.average.steps if self.average is not None else 0
        facts = {
            "step": step,
            "averaged": averaged,
            "files": {STATE: file_digest(fresh / STATE)},
            "plain": plain,
        }
        write_json(fresh / MANIFEST, facts | {"scaler": self.scaler.state_dict() if self.scaler else None})
        flush_one(fresh)

    def restore(self) -> int:
        """Load the newest complete checkpoint; returns its step, or 0 without one.

        Raises:
            ArtifactError: when it is damaged, or was written with other parameters or objectives.
        """
        found = self._complete()
        if self.folder is None or not found:
            return 0
        for partial in {*self.folder.glob("*step-*")} - {*found} if is_main() else ():
            shutil.rmtree(partial)
        place = found[-1]
        try:
            verify(place)
        except ArtifactError as error:
            then = f"goes on from {found[-2].name}" if found[1:] else "starts anew"
            fix = f"delete the folder; the training then {then}"
            raise ArtifactError(error.what, where=place, fix=fix) from error
        if not (place / STATE).exists():
            raise _other(f"no {STATE}; another version wrote it", place)
        facts = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        # cloned: tensors read from a file are not aligned in memory, and kernels may round differently
        saved = {name: value.clone() for name, value in load_file(place / STATE).items()} | facts["plain"]
        self._load(place, saved)
        if self.average is not None:
            self.average.steps = facts.get("averaged", facts["step"])
        if self.scaler is not None and facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        return int(facts["step"])

    def _load(self, place: Path, saved: Mapping[str, Any]) -> None:
        for kind, tensors in self._weights().items():
            values = _below(saved, kind)
            if values.keys() != tensors.keys():
                raise _other(f"{len(values)} tensors of {kind}, this run has {len(tensors)}", place)
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.copy_(like(values[name], tensor))
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        states = {
            index: {key: like(value, parameters[index]) for key, value in state.items()}
            for index, state in _unflatten(_below(saved, "optimizer")).items()
        }
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": states})
        numbers = [int(name.split("/")[0]) for name in _below(saved, "objectives")]
        if max(numbers, default=-1) >= len(self.objectives):
            raise _other(f"state of more than {len(self.objectives)} objectives", place)
        for number, objective in enumerate(self.objectives):
            objective.load_state_dict(_below(saved, f"objectives/{number}"))


def _other(what: str, place: Path) -> ArtifactError:
    fix = "delete the folder, or run with the settings that created it"
    return ArtifactError(f"the checkpoint holds {what}", where=place, fix=fix)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors gathered on the main process's CPU. Those that share memory, as tables of 8-bit optimizers do, are
    copied: safetensors refuses them."""
    found, taken = {}, set()
    for name, tensor in tensors.items():
        gathered = whole(tensor.detach())
        if is_main():
            value = gathered.cpu().contiguous()
            found[name] = value.clone() if value.data_ptr() in taken else value
            taken.add(value.data_ptr())
    return found


def _flatten(state: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _below(saved: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {name[len(kind) + 1 :]: value for name, value in saved.items() if name.startswith(f"{kind}/")}


def _unflatten(flat: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """State of each parameter; 8-bit optimizers keep their tables one level deeper."""
    state: dict[int, dict[str, Any]] = {}
    for path, value in flat.items():
        index, *deeper, name = path.split("/")
        level = state.setdefault(int(index), {})
        for key in deeper:
            level = level.setdefault(key, {})
        level[name] = value
    return state
