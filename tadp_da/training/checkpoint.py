"""Checkpoints of one training: trained parameters, their average, the optimizer's and the objectives' state as
safetensors, complete when the manifest is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tadp_da.distributed.processes import broadcast, is_main
from tadp_da.distributed.sharding import like, whole
from tadp_da.errors import ArtifactError
from tadp_da.storage.artifacts import MANIFEST, verify
from tadp_da.storage.files import file_digest as digest
from tadp_da.storage.files import flush, flush_one, storing, write_json
from tadp_da.training.objective import Objective


class Checkpoints:
    """Keeps the newest complete checkpoint of a training in a folder.

    Args:
        folder: where they are, one sub-folder per step; None keeps none.
        model: names the parameters.
        trained: the parameters that change.
        optimizer: whose state is kept beside them.
        average: diffusers' ``EMAModel`` over ``trained``, if there is one.
        scaler: of gradients, if there is one.
        objectives: whose state is kept, in this order.
    """

    def __init__(
        self,
        folder: Path | None,
        model: nn.Module,
        trained: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: Any = None,
        scaler: Any = None,
        objectives: Sequence[Objective] = (),
    ) -> None:
        self.folder, self.optimizer, self.average, self.scaler = folder, optimizer, average, scaler
        self.objectives = objectives
        names = {id(p): name for name, p in model.named_parameters()}
        self.parameters = {names[id(p)]: p for p in trained}

    def _complete(self) -> list[Path]:
        return sorted(p.parent for p in self.folder.glob(f"step-*/{MANIFEST}")) if self.folder else []

    def _sets(self) -> dict[str, Mapping[str, Tensor]]:
        """By file, the tensors that a training goes on with."""
        sets: dict[str, Mapping[str, Tensor]] = {"parameters": self.parameters}
        if self.average is not None:
            sets["average"] = dict(zip(self.parameters, self.average.shadow_params, strict=True))
        return sets

    def _objectives_state(self) -> dict[str, Tensor]:
        states = enumerate(objective.state_dict() for objective in self.objectives)
        return {f"{number}/{key}": tensor for number, state in states for key, tensor in state.items()}

    def _restore_objectives(self, place: Path) -> None:
        states: list[dict[str, Tensor]] = [{} for _ in self.objectives]
        for name, tensor in load_file(place / "objectives.safetensors").items():
            number, _, key = name.partition("/")
            if int(number) >= len(states):
                raise ArtifactError(
                    f"the checkpoint holds state of more than {len(states)} objectives",
                    where=place,
                    fix="delete the folder, or run with the settings that created it",
                )
            states[int(number)][key] = tensor.clone()  # see _unflatten
        for objective, state in zip(self.objectives, states, strict=True):
            objective.load_state_dict(state)

    def save(self, step: int) -> None:
        """Write the checkpoint of ``step``; older ones are deleted once it is complete.

        All processes must come here, for what is sharded is put together; the main one writes.

        Raises:
            EnvironmentSetupError: when there is no room; the older one is kept.
        """
        if self.folder is None:
            return
        state, plain = _flatten(self.optimizer.state_dict()["state"])
        everything = {**self._sets(), "optimizer": state, "objectives": self._objectives_state()}
        sets = {name: _apart(tensors) for name, tensors in everything.items()}
        broadcast(self._store, self.folder, step, sets, plain)

    def _store(
        self, folder: Path, step: int, sets: Mapping[str, Mapping[str, Tensor]], plain: Mapping[str, Any]
    ) -> None:
        place, fresh = folder / f"step-{step:08d}", folder / f".step-{step:08d}"
        older = self._complete()
        if place in older:
            return
        try:
            with storing(folder):
                shutil.rmtree(place, ignore_errors=True)  # without its manifest it is not a checkpoint
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir(parents=True)
                self._write(fresh, step, sets, plain)
                fresh.replace(place)
                flush_one(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for old in older:
            (old / MANIFEST).unlink()  # first: one that is half deleted does not count
            shutil.rmtree(old, ignore_errors=True)

    def _write(
        self, fresh: Path, step: int, sets: Mapping[str, Mapping[str, Tensor]], plain: Mapping[str, Any]
    ) -> None:
        for name, values in sets.items():
            save_file(dict(values), fresh / f"{name}.safetensors")
        (fresh / "optimizer.json").write_text(json.dumps(plain), encoding="utf-8")
        flush(fresh)
        files = {path.name: digest(path) for path in sorted(fresh.iterdir())}
        facts = {"step": step, "files": files, "scaler": self.scaler.state_dict() if self.scaler else None}
        write_json(fresh / MANIFEST, facts)
        flush_one(fresh)

    def restore(self) -> int:
        """Load the newest complete checkpoint into parameters, average, optimizer and objectives; its step, or 0 when
        there is none.

        Raises:
            ArtifactError: when it is damaged, or belongs to other parameters.
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
            raise ArtifactError(
                error.what, where=place, fix=f"delete the folder; the training then {then}"
            ) from error
        for name, tensors in self._sets().items():
            self._load(place, place / f"{name}.safetensors", tensors)
        plain = json.loads((place / "optimizer.json").read_text(encoding="utf-8"))
        state = self._spread(_unflatten(load_file(place / "optimizer.safetensors"), plain))
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self._restore_objectives(place)
        facts = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if self.average is not None:
            self.average.optimization_step = facts["step"]
        if self.scaler is not None and facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        return int(facts["step"])

    def _spread(self, state: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
        """The optimizer's state in the same pieces as its parameters."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return {i: {key: like(v, parameters[i]) for key, v in values.items()} for i, values in state.items()}

    @staticmethod
    def _load(place: Path, path: Path, tensors: Mapping[str, Tensor]) -> None:
        saved = load_file(path) if path.exists() else {}
        if saved.keys() != tensors.keys():
            raise ArtifactError(
                f"the checkpoint holds {len(saved)} tensors in {path.name}, this run has {len(tensors)}",
                where=place,
                fix="delete the folder, or run with the settings that created it",
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(like(saved[name], tensor))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU without shared memory, which safetensors refuses: 8-bit optimizers share their tables."""
    kept, taken = {}, set()
    for name, tensor in tensors.items():
        found = whole(tensor.detach())
        if not is_main():
            continue  # it only had to bring its pieces
        value = found.cpu().contiguous()
        kept[name] = value.clone() if value.data_ptr() in taken else value
        taken.add(value.data_ptr())
    return kept


def _flatten(state: Mapping[Any, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain values of nested state by path; 8-bit optimizers keep their tables one level deeper."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, dict):
            deeper, plainer = _flatten(value, f"{name}/")
            tensors |= deeper
            plain |= plainer
        else:
            plain[name] = value
    return tensors, plain


def _unflatten(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for path, value in {**tensors, **plain}.items():
        index, *deeper, name = path.split("/")
        place = state.setdefault(int(index), {})
        for key in deeper:
            place = place.setdefault(key, {})
        # tensors read from a file lie unaligned in memory, where kernels may round differently
        place[name] = value.clone() if isinstance(value, Tensor) else value
    return state
