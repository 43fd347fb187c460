"""Training that cannot succeed is stopped, with the step and the samples at which it was noticed."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tadp_da.distributed.processes import all_gather_object
from tadp_da.distributed.sharding import local
from tadp_da.errors import DivergedError, EnvironmentSetupError

STEPS = 5
"""Training is stopped after this many steps in a row without a gradient, or without a parameter that changes."""
_SPIKE, _RECENT = 10.0, 50
_log = logging.getLogger(__name__)


class TrainingMonitor:
    """Stops a training whose loss or gradient is not finite, that has no gradient, or whose parameters do not change.

    Args:
        trained: the parameters that should change.
        samples: names of the samples of a step.
    """

    def __init__(self, trained: Sequence[nn.Parameter], samples: Callable[[int], str]) -> None:
        self.trained, self.samples = trained, samples
        self.seen = self.silent = 0
        self.start = self._values()
        self.recent: deque[float] = deque(maxlen=_RECENT)

    def _values(self) -> list[Tensor]:
        """A few values of every parameter: all of them would double the memory."""
        return [local(p.detach()).flatten()[:64].clone() for p in self.trained]

    def check(self, loss: float, norm: float, index: int, factor: float, *, skipped: bool = False) -> None:
        """Check a step.

        Args:
            loss: of the step.
            norm: of its gradient, before clipping.
            index: of the step, from 0.
            factor: on the learning rates; near 0, at the end of a schedule, parameters need not change.
            skipped: by the gradient scaler (fp16), which retries at a lower scale when gradients overflow.

        Raises:
            DivergedError: with step and samples.
        """
        where = f"step {index + 1}"
        if not math.isfinite(loss) or not (math.isfinite(norm) or skipped):
            raise DivergedError(
                f"loss {loss} with gradient norm {norm} is not finite",
                where=f"{where}, samples {self.samples(index)}",
                fix="look at these samples; lower the learning rate, clip gradients, or use precision bf16 instead of "
                "fp16. The last checkpoint is kept",
            )
        # one crop may hold ignored pixels only; those of several steps in a row do not
        self.silent = self.silent + 1 if norm == 0.0 else 0
        if self.silent == STEPS:
            raise DivergedError(
                f"no gradient reached the trainable parameters in {STEPS} steps in a row",
                where=f"{where}, samples {self.samples(index)}",
                fix="check that the labels are not all ignored and that the trained part is used",
            )
        self.seen += 1
        if self.seen == STEPS and (index < STEPS or factor > 0.01) and not skipped:
            same = all(torch.equal(old, new) for old, new in zip(self.start, self._values(), strict=True))
            if all(all_gather_object(lambda: same)):  # sharded, each process sees its own part
                raise DivergedError(
                    f"none of {len(self.trained)} trainable parameters moved in {STEPS} steps",
                    where=where,
                    fix="raise the learning rate, and check that the optimizer holds what the model uses",
                )
        if len(self.recent) >= STEPS and loss > _SPIKE * max(self.recent):
            _log.warning(
                "%s: the loss jumped to %.3g, %.0f times the highest of the %d steps before; if it does not come "
                "back, lower the learning rate",
                *(where, loss, loss / max(max(self.recent), 1e-30), len(self.recent)),
            )
        self.recent.append(loss)


def check_embeddings(embeddings: Tensor, prompts: Sequence[str], *, strict: bool) -> None:
    """Warn when text embeddings hold no information: all one value, or the same for different prompts.

    Args:
        embeddings: ``(n, t, d)`` of n different prompts.
        prompts: for the message.
        strict: raise instead.

    Raises:
        DivergedError: in strict mode.
    """
    flat = embeddings.flatten(1)
    if bool((flat == flat[:, :1]).all()):
        found = f"every value of the text embeddings is {float(flat[0, 0]):.3g}"
    elif len(flat) > 1 and bool((flat == flat[:1]).all()):
        found = f"the embeddings of {len(flat)} different prompts are all equal"
    else:
        return
    message = f"{found}: the network is told nothing about the images"
    fix = "check the text encoder's weights and the captions"
    if strict:
        raise DivergedError(message, where=repr(prompts[0]), fix=fix)
    _log.warning("%s (first prompt: %r); %s", message, prompts[0], fix)


@contextmanager
def enough_memory(batch: int, accumulate: int, device: torch.device) -> Iterator[None]:
    """Give advice when a step does not fit into memory.

    Raises:
        EnvironmentSetupError: with settings that see the same samples per step in less memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # CUDA has an exception of its own; the CPU's allocator has only a message
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "allocate memory" not in str(error):
            raise
        half = max(1, batch // 2)
        halved = f"batch={half} accumulate={accumulate * math.ceil(batch / half)} (the same step in half the memory), "
        raise EnvironmentSetupError(
            f"a step with batch={batch} does not fit into the memory of {device}",
            where=str(error).strip().splitlines()[0][:200],
            fix=f"--set {halved if batch > 1 else ''}gradient_checkpointing=true, optimizer=adamw8bit, or a smaller "
            "crop or resolution (in a table: adapt.NAME, personalize.settings.NAME); the presets stable-diffusion-24gb "
            "and stable-diffusion-12gb do so",
        ) from error
