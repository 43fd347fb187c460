"""The moving average of trained parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MovingAverage:
    """diffusers' ``EMAModel`` with its defaults, whose import would load every pipeline: seconds at each start.

    Args:
        trained: parameters, which may be sharded.
        decay: reached slowly as (1 + step) / (10 + step).
    """

    def __init__(self, trained: Sequence[nn.Parameter], decay: float) -> None:
        self.values: list[Tensor] = [p.detach().clone() for p in trained]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def step(self, trained: Sequence[nn.Parameter]) -> None:
        """Take in the parameters of another step; those of the first as they are."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        self.steps += 1
        for value, parameter in zip(self.values, trained, strict=True):
            value.sub_((1 - decay) * (value - parameter))

    @torch.no_grad()
    def restart(self, trained: Sequence[nn.Parameter]) -> None:
        """Forget all steps: the parameters are others now."""
        self.steps = 0
        self.step(trained)

    @torch.no_grad()
    def copy_to(self, trained: Sequence[nn.Parameter]) -> None:
        for value, parameter in zip(self.values, trained, strict=True):
            parameter.copy_(value)
