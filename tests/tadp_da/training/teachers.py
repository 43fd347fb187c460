"""An objective with state, for trainings that are stopped and shared."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tadp_da.distributed.sharding import whole
from tadp_da.run import Run
from tadp_da.training.objective import Generators, Objective


class Fit(Objective):
    """Squared error of a line on labelled points."""

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        return {"fit": model(batches["source"], generators["source"])}


class MeanTeacher(Objective):
    """The model answers to target points as a moving average of itself does."""

    streams = frozenset({"target"})
    teacher: nn.Module
    steps: Tensor

    def setup(self, model: Any, run: Run) -> None:
        self.teacher = copy.deepcopy(model.layer).requires_grad_(False)
        self.steps = torch.zeros(())

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        points = batches["target"][:, :1]
        noise = torch.stack([torch.randn(1, generator=g) for g in generators["target"]])
        return {"teacher": 0.5 * ((model.layer(points + 0.1 * noise) - self.teacher(points)) ** 2).mean()}

    def after_step(self, model: Any, step: int) -> None:
        self.steps += 1
        for mine, new in zip(self.teacher.parameters(), model.layer.parameters(), strict=True):
            mine.lerp_(whole(new.detach()).to(mine.device), 0.3)

    def state_dict(self) -> Mapping[str, Tensor]:
        return {"steps": self.steps, **self.teacher.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        weights = dict(state)
        self.steps = weights.pop("steps")
        self.teacher.load_state_dict(weights)
