"""Which parameters move, how fast, and how the speed changes over the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import nn

from tadp_da.errors import UsageError

Mode = Literal["full", "lora", "frozen"]


@contextlib.contextmanager
def trainable(
    backbone: Any, head: nn.Module, mode: Mode, *, rank: int, seed: int
) -> Iterator[list[nn.Parameter]]:
    """Let the parameters of ``mode`` move inside the block; VAE and text encoder never do.

    Low-rank layers are fused into the weights at the end, so that the UNet is a plain one whichever mode trained it;
    afterwards nothing requires a gradient. After an error inside the block the model is not to be used.

    Args:
        backbone: whose UNet is trained.
        head: trained in every mode.
        mode: all of the UNet, low-rank layers beside its attention projections (Hu et al., 2021), or nothing of it.
        rank: of these layers.
        seed: of their first factors; the second start at zero, so that training starts from the base.

    Yields:
        The backbone's trainable parameters.
    """
    backbone.requires_grad_(False)
    head.requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        moving = backbone.trainable(mode, rank=rank)
    # Layers that were put in just now lie on the CPU, whatever device the rest is on.
    backbone.to(next(head.parameters()).device)
    yield moving
    if mode == "lora":
        backbone.fuse_lora()
    backbone.requires_grad_(False)
    head.requires_grad_(False)


def parameter_groups(
    backbone: list[nn.Parameter], head: nn.Module, *, backbone_lr: float, head_lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Optimizer groups: backbone and head at their own rates; norms and biases without weight decay.

    Args:
        backbone: the backbone's trainable parameters.
        head: all of its parameters that require a gradient are trained.
        backbone_lr: learning rate of the first.
        head_lr: learning rate of the second.
        weight_decay: of every parameter with more than one dimension.

    Raises:
        UsageError: when no parameter would move.
    """
    groups = []
    for lr, parameters in (
        (backbone_lr, backbone),
        (head_lr, [p for p in head.parameters() if p.requires_grad]),
    ):
        for decay, dims in ((weight_decay, range(2, 9)), (0.0, range(2))):
            chosen = [p for p in parameters if p.ndim in dims]
            if chosen:
                groups.append({"params": chosen, "lr": lr, "weight_decay": decay})
    if not groups:
        raise UsageError(
            "no parameter would move: the backbone is frozen and the head has none",
            fix="set backbone to full or lora, or choose a head with parameters",
        )
    return groups


def polynomial(steps: int, warmup: int, power: float) -> Callable[[int], float]:
    """Factor on the learning rate at each step (first is 0): up in a line over ``warmup`` steps to 1, then
    ``(1 - t)^power`` down to exactly 0 at the last step (TADP, appendix D: power 1).

    Args:
        steps: of the whole run; a run of one step stays at 1.
        warmup: steps until the full rate is reached; less than ``steps``.
        power: 1 is a straight line.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        last = steps - 1
        return 1.0 if last <= warmup else (1 - (step - warmup) / (last - warmup)) ** power

    return factor
