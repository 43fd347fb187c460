"""What a training minimizes: objectives over named streams of data, with state that belongs to the checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tadp_da.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from tadp_da.run import Run

Generators = Mapping[str, Sequence[torch.Generator]]
"""By stream, one CPU generator per sample of the micro-batch: a function of (seed, stream, step, position)."""


class Objective(ABC):
    """Base class of losses over batches of one or several streams.

    Attributes:
        streams: names of the streams whose batches it reads.
        steps: optimizer steps of the whole training, set before :meth:`setup`.
    """

    streams: frozenset[str] = frozenset({"source"})
    steps: int = 0

    def reads(self, step: int) -> frozenset[str]:
        """Those of :attr:`streams` that it reads at a step, a function of the step alone: the others' samples are not
        loaded, unless another objective reads them."""
        return self.streams

    def setup(self, model: Any, run: Run) -> None:  # noqa: B027 - an optional hook
        """Called once before the first step, with the model unsharded and on the run's device: an EMA teacher starts as
        a copy of it. State from a checkpoint is loaded after this."""

    @abstractmethod
    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        """Scalar losses by name, already weighted; their sum is minimized.

        At each step the names are the same in every process, and no other objective uses them; where there is nothing
        to learn from, a loss is 0.

        Args:
            model: what is trained.
            batches: a micro-batch of every stream that is read at this step, as its data set collates it.
            step: counts from 0.
            generators: the only source of randomness.
        """

    def after_step(self, model: Any, step: int) -> bool | None:
        """Called after the optimizer's step ``step``, counted from 0, and before its checkpoint. Parameters may be
        sharded: read them through :func:`tadp_da.distributed.sharding.whole`, in every process. True says that they
        were replaced by others, so that their average (``ema``) starts anew."""
        return None

    def facts(self) -> Mapping[str, float]:
        """Facts about the last step by name, for ``metrics.jsonl``; asked for after :meth:`after_step`, and the same in
        every process."""
        return {}

    def state_dict(self) -> Mapping[str, Tensor]:
        """Everything that changes from step to step, the same in every process."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned; the tensors are on the CPU.

        Raises:
            ArtifactError: when the state is of another kind.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            raise ArtifactError(
                f"the checkpoint holds {len(state)} tensors of {type(self).__name__}, this run {len(own)}",
                fix="delete the checkpoint's folder, or run with the settings that created it",
            )


class ModelLoss(Objective):
    """For a model that is its own objective: ``model(batch, generators)`` is the scalar loss of the only stream."""

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        (name,) = self.streams
        return {"loss": model(batches[name], generators[name])}


class Losses(nn.Module):
    """Objectives on a model as one module, whose forward pass is shared by processes and run in lower precision.

    Args:
        model: what is trained; the only sub-module, so that the objectives' own models are not trained.
        objectives: what to minimize.
    """

    def __init__(self, model: nn.Module, objectives: Sequence[Objective]) -> None:
        super().__init__()
        self.model, self.objectives = model, tuple(objectives)

    def forward(self, batches: Mapping[str, Any], step: int, generators: Generators) -> dict[str, Tensor]:
        """Losses of all objectives by name.

        Raises:
            UsageError: when two have the same name.
        """
        losses: dict[str, Tensor] = {}
        for objective in self.objectives:
            found = objective(self.model, batches, step, generators)
            if twice := losses.keys() & found.keys():
                raise UsageError(
                    f"two objectives have a loss named {sorted(twice)[0]!r}",
                    where=type(objective).__name__,
                    fix="name each objective once, or give its losses other names",
                )
            losses.update(found)
        return losses


@contextmanager
def torch_seed(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """For code that takes no generator: inside the block torch's global random numbers, on the CPU and on ``device``,
    start from a seed; afterwards they continue as before."""
    with torch.random.fork_rng(devices=[device] if device and device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """:func:`torch_seed` with a seed drawn from a copy of ``generator``, for layers such as dropout. The generator
    stays as it is: what a sample draws from its own must not depend on which sample is the first of its process."""
    copied = torch.Generator().set_state(generator.get_state())
    with torch_seed(int(torch.randint(2**62, (1,), generator=copied)), device):
        yield
