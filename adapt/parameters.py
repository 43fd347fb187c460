"""Which parameters are trained, their learning rates, and the schedule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

from torch import nn

from tadp_da.errors import UsageError
from tadp_da.training.objective import torch_seed

Mode = Literal["full", "lora", "frozen"]


@contextlib.contextmanager
def trainable(
    backbone: Any, head: nn.Module, mode: Mode, *, rank: int, seed: int
) -> Iterator[list[nn.Parameter]]:
    """Make the parameters of ``mode`` trainable inside the block; autoencoder and text encoder stay frozen.

    At the end low-rank layers are fused into the weights, and nothing requires a gradient. After an error inside the
    block the model is not to be used.

    Args:
        backbone: its network is trained.
        head: trained in every mode.
        mode: all of the network, low-rank layers beside its attention projections (Hu et al., 2021), or nothing.
        rank: of these layers.
        seed: of their first factors; the second start at zero.

    Yields:
        The backbone's trainable parameters.
    """
    backbone.requires_grad_(False)
    head.requires_grad_(True)
    with torch_seed(seed):
        moving = backbone.trainable(mode, rank=rank)
    # new layers are on the CPU
    backbone.to(next(head.parameters()).device)
    yield moving
    if mode == "lora":
        backbone.fuse_lora()
    backbone.requires_grad_(False)
    head.requires_grad_(False)


def parameter_groups(
    backbone: list[nn.Parameter], head: nn.Module, *, backbone_lr: float, head_lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Optimizer groups of the backbone's and the head's trainable parameters, each at its learning rate; norms and
    biases, of one dimension, without weight decay.

    Raises:
        UsageError: when there is no trainable parameter.
    """
    groups = []
    for lr, parameters in ((backbone_lr, backbone), (head_lr, [*head.parameters()])):
        trained = [p for p in parameters if p.requires_grad]
        several, one = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        for decay, chosen in ((weight_decay, several), (0.0, one)):
            if chosen:
                groups.append({"params": chosen, "lr": lr, "weight_decay": decay})
    if not groups:
        raise UsageError(
            "no parameter would move: the backbone is frozen and the head has none",
            fix="set backbone to full or lora, or choose a head with parameters",
        )
    return groups


def polynomial(steps: int, warmup: int, power: float) -> Callable[[int], float]:
    """Factor on the learning rate at each step, counted from 0: it rises linearly to 1 over ``warmup`` steps, then
    falls as ``(1 - t)^power`` to exactly 0 at the last step (TADP, appendix D: power 1)."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        last = steps - 1
        return 1.0 if last <= warmup else (1 - (step - warmup) / (last - warmup)) ** power

    return factor
