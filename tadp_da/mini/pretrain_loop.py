"""The training loop that the pretraining stages share: a budget in minutes or steps, EMA, checkpoints, a JSONL log.

A stage is resumed by running it again. Randomness is a function of (seed, step), so that a resumed run repeats what
an uninterrupted one would have done (exactly so under a budget in steps; under minutes the machine's speed decides).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

Loss = Callable[["Draw"], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Length of a training stage: either `minutes` of its own running time, resumed runs included, or `steps`."""

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError(
                f"a budget is either minutes or steps, found minutes={self.minutes} and steps={self.steps}: give one"
            )

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget used up, 0 at the start, 1 at the end."""
        used = step / self.steps if self.steps is not None else seconds / (60 * (self.minutes or 0.0))
        return min(1.0, used)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Optimisation settings. The learning rate warms up linearly and falls as a cosine to `floor` of its peak."""

    lr: float = 1e-3
    warmup: int = 200
    floor: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    log_every: int = 20
    save_seconds: float = 60.0

    def rate(self, step: int, progress: float) -> float:
        """The learning rate at `step`, when `progress` of the budget is used up."""
        cosine = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
        return self.lr * min(1.0, (step + 1) / self.warmup) * cosine


def rank() -> tuple[int, int]:
    """Rank of this process and number of processes: (0, 1) unless torch.distributed runs."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class Draw:
    """The randomness of one step: a NumPy and a torch generator, both a function of (seed, step, process) alone."""

    def __init__(self, seed: int, step: int) -> None:
        number, processes = rank()
        self.seed = seed
        self.turn = step * processes + number
        self.numpy = np.random.default_rng([seed, step, number])
        self.torch = torch.Generator().manual_seed(int(self.numpy.integers(2**62)))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.torch)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers in [low, high)."""
        return low + (high - low) * torch.rand(*shape, generator=self.torch)

    def indices(self, count: int, batch: int) -> np.ndarray[Any, Any]:
        """`batch` of `count` indices; every index occurs once before any occurs twice."""
        order = np.arange(self.turn * batch, (self.turn + 1) * batch)
        return np.array([_order(self.seed, count, int(i) // count)[int(i) % count] for i in order])


@lru_cache(maxsize=2)  # a batch is within one epoch or crosses into the next
def _order(seed: int, count: int, epoch: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, count, epoch]).permutation(count)


def atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    write(draft)
    os.replace(draft, path)


def log_line(path: Path, row: Mapping[str, object]) -> None:
    """Append one JSON line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


class Training:
    """State of a stage: the module, its EMA, the optimizer, the step and the seconds spent."""

    def __init__(self, module: nn.Module, folder: Path, schedule: Schedule) -> None:
        self.module, self.folder, self.schedule = module, folder, schedule
        self.step, self.seconds = 0, 0.0
        self.optimizer = torch.optim.AdamW(
            module.parameters(),
            schedule.lr,
            betas=(0.9, 0.99),
            weight_decay=schedule.weight_decay,
            fused=True,
        )
        self.ema = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @property
    def checkpoint(self) -> Path:
        """File of the state."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> bool:
        """Load the state, if one was saved."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema, self.step, self.seconds = state["ema"], int(state["step"]), float(state["seconds"])
        return True

    def save(self) -> None:
        """Save the state atomically."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "step": self.step,
            "seconds": self.seconds,
        }
        atomic(self.checkpoint, lambda path: torch.save(state, path))

    def update(self, losses: dict[str, Tensor], rate: float) -> None:
        """One optimizer step on the sum of `losses`, and the EMA after it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"the loss of {self.folder.name} is {total.item()} at step {self.step}: lower the learning rate and "
                f"run the stage again; it resumes from {self.checkpoint}"
            )
        total.backward()
        _average([value.grad for value in self.module.parameters() if value.grad is not None])
        nn.utils.clip_grad_norm_(self.module.parameters(), self.schedule.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(self.schedule.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.module.state_dict().items():
                if value.is_floating_point():
                    self.ema[name].lerp_(value, 1 - decay)

    def averaged(self) -> nn.Module:
        """The module holding its averaged weights, in evaluation mode. Training ends here."""
        self.module.load_state_dict(self.ema)
        return self.module.eval().requires_grad_(False)


def _average(gradients: list[Tensor]) -> None:
    """Replace gradients by their mean over the processes, in one message."""
    if rank()[1] == 1:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= rank()[1]
    for gradient, mean in zip(
        gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))


def _agreed(seconds: float) -> float:
    """The clock of the first process, so that all stop at the same step."""
    clock = torch.tensor([seconds], dtype=torch.float64)
    if rank()[1] > 1:
        dist.broadcast(clock, 0)
    return float(clock)


def train(
    module: nn.Module, loss: Loss, budget: Budget, schedule: Schedule, folder: Path, seed: int
) -> nn.Module:
    """Train `module` until the budget is used up, resuming from `folder`; return it with its averaged weights.

    `loss` maps the randomness of a step to named losses; their sum is minimised.
    """
    state = Training(module.train(), folder, schedule)
    state.resume()
    start = saved = logged = time.monotonic()
    spent, logged_step = state.seconds, state.step
    while (progress := budget.progress(state.step, state.seconds)) < 1.0:
        losses = loss(Draw(seed, state.step))
        state.update(losses, schedule.rate(state.step, progress))
        state.step += 1
        now = time.monotonic()
        state.seconds = _agreed(spent + now - start)
        if rank()[0]:
            continue
        if state.step % schedule.log_every == 0:
            row = {name: round(float(value.detach()), 5) for name, value in losses.items()}
            speed = (now - logged) / max(1, state.step - logged_step)
            logged, logged_step = now, state.step
            log_line(folder / "log.jsonl", {"step": state.step, "seconds": round(state.seconds, 1), **row})
            if state.step % (5 * schedule.log_every) == 0:
                print(f"{folder.name} {progress:6.1%} step {state.step} {speed:.2f} s/step {row}", flush=True)
        if now - saved > schedule.save_seconds:
            state.save()
            saved = now
    if not rank()[0]:
        state.save()
    return state.averaged()
