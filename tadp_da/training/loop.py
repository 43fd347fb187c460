"""One training loop for every stage: a generator of steps over accelerate, by one process or several, exact resume."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from accelerate import Accelerator
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import nn

from tadp_da.distributed.accelerator import make_accelerator
from tadp_da.distributed.processes import count, is_main, rank
from tadp_da.distributed.sharding import give_back, passing, prepare, whole, whole_state
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.run import Run
from tadp_da.settings import Effect
from tadp_da.storage.files import write_text
from tadp_da.tracking import log_images, log_step, tracking
from tadp_da.training.average import MovingAverage
from tadp_da.training.checkpoint import Checkpoints
from tadp_da.training.curves import plot_facts
from tadp_da.training.data import Dataset, DeterministicSampler, Stream, mix, share
from tadp_da.training.monitor import TrainingMonitor, enough_memory
from tadp_da.training.objective import Losses, ModelLoss, Objective
from tadp_da.training.signals import asked, held, interrupted

OptimizerName = Literal["adamw", "adamw8bit"]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
METRICS, HEALTH = "metrics.jsonl", "health.png"


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class LoopSettings:
    """Number of steps, batch size and accumulation.

    Attributes:
        steps: optimizer steps.
        batch: samples per forward pass, of all processes together: their number changes speed and memory only.
        accumulate: forward passes per step; a step sees ``batch * accumulate`` samples.
        clip: largest gradient norm, 0 for none.
        ema: decay of a moving average of the parameters, reached slowly as (1 + step) / (10 + step), which they become
            at the end; 0 for none.
        workers: processes that prepare samples; changes speed only. ``"auto"`` is none on the CPU, which has better to
            do, and on a GPU its share of the machine's cores, at most eight.
        checkpoint_every: steps between checkpoints; 0 saves one only at the end and when a signal stops the training.
    """

    steps: Positive
    batch: Positive
    accumulate: Positive = 1
    clip: Annotated[float, Field(ge=0)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    workers: Annotated[Count | Literal["auto"], Effect.SPEED] = "auto"
    checkpoint_every: Annotated[Count, Effect.SPEED] = 250

    def due(self, step: int) -> bool:
        """Whether a checkpoint follows this step, counted from 1: always the last one, because a signal may arrive
        before the result is saved."""
        return step == self.steps or (self.checkpoint_every > 0 and step % self.checkpoint_every == 0)


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        index: counts from 1.
        loss: what was minimized, the mean over micro-batches and processes.
        losses: its summands by the names that the objectives give them.
        grad_norm: before clipping.
        lrs: learning rate of each parameter group.
        facts: what the objectives report.
    """

    index: int
    loss: float
    losses: Mapping[str, float]
    grad_norm: float
    lrs: tuple[float, ...]
    facts: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The step as a line of ``metrics.jsonl``; single losses where there are several, facts where there are any."""
        record: dict[str, Any] = {"step": self.index, "loss": self.loss}
        if len(self.losses) > 1:
            record["losses"] = dict(self.losses)
        record |= {"grad_norm": self.grad_norm, "lrs": self.lrs}
        return record | ({"facts": dict(self.facts)} if self.facts else {})


def _optimizer(name: OptimizerName, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise EnvironmentSetupError(
            f"optimizer adamw8bit needs bitsandbytes, which does not import here: {error}",
            fix="pip install 'tadp-da[gpu]', or choose optimizer adamw",
        ) from error
    return AdamW8bit(groups)


def _check(
    trained: Sequence[nn.Parameter], streams: Mapping[str, Dataset], objectives: Sequence[Objective]
) -> None:
    if not any(p.requires_grad for p in trained):
        raise UsageError(
            "no parameter is trainable", fix="choose a backbone mode other than frozen, or train a head"
        )
    for name, dataset in streams.items():
        if len(dataset) == 0:
            raise UsageError(f"the training set {name!r} is empty", fix="check the data root and the split")
    if not any(objective.reads(0) for objective in objectives):
        raise UsageError(
            "no objective has a loss at the first step",
            where="objectives",
            fix="train with the objective supervised beside those that start later",
        )
    for objective in objectives:
        if missing := sorted(objective.streams - streams.keys()):
            raise UsageError(
                f"{type(objective).__name__} reads the stream {missing[0]!r}, which is not given",
                fix=f"give a data set of that name; given: {', '.join(streams) or 'none'}",
            )


def fit(
    model: nn.Module,
    groups: list[dict[str, Any]],
    streams: Mapping[str, Dataset],
    settings: LoopSettings,
    run: Run,
    *,
    objectives: Sequence[Objective] | None = None,
    batches: Mapping[str, int] | None = None,
    schedule: Callable[[int], float] = lambda _step: 1.0,
    optimizer: OptimizerName = "adamw",
    checkpoints: Path | None = None,
) -> Iterator[Step]:
    """Train ``model`` in place, one step per item drawn from the iterator.

    Args:
        model: moved to the run's device.
        groups: optimizer groups with ``params`` and ``lr``; only these parameters change.
        streams: data sets by name. Order and noise of the first are functions of the run's seed, of the others of seed
            and name.
        settings, run: steps and batches; seed, device and precision.
        objectives: what to minimize; None for a model whose ``model(batch, generators)`` is the loss on ``"source"``.
        batches: samples per forward pass of streams that differ from ``settings.batch``.
        schedule: factor on every learning rate at each step, counted from 0.
        optimizer: AdamW, or its 8-bit form from bitsandbytes.
        checkpoints: folder for checkpoints; training resumes from the newest complete one there.

    Raises:
        UsageError: when nothing can be trained, a stream is missing, or the checkpoint is beyond the last step.
        DivergedError: when a loss or gradient is not finite, or no gradient arrives or no parameter changes.
        InterruptedRunError: after a signal, when the step's checkpoint is saved.
        EnvironmentSetupError: when a step does not fit into memory or a checkpoint onto the disk.
    """
    objectives = [ModelLoss()] if objectives is None else objectives
    given = [p for group in groups for p in group["params"]]
    for objective in objectives:
        objective.steps = settings.steps
    _check(given, streams, objectives)
    own = share(settings.batch, settings.accumulate, count())
    accelerator = make_accelerator(run, share=own, clip=settings.clip)
    for objective in objectives:
        objective.setup(model, run)
    base_lrs = [group["lr"] for group in groups]
    # an objective's own models are neither trained nor sharded: only the model is copied where it must be
    wrap = partial(Losses, objectives=objectives)
    module, optim, trained = prepare(accelerator, model, wrap, groups, partial(_optimizer, optimizer))
    average = MovingAverage(trained, settings.ema) if settings.ema else None
    losses, state = accelerator.unwrap_model(module), whole_state(accelerator, optim.optimizer, trained)
    keeper = Checkpoints(checkpoints, losses.model, trained, state, average, accelerator.scaler, objectives)
    start = _resume(keeper, settings.steps)
    feeds = _feeds(streams, settings, run.seed, accelerator.device, start, batches or {}, objectives)
    yield from _Training(
        accelerator, module, losses, optim, trained, average, keeper, feeds, settings, base_lrs, schedule
    ).run(start)
    if average:
        average.copy_to(trained)
    model.to(accelerator.device)
    give_back(trained, given)


def _resume(keeper: Checkpoints, steps: int) -> int:
    """Number of steps that are done already."""
    if (start := keeper.restore()) > steps:
        raise UsageError(
            f"{start} steps were trained already, {steps} are asked for",
            where=keeper.folder,
            fix=f"set steps to {start} or more, or delete the folder to start over",
        )
    return start


def _feeds(
    streams: Mapping[str, Dataset],
    settings: LoopSettings,
    seed: int,
    device: torch.device,
    start: int,
    batches: Mapping[str, int],
    objectives: Sequence[Objective],
) -> dict[str, Stream]:
    first = next(iter(streams))
    automatic = min(8, (os.cpu_count() or 1) // count()) if device.type == "cuda" else 0
    workers = automatic if settings.workers == "auto" else settings.workers
    read = [frozenset[str]().union(*(o.reads(step) for o in objectives)) for step in range(settings.steps)]
    return {
        name: Stream(
            dataset,
            DeterministicSampler(
                len(dataset),
                batch=batches.get(name, settings.batch),
                accumulate=settings.accumulate,
                steps=settings.steps,
                seed=seed if name == first else mix(seed, name),
                start=start,
                rank=rank(),
                world=count(),
                read=frozenset(step for step, names in enumerate(read) if name in names),
            ),
            workers,
            pinned=device.type == "cuda",
        )
        for name, dataset in streams.items()
    }


def recorded(steps: Iterator[Step], total: int, run: Run, what: str) -> Iterator[Step]:
    """Show each step, append it to ``metrics.jsonl`` in the run's folder and tell it to the run's tracker; yields the
    steps. At the end facts, if there are any, are drawn into ``health.png``.

    A resumed training first removes the lines after its checkpoint. Only the main process writes.
    """
    if not is_main():
        yield from steps
        return
    first, path = next(steps, None), run.folder / METRICS
    if first is None:  # stopped between the last step and the figure
        if path.exists():
            plot_facts(path, run.folder / HEALTH)
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    done = first.index - 1
    write_text(path, "".join(lines[:done]))
    with (
        run.progress(total - done, what) as advance,
        path.open("a", encoding="utf-8", buffering=1) as file,
        nullcontext() if run.tracker == "none" else tracking(run.tracker, run.folder) as tracker,
    ):
        for step in itertools.chain([first], steps):
            file.write(json.dumps(step.record()) + "\n")
            if tracker:
                log_step(tracker, step.record())
            advance(f"loss {step.loss:.4f}")
            yield step
    plot_facts(path, run.folder / HEALTH)
    log_images(run.tracker, run.folder, {"health": run.folder / HEALTH})


@dataclass
class _Training:
    """The loop over what :func:`fit` has prepared."""

    accelerator: Accelerator
    module: nn.Module
    losses: Losses
    optim: Any
    trained: Sequence[nn.Parameter]
    average: MovingAverage | None
    keeper: Checkpoints
    feeds: Mapping[str, Stream]
    settings: LoopSettings
    base_lrs: Sequence[float]
    schedule: Callable[[int], float]

    def __post_init__(self) -> None:
        feeds = self.feeds.values()
        self.monitor = TrainingMonitor(
            self.trained, lambda index: "; ".join(filter(None, (feed.names(index) for feed in feeds)))
        )

    def run(self, start: int) -> Iterator[Step]:
        """Steps from ``start`` on, with their checkpoints."""
        settings, accelerator = self.settings, self.accelerator
        memory = enough_memory(settings.batch, settings.accumulate, accelerator.device)
        with ExitStack() as ended, held(), memory:
            for feed in self.feeds.values():
                ended.callback(feed.close)
            for index in range(start, settings.steps):
                factor = self.schedule(index)
                step, stop = self._advance(index, [lr * factor for lr in self.base_lrs])
                skipped = accelerator.optimizer_step_was_skipped
                self.monitor.check(step.loss, step.grad_norm, index, factor, skipped=skipped)
                objectives = self.losses.objectives
                replaced = [objective.after_step(self.losses.model, index) for objective in objectives]
                if self.average:
                    (self.average.restart if any(replaced) else self.average.step)(self.trained)
                facts = [objective.facts() for objective in objectives]
                yield replace(step, facts={name: value for each in facts for name, value in each.items()})
                # after the caller has recorded the step
                if stop or settings.due(step.index):
                    self.keeper.save(step.index)
                if stop:
                    raise interrupted(f"step {step.index} of {settings.steps}")

    def _advance(self, index: int, lrs: Sequence[float]) -> tuple[Step, bool]:
        """Make one step; also returns whether any process has received a signal."""
        accelerator, settings = self.accelerator, self.settings
        for group, lr in zip(self.optim.param_groups, lrs, strict=True):
            group["lr"] = lr
        total, single = torch.zeros((), device=accelerator.device), dict[str, torch.Tensor]()
        feeds = {name: feed for name, feed in self.feeds.items() if feed.sampler.reads(index)}
        for micro in range(settings.accumulate):
            batches = {name: feed.next_batch(accelerator.device) for name, feed in feeds.items()}
            generators = {name: feed.sampler.generators(index, micro) for name, feed in feeds.items()}
            last = micro + 1 == settings.accumulate
            with passing(accelerator, self.module, last=last), accelerator.autocast():
                losses = self.module(batches, index, generators)
            loss = sum(losses.values())
            accelerator.backward(loss / settings.accumulate)
            total += loss.detach().float() / settings.accumulate
            for name, value in losses.items():
                single[name] = single.get(name, 0) + value.detach().float() / settings.accumulate
        norm = accelerator.clip_grad_norm_(self.trained, settings.clip or math.inf)
        self.optim.step()
        self.optim.zero_grad()
        reported = torch.stack([total, torch.full_like(total, float(asked())), *single.values()])
        reduced: Any = accelerator.reduce(reported, "mean")
        mean, stop, *means = reduced.tolist()
        named = dict(zip(single, means, strict=True))
        grad_norm = float(whole(norm) if norm is not None else 0.0)
        return Step(index + 1, mean, named, grad_norm, tuple(lrs)), stop > 0
