"""A moving average of what is trained, which labels images that have no labels (Mean Teacher, Tarvainen and Valpola,
2017)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from adapt.batches import raw_outputs
from tadp_da.distributed.sharding import whole
from tadp_da.errors import UsageError


class Teacher:
    """Exponential moving average of a model's trainable parameters; everything else is shared with the model.

    Args:
        model: whose parameters are averaged, with ``requires_grad`` as in training, and not sharded.
        decay: of the average, reached slowly: it is the mean of the first ``1 / (1 - decay)`` states.
        start: first step at which it is used. It starts as a copy of the model half way to it.
        name: of its tensors in checkpoints.

    Attributes:
        average: averaged parameters by name.

    Raises:
        UsageError: when the training is sharded.
    """

    def __init__(self, model: nn.Module, decay: float, start: int = 0, name: str = "teacher") -> None:
        for kind in ("FSDP", "DeepSpeed"):
            if parse_flag_from_env(f"ACCELERATE_USE_{kind.upper()}"):
                raise UsageError(
                    f"{kind} shards the parameters, and a teacher needs them whole",
                    where="objectives",
                    fix="start without it; --processes shares the work without sharding, and backbone: lora, "
                    "gradient_checkpointing: true and optimizer: adamw8bit save memory",
                )
        self.decay, self.start, self.name = decay, start, name
        trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
        self.average = {name: p.detach().clone() for name, p in trained}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Average the model's parameters after ``step``, counted from 0; every process must call this."""
        age = step - self.start // 2
        if age < -1:
            return
        own = dict(model.named_parameters())
        now = [whole(own[name]).to(average) for name, average in self.average.items()]
        torch._foreach_lerp_([*self.average.values()], now, 1 - min(self.decay, 1 - 1 / (age + 2)))

    @torch.no_grad()
    def apply(self, model: nn.Module, function: Callable[[Any], Any]) -> Any:
        """Result of ``function(model)`` with the teacher's parameters, in eval mode, without gradients."""
        training = [module for module in model.modules() if module.training]
        model.eval()
        try:
            named = {f"model.{name}": value for name, value in self.average.items()}
            return torch.func.functional_call(_Apply(model), named, (function,))
        finally:
            for module in training:
                module.training = True

    def raw(self, model: nn.Module, batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Any:
        """The teacher's :func:`~adapt.batches.raw_outputs`."""
        return self.apply(model, lambda own: raw_outputs(own, batch, generators))

    @torch.no_grad()
    def copy_from(self, other: Teacher) -> None:
        """Become a copy of another teacher of the same model."""
        for name, value in self.average.items():
            value.copy_(other.average[name])

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Give the model the teacher's parameters."""
        own = dict(model.named_parameters())
        for name, value in self.average.items():
            own[name].copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, under names that start with its own."""
        return {f"{self.name}.{name}": value for name, value in self.average.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore it from a state that may hold more."""
        for name, value in self.average.items():
            value.copy_(state[f"{self.name}.{name}"])


class _Apply(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[Any], Any]) -> Any:
        return function(self.model)
