"""Checkpoints of one training: trained parameters and optimizer state as safetensors, complete when the
manifest stands."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tadp_da.errors import ArtefactError
from tadp_da.run import MANIFEST, verify, write_json
from tadp_da.run import file_digest as digest


class Checkpoints:
    """Keeps the newest complete checkpoint of a training in a folder.

    Args:
        folder: where they lie, one sub-folder per step.
        objective: names the parameters.
        trained: the parameters that change.
        optimizer: whose state is kept beside them.
    """

    def __init__(
        self,
        folder: Path,
        objective: nn.Module,
        trained: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.folder, self.optimizer = folder, optimizer
        chosen = {id(p) for p in trained}
        self.parameters = {name: p for name, p in objective.named_parameters() if id(p) in chosen}

    def _complete(self) -> list[Path]:
        return sorted(p.parent for p in self.folder.glob(f"step-*/{MANIFEST}"))

    def save(self, step: int) -> None:
        """Write the checkpoint of ``step``; older ones go after it stands."""
        self.folder.mkdir(parents=True, exist_ok=True)
        place, fresh = self.folder / f"step-{step:08d}", self.folder / f".step-{step:08d}.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        save_file(
            {k: p.detach().cpu().contiguous() for k, p in self.parameters.items()},
            fresh / "parameters.safetensors",
        )
        tensors, plain = _flatten(self.optimizer.state_dict()["state"])
        save_file(tensors, fresh / "optimizer.safetensors")
        (fresh / "optimizer.json").write_text(json.dumps(plain), encoding="utf-8")
        files = {}
        for path in sorted(fresh.iterdir()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[path.name] = digest(path)
        write_json(fresh / MANIFEST, {"step": step, "files": files})
        older = self._complete()
        shutil.rmtree(place, ignore_errors=True)
        fresh.replace(place)
        for old in older:
            if old != place:
                shutil.rmtree(old, ignore_errors=True)

    def restore(self) -> int:
        """Load the newest complete checkpoint into the parameters and the optimizer; its step, or 0 when
        there is none.

        Raises:
            ArtefactError: when it belongs to other parameters.
        """
        found = self._complete()
        if not found:
            return 0
        place = found[-1]
        verify(place)
        saved = load_file(place / "parameters.safetensors")
        if saved.keys() != self.parameters.keys():
            raise ArtefactError(
                f"the checkpoint holds {len(saved)} trained tensors, this run trains {len(self.parameters)}",
                where=place,
                fix="delete the folder, or run with the settings that made it",
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(saved[name])
        plain = json.loads((place / "optimizer.json").read_text(encoding="utf-8"))
        state = _unflatten(load_file(place / "optimizer.safetensors"), plain)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        return int(json.loads((place / MANIFEST).read_text(encoding="utf-8"))["step"])


def _flatten(state: dict[int, dict[str, Any]]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors, plain = {}, {}
    for index, entry in state.items():
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}/{name}"] = value.detach().cpu().contiguous()
            else:
                plain[f"{index}/{name}"] = value
    return tensors, plain


def _unflatten(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain}.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    return state
