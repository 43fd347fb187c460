"""One training loop for every stage: a generator of steps over accelerate, by one process or several, exact resume.

Randomness is a function of (seed, epoch, sample) for data and of (seed, step, position) for noise, never of
a stream: a resumed run needs no generator state, and the number of workers changes nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, parse_flag_from_env
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from tadp_da.distributed import deepspeed as _deepspeed
from tadp_da.distributed.processes import count, is_main, join, rank
from tadp_da.distributed.sharding import give_back, passing, prepare, refuse_unfit, whole, whole_state
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.run import Run
from tadp_da.storage.files import write_text
from tadp_da.training.checkpoint import Checkpoints
from tadp_da.training.monitor import TrainingMonitor, enough_memory
from tadp_da.training.signals import asked, held, ignore, interrupted

OptimizerName = Literal["adamw", "adamw8bit"]
METRICS = "metrics.jsonl"


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LoopSettings:
    """How long and in what portions to train.

    Attributes:
        steps: optimizer steps.
        batch: samples per forward pass, of all processes together: how many share them changes speed and memory only.
        accumulate: forward passes per step; a step sees ``batch * accumulate`` samples.
        clip: largest gradient norm, 0 for none.
        ema: decay of a moving average of the parameters, reached slowly as (1 + step) / (10 + step), which they become
            at the end; 0 for none.
        workers: processes that prepare samples; changes speed only.
        checkpoint_every: steps between checkpoints; 0 saves one only at the end and when a signal stops the training.
    """

    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    accumulate: Annotated[int, Field(ge=1)] = 1
    clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    workers: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Annotated[int, Field(ge=0)] = 250

    def share(self, processes: int) -> int:
        """Samples per forward pass of each process.

        Raises:
            UsageError: when they cannot be shared evenly, with settings for the same step that can be.
        """
        if self.batch % processes == 0:
            return self.batch // processes
        accumulate, rest = divmod(self.batch * self.accumulate, processes)
        same = f", or for the same step batch={processes} accumulate={accumulate}" if not rest else ""
        raise UsageError(
            f"batch={self.batch} cannot be shared evenly by {processes} processes",
            fix=f"set batch to a multiple of {processes}{same}",
        )

    def due(self, step: int) -> bool:
        """Whether a checkpoint follows this step, counted from 1: always the last one, because a signal may still come
        before what was trained is saved elsewhere."""
        every = self.checkpoint_every
        return step == self.steps or (every > 0 and step % every == 0)


class Examples(Protocol):
    """A training set whose augmentation takes its random numbers from the generator it is given."""

    def __len__(self) -> int: ...

    def fetch(self, index: int, rng: np.random.Generator) -> Any:
        """Sample ``index``; ``rng`` is a function of (seed, epoch, index)."""

    def key(self, index: int) -> str:
        """What to call sample ``index`` in messages."""


@dataclass(frozen=True)
class Step:
    """What happened in one optimizer step; ``index`` counts from 1."""

    index: int
    steps: int
    loss: float
    grad_norm: float
    lrs: tuple[float, ...]


def constant(_step: int) -> float:
    """The schedule that never changes the learning rate."""
    return 1.0


def mix(*numbers: int) -> int:
    """A 63-bit seed from several numbers."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


class DeterministicSampler(Sampler[list[tuple[int, int]]]):
    """Which (epoch, index) each position of each micro-batch holds, and its noise, as a pure function of the seed."""

    def __init__(
        self, size: int, settings: LoopSettings, seed: int, start: int, rank: int, world: int
    ) -> None:
        self.size, self.settings, self.seed = size, settings, seed
        self.start, self.rank, self.share = start, rank, settings.share(world)
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return (self.settings.steps - self.start) * self.settings.accumulate

    def at(self, position: int) -> tuple[int, int]:
        """(epoch, index) of the sample at this position of the whole run."""
        epoch, offset = divmod(position, self.size)
        if epoch not in self._orders:
            self._orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(self.size)}
        return epoch, int(self._orders[epoch][offset])

    def generators(self, step: int, micro: int) -> list[torch.Generator]:
        """One per sample of a micro-batch; samples of a step are numbered through micro-batches and processes."""
        first = micro * self.settings.batch + self.rank * self.share
        return [torch.Generator().manual_seed(mix(self.seed, step, first + i)) for i in range(self.share)]

    def of_step(self, step: int) -> list[int]:
        """Indices of all samples of a step, counted from 0, on all processes."""
        count = self.settings.batch * self.settings.accumulate
        return [self.at(position)[1] for position in range(step * count, (step + 1) * count)]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for micro in range(
            self.start * self.settings.accumulate, self.settings.steps * self.settings.accumulate
        ):
            first = micro * self.settings.batch + self.rank * self.share
            yield [self.at(first + i) for i in range(self.share)]


