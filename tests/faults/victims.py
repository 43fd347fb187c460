"""Trainings and commands to be interrupted, for processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # the first optimizer imports it: here once, not in every victim
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tadp_da import cli
from tadp_da.run import Run
from tadp_da.storage.artifacts import get_or_create
from tadp_da.training.loop import LoopSettings, Step, fit, recorded
from tadp_da.training.signals import attended

WIDTH = 64


class Points:
    """Ten noisy samples of y = 3x; the noise is the 'augmentation'."""

    def __init__(self, size: int = 10) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def key(self, index: int) -> str:
        return f"{index}.png"

    def fetch(self, index: int, rng: np.random.Generator) -> Tensor:
        x = index / self.size
        return torch.tensor([x, 3 * x + 0.01 * rng.standard_normal()], dtype=torch.float32)

    def collate(self, samples: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(samples))


class Line(nn.Module):
    """A small network whose noise comes from the generators; ``before`` is called at every forward pass."""

    def __init__(self, before: Callable[[], Any] = lambda: None, width: int = WIDTH) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layer = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, 1))
            self.unused = nn.Linear(1, 1)
        self.before = before

    def forward(self, batch: Tensor, generators: list[torch.Generator]) -> Tensor:
        self.before()
        jitter = torch.cat([torch.randn(1, generator=g) for g in generators])
        return ((self.layer(batch[:, :1])[:, 0] + 0.01 * jitter - batch[:, 1]) ** 2).mean()


def train(
    folder: Path,
    line: Line | None = None,
    *,
    steps: int = 7,
    lr: float = 0.01,
    examples: Any = None,
    optimizer: Any = "adamw",
    quiet: bool = True,
    **more: Any,
) -> list[Step]:
    """Six of the samples at a step, in two portions: ten are an epoch, so steps 5 and 10 end at the end of one."""
    line = line or Line()
    settings = LoopSettings(steps=steps, batch=3, accumulate=2, **({"checkpoint_every": 1} | more))
    groups = [{"params": list(line.layer.parameters()), "lr": lr, "weight_decay": 0.01}]
    run = Run(folder=folder, seed=5, device="cpu", quiet=quiet)
    taken = fit(
        line,
        groups,
        {"source": examples or Points()},
        settings,
        run,
        schedule=lambda step: 1 - step / (2 * steps),
        optimizer=optimizer,
        checkpoints=run.unfinished / "line",
    )
    return list(recorded(taken, steps, run, "line"))


def weights(line: Line) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in line.layer.state_dict().items()}


def learn(folder: str, steps: int = 12, pause: float = 0.01, width: int = 512) -> None:
    """Train a line as an artifact."""
    torch.set_num_threads(1)
    run = Run(folder=Path(folder), seed=5, device="cpu", quiet=True)

    def make(draft: Path) -> None:
        line = Line(lambda: time.sleep(pause), width)
        train(draft, line, steps=steps, ema=0.5)
        save_file(weights(line), draft / "line.safetensors")

    run.get_or_create("line", {"steps": steps}, make, lambda place: load_file(place / "line.safetensors"))


def stuck(folder: str) -> None:
    """Train as a command does; the third step never ends."""

    def wait() -> None:
        if len(list(Path(folder).glob("unfinished/line/step-*2"))):
            (Path(folder) / "stuck").touch()
            while True:
                time.sleep(0.01)

    with attended():
        train(Path(folder), Line(wait))


def limited(folder: str, size: int) -> None:
    """Train where no file may grow beyond ``size`` bytes; exits as the front door does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    command([], lambda: learn(folder, pause=0))


def share(folder: str, inputs: Mapping[str, Any], log: str) -> None:
    """Make an artifact for as long as a file of that name is missing; every making leaves a line in the log."""

    def make(draft: Path) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        while not Path(f"{log}.go").exists():
            time.sleep(0.01)
        (draft / "text").write_text("made")

    command([], lambda: get_or_create(Path(folder), inputs, make, lambda place: (place / "text").read_text()))


def command(words: list[str], body: Callable[[], Any] | None = None) -> None:
    """``tadp-da`` with these words, or its front door around another body."""
    if body is not None:
        cli.app = body  # type: ignore[assignment]
    sys.argv = ["tadp-da", *words]
    cli.main()


def begin(
    target: Callable[..., Any], *arguments: Any, daemon: bool = True
) -> multiprocessing.process.BaseProcess:
    """Start a function of this module in a process of its own, which need not import anything anew; only one that is no
    daemon may start others."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=arguments, daemon=daemon)
    process.start()
    return process


def until(condition: Callable[[], Any], seconds: float = 120) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def read(folder: Path) -> str:
    return (folder / "text").read_text()
