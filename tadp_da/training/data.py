"""Training data: what a data set offers to the loop, and which of its samples each process sees at each step.

Randomness is a function of (seed, epoch, sample) for data and of (seed, step, position) for noise: a resumed run needs
no state of generators, and the number of workers changes nothing.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import platform
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from tadp_da.errors import UsageError
from tadp_da.training.signals import data_worker


class Dataset(Protocol):
    """A training set whose augmentation takes its random numbers from the generator it is given."""

    def __len__(self) -> int: ...

    def fetch(self, index: int, rng: np.random.Generator) -> Any:
        """Sample ``index``; ``rng`` is a function of (seed, epoch, index)."""

    def key(self, index: int) -> str:
        """Name of sample ``index`` in messages."""

    def collate(self, samples: Sequence[Any]) -> Any:
        """Join samples to a batch; tensors in it, also in dicts, lists and named tuples, are moved to the device."""


def mix(*parts: int | str) -> int:
    """A 63-bit seed from several numbers or names."""
    text = ",".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def share(batch: int, accumulate: int, processes: int) -> int:
    """Samples per forward pass of each process.

    Raises:
        UsageError: when they cannot be shared evenly, with settings for the same step that can.
    """
    if batch % processes == 0:
        return batch // processes
    smaller, rest = divmod(batch * accumulate, processes)
    same = f", or for the same step batch={processes} accumulate={smaller}" if not rest else ""
    raise UsageError(
        f"batch={batch} cannot be shared evenly by {processes} processes",
        fix=f"set batch to a multiple of {processes}{same}",
    )


@dataclass(eq=False)
class DeterministicSampler(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) of every sample of each micro-batch, and its noise, as a function of the seed.

    Attributes:
        size: samples of the data set.
        batch: samples per forward pass, of all processes together.
        accumulate: forward passes per step.
        steps: optimizer steps of the whole run.
        seed: of order and noise.
        start: steps that are done already.
        rank, world: number of this process, and of all.
        read: steps at which the data set is read; None for all. Others' samples are passed over.
    """

    size: int
    _: KW_ONLY
    batch: int
    accumulate: int
    steps: int
    seed: int
    start: int = 0
    rank: int = 0
    world: int = 1
    read: frozenset[int] | None = None

    def __post_init__(self) -> None:
        self.share = share(self.batch, self.accumulate, self.world)
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return sum(map(self.reads, range(self.start, self.steps))) * self.accumulate

    def reads(self, step: int) -> bool:
        """Whether the data set is read at a step."""
        return self.read is None or step in self.read

    def at(self, position: int) -> tuple[int, int]:
        """(epoch, index) of the sample at this position of the whole run."""
        epoch, offset = divmod(position, self.size)
        if epoch not in self._orders:
            self._orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(self.size)}
        return epoch, int(self._orders[epoch][offset])

    def generators(self, step: int, micro: int) -> list[torch.Generator]:
        """One per sample of a micro-batch; samples of a step are numbered across micro-batches and processes."""
        first = micro * self.batch + self.rank * self.share
        return [torch.Generator().manual_seed(mix(self.seed, step, first + i)) for i in range(self.share)]

    def of_step(self, step: int) -> list[int]:
        """Indices of all samples of a step, counted from 0, in all processes."""
        count = self.batch * self.accumulate
        return [self.at(position)[1] for position in range(step * count, (step + 1) * count)]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for micro in range(self.start * self.accumulate, self.steps * self.accumulate):
            if self.reads(micro // self.accumulate):
                first = micro * self.batch + self.rank * self.share
                yield [self.at(first + i) for i in range(self.share)]


def _context() -> str | None:
    """How workers start: by forking on Linux, which copies nothing, where nobody has said otherwise. Python 3.14 does
    not fork by itself."""
    chosen: str | None = multiprocessing.get_start_method(allow_none=True)
    return "fork" if chosen is None and platform.system() == "Linux" else None


class Stream(TorchDataset[Any]):
    """Batches of a data set in the order of a sampler.

    Args:
        dataset: the data set.
        sampler: the order.
        workers: processes that prepare samples.
        pinned: copy batches to memory from which a GPU reads them while it computes.
    """

    def __init__(
        self, dataset: Dataset, sampler: DeterministicSampler, workers: int, *, pinned: bool = False
    ) -> None:
        self.dataset, self.sampler = dataset, sampler
        loader: DataLoader[Any] = DataLoader(
            self,
            batch_sampler=sampler,
            collate_fn=dataset.collate,
            num_workers=workers,
            multiprocessing_context=_context() if workers else None,
            worker_init_fn=data_worker,
            pin_memory=pinned,
        )
        self._batches: Iterator[Any] = iter(loader)

    def __getitem__(self, where: tuple[int, int]) -> Any:
        epoch, index = where
        return self.dataset.fetch(index, np.random.default_rng([self.sampler.seed, epoch, index]))

    def next_batch(self, device: torch.device) -> Any:
        """The next micro-batch, on the device."""
        return send_to_device(next(self._batches), device, non_blocking=True)

    def close(self) -> None:
        """End the processes that prepare samples. They ignore signals, and Python's exit would wait for them."""
        self._batches = iter(())

    def names(self, step: int) -> str:
        """Names of the samples of a step."""
        read = self.sampler.of_step(step) if self.sampler.reads(step) else ()
        return ", ".join(self.dataset.key(index) for index in read)