class _Fetch(Dataset[Any]):
    def __init__(self, examples: Examples, seed: int) -> None:
        self.examples, self.seed = examples, seed

    def __getitem__(self, where: tuple[int, int]) -> Any:
        epoch, index = where
        return self.examples.fetch(index, np.random.default_rng([self.seed, epoch, index]))


def _optimizer(name: OptimizerName, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(groups)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise EnvironmentSetupError(
            f"optimizer adamw8bit needs bitsandbytes, which does not import here: {error}",
            fix="pip install 'tadp-da[gpu]', or choose optimizer adamw",
        ) from error
    return AdamW8bit(groups)


def _refuse_nothing(trained: Sequence[nn.Parameter], examples: Examples) -> None:
    if not any(p.requires_grad for p in trained):
        raise UsageError(
            "no parameter is trainable", fix="choose a backbone mode other than frozen, or train a head"
        )
    if len(examples) == 0:
        raise UsageError("the training set is empty", fix="check the data root and the split")


def _accelerator(run: Run, settings: LoopSettings) -> Accelerator:
    device = run.torch_device
    on_cpu = device.type == "cpu"
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one, whatever was asked for
    if on_cpu and run.precision == "fp16":
        raise UsageError("precision fp16 needs a GPU", fix="choose bf16 or no")
    # accelerate keeps one global state and refuses another precision in the same process; each fit is on its own
    AcceleratorState._reset_state()
    # what is trained may be used at some steps and not at others: no object in any picture of a batch
    lenient = DistributedDataParallelKwargs(find_unused_parameters=True)
    if _deepspeed.wanted():
        join(device)
        accelerator = Accelerator()  # not cpu=True, which would leave DeepSpeed out
        plugin, share = accelerator.state.deepspeed_plugin, settings.share(count())
        _deepspeed.configure(plugin, share=share, clip=settings.clip, precision=run.precision)
        return accelerator
    accelerator = Accelerator(mixed_precision=run.precision, cpu=on_cpu, kwargs_handlers=[lenient])
    refuse_unfit(accelerator, asked=parse_flag_from_env("ACCELERATE_USE_FSDP"))
    return accelerator


def fit(
    objective: nn.Module,
    groups: list[dict[str, Any]],
    examples: Examples,
    settings: LoopSettings,
    run: Run,
    *,
    collate: Callable[[list[Any]], Any],
    schedule: Callable[[int], float] = constant,
    optimizer: OptimizerName = "adamw",
    checkpoints: Path | None = None,
) -> Iterator[Step]:
    """Train ``objective`` in place, one step per item drawn from the iterator.

    Args:
        objective: ``objective(batch, generators)`` is a scalar loss; all noise comes from the CPU generators, one
            a sample. Moved to the run's device.
        groups: optimizer groups with ``params`` and ``lr``; only these parameters change.
        examples, settings: the training set; steps and batches.
        run: seed, device and precision.
        collate: joins fetched samples to a batch; tensors in it, also in dicts and lists, go to the device.
        schedule: factor on every group's learning rate at each step, the first step being 0.
        optimizer: AdamW, or its 8-bit form from bitsandbytes.
        checkpoints: folder for checkpoints; training goes on from the newest complete one there.

    Raises:
        UsageError: when nothing can be trained, or the checkpoint lies beyond the last step.
        DivergedError: when a loss or gradient is not finite, no gradient arrives at all or no parameter moves.
        InterruptedRunError: after a signal, when the step is finished and its checkpoint saved.
        EnvironmentSetupError: when a step does not fit into memory or a checkpoint onto the disk.
    """
    _refuse_nothing(given := [p for group in groups for p in group["params"]], examples)
    accelerator = _accelerator(run, settings)
    base_lrs = [group["lr"] for group in groups]
    model, optim, trained = prepare(accelerator, objective, groups, partial(_optimizer, optimizer))
    average = _average(trained, settings.ema) if settings.ema else None
    named, state = accelerator.unwrap_model(model), whole_state(accelerator, optim.optimizer, trained)
    keeper = Checkpoints(checkpoints, named, trained, state, average, accelerator.scaler)
    start = _begin(keeper, settings)
    plan = DeterministicSampler(len(examples), settings, run.seed, start, rank(), count())
    batches = _batches(examples, plan, collate)
    guard = TrainingMonitor(trained, lambda index: ", ".join(examples.key(i) for i in plan.of_step(index)))
    with held(), enough_memory(settings.batch, settings.accumulate, accelerator.device):
        for index in range(start, settings.steps):
            lrs = _set_rates(optim, base_lrs, schedule(index))
            loss, norm, stop = _advance(accelerator, model, optim, batches, plan, index, trained)
            guard.check(loss, norm, index, schedule(index), skipped=accelerator.optimizer_step_was_skipped)
            if average:
                average.step(trained)
            yield (step := Step(index + 1, settings.steps, loss, norm, tuple(lrs)))
            # after the caller has written the step down: what a checkpoint counts is on record
            if stop or settings.due(step.index):
                keeper.save(step.index)
            if stop:
                raise interrupted(f"step {step.index} of {step.steps}")
    if average:
        average.copy_to(trained)
    objective.to(accelerator.device)
    give_back(trained, given)


def _average(trained: Sequence[nn.Parameter], decay: float) -> Any:
    # takes seconds to import, and who only lists recipes should not wait for it
    from diffusers.training_utils import EMAModel

    return EMAModel(trained, decay=decay)


def _begin(keeper: Checkpoints, settings: LoopSettings) -> int:
    """Steps that are done already."""
    start = keeper.restore()
    if start > settings.steps:
        raise UsageError(
            f"{start} steps were trained already, {settings.steps} are asked for",
            where=keeper.folder,
            fix=f"set steps to {start} or more, or delete the folder to start over",
        )
    return start


def _batches(
    examples: Examples, plan: DeterministicSampler, collate: Callable[[list[Any]], Any]
) -> Iterator[Any]:
    fetch, workers = _Fetch(examples, plan.seed), plan.settings.workers
    return iter(
        DataLoader(fetch, batch_sampler=plan, collate_fn=collate, num_workers=workers, worker_init_fn=ignore)
    )


def recorded(steps: Iterator[Step], total: int, run: Run, what: str) -> Iterator[Step]:
    """The same steps, each shown, and written as a line of ``metrics.jsonl`` in the run's folder.

    A training that goes on writes behind the steps that its checkpoint counts, so that none stands there twice. Of
    several processes the main one writes.
    """
    if not is_main():
        yield from steps
        return
    first = next(steps, None)
    if first is None:
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    path = run.folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    done = first.index - 1
    write_text(path, "".join(lines[:done]))
    with (
        run.progress(total - done, what) as advance,
        path.open("a", encoding="utf-8", buffering=1) as file,
    ):
        for step in itertools.chain([first], steps):
            line = {"step": step.index, "loss": step.loss, "grad_norm": step.grad_norm, "lrs": step.lrs}
            file.write(json.dumps(line) + "\n")
            advance(f"loss {step.loss:.4f}")
            yield step


def _set_rates(optim: Any, base: Sequence[float], factor: float) -> list[float]:
    rates = [lr * factor for lr in base]
    for group, lr in zip(optim.param_groups, rates, strict=True):
        group["lr"] = lr
    return rates


def _advance(
    accelerator: Accelerator,
    model: nn.Module,
    optim: Any,
    batches: Iterator[Any],
    plan: DeterministicSampler,
    step: int,
    trained: Sequence[nn.Parameter],
) -> tuple[float, float, bool]:
    """One optimizer step; mean loss over all processes, the gradient norm before clipping, and whether any of the
    processes was told to stop."""
    settings, total = plan.settings, torch.zeros((), device=accelerator.device)
    for micro in range(settings.accumulate):
        batch = _to(next(batches), accelerator.device)
        last = micro + 1 == settings.accumulate
        with passing(accelerator, model, last=last), accelerator.autocast():
            loss = model(batch, plan.generators(step, micro))
        accelerator.backward(loss / settings.accumulate)
        total += loss.detach().float() / settings.accumulate
    limit = settings.clip or math.inf
    norm = accelerator.clip_grad_norm_(trained, limit)
    optim.step()
    optim.zero_grad()
    told = torch.stack([total, torch.full_like(total, float(asked()))])
    loss_and_stop: Any = accelerator.reduce(told, "mean")
    mean, stop = loss_and_stop.tolist()
    return mean, float(whole(norm) if norm is not None else 0.0), stop > 0


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {k: _to(v, device) for k, v in batch.items()}
    if isinstance(batch, list | tuple) and not hasattr(batch, "_fields"):
        return type(batch)(_to(v, device) for v in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return dataclasses.replace(
            batch, **{f.name: _to(getattr(batch, f.name), device) for f in dataclasses.fields(batch)}
        )
    return batch
