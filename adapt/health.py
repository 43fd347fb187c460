"""How self-training is doing, without labels of the target: what its teacher predicts, how sure it is, and signs that
it goes wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed

from tadp_da.distributed.processes import count

MEMORY = 0.9
"""Of a running count, by step: it forgets in about ten steps."""
BINS = 200
"""Of confidence, between 0 and 1."""
SETTLED = 10
"""Steps after which the shares of classes are those of the start."""


class Running:
    """Counts, running over steps, the same in every process and however a step is divided into micro-batches.

    Attributes:
        value: the running counts, float32.
        new: counts of this step so far, of this process; add to it.
        last: counts of the last step, of all processes.
    """

    def __init__(self, *shape: int, device: torch.device, dtype: torch.dtype = torch.int64) -> None:
        self.value = torch.zeros(shape, device=device)
        self.new = torch.zeros(shape, device=device, dtype=dtype)
        self.last = self.new.clone()

    def step(self) -> None:
        """End a step; every process must call this."""
        if count() > 1:
            distributed.all_reduce(self.new)
        self.value.mul_(MEMORY).add_(self.new)
        self.last, self.new = self.new, torch.zeros_like(self.new)

    @property
    def shares(self) -> Tensor:
        """The running counts, divided by their sum; 0 before there are any."""
        return self.value / self.value.sum().clamp(min=1e-12)


def count_classes(ids: Tensor, classes: int) -> Tensor:
    """Pixels of each class ``(k,)``; other ids are not counted."""
    return torch.bincount(ids[(ids >= 0) & (ids < classes)], minlength=classes)


class Health:
    """Running facts about a teacher's labels, and what is wrong with them.

    Args:
        classes: names.
        device: where pixels are counted.

    Attributes:
        confidence: pixels ``(k, BINS)`` by the teacher's class and its confidence.
        source: pixels ``(k,)`` by the source's label.
        pixels: all target pixels, their weights, and those where teacher and student agree.
        first: shares of classes of the teacher at the start.
        steps: how many there were.
    """

    def __init__(self, classes: Sequence[str], device: torch.device) -> None:
        self.classes = tuple(classes)
        self.confidence = Running(len(classes), BINS, device=device)
        self.source = Running(len(classes), device=device)
        self.pixels = Running(3, device=device, dtype=torch.float32)
        self.first = torch.zeros(len(classes), device=device)
        self.steps = torch.zeros((), device=device, dtype=torch.int64)

    def observe(
        self, labels: Tensor, confidence: Tensor, weight: Tensor, agree: Tensor, valid: Tensor
    ) -> None:
        """Count target pixels, all ``(b, h, w)``: the teacher's label, its confidence, the weight, whether the student
        agrees, and whether a pixel counts."""
        bins = (confidence[valid] * BINS).long().clamp(max=BINS - 1)
        kind = labels[valid] * BINS + bins
        self.confidence.new += torch.bincount(kind, minlength=self.confidence.new.numel()).view(-1, BINS)
        sums = [x.sum() for x in (valid, weight * valid, agree & valid)]
        self.pixels.new += torch.stack([x.float() for x in sums])

    def thresholds(self, quantile: float) -> Tensor:
        """Confidence ``(k,)`` under which this share of each class's pixels lies; 1 for a class without any."""
        pixels = self.confidence.value
        below = pixels.cumsum(1) / pixels.sum(1, keepdim=True).clamp(min=1e-12)
        return (below <= quantile).sum(1) / BINS

    def step(self) -> tuple[dict[str, float], dict[str, str]]:
        """End a step; every process must call this.

        Returns:
            Facts for ``metrics.jsonl``, and what is wrong: by kind, in words.
        """
        for each in (self.confidence, self.source, self.pixels):
            each.step()
        self.steps += 1
        rows = self.confidence.value.sum(1)
        teacher = rows / rows.sum().clamp(min=1e-12)
        if int(self.steps) == SETTLED:
            self.first = teacher.clone()
        pixels, weight, agree = self.pixels.last.tolist()
        facts = {"trusted": weight / max(pixels, 1), "agreement": agree / max(pixels, 1)}
        for side, shares in (("teacher", teacher), ("source", self.source.shares)):
            facts |= {f"{side}/{name}": x for name, x in zip(self.classes, shares.tolist(), strict=True)}
        wrong = self._wrong(teacher.tolist()) if int(self.steps) >= SETTLED else {}
        return {name: round(value, 5) for name, value in facts.items()}, wrong

    def _wrong(self, teacher: Sequence[float]) -> dict[str, str]:
        source, first = self.source.shares.tolist(), self.first.tolist()
        wrong = {
            f"vanished {name}": f"class {name!r} vanishes: its share of the teacher's labels is {now:.3%}, of the "
            f"source's {share:.3%}"
            for name, now, share, start in zip(self.classes, teacher, source, first, strict=True)
            if now < share / 10 <= start
        }
        known = [now for now, share in zip(teacher, source, strict=True) if share > 0]
        predicted = sum(now > 1e-4 for now in known)
        if 2 * predicted < len(known):
            wrong["few"] = f"the teacher predicts {predicted} of {len(known)} classes of the source"
        largest = max(range(len(teacher)), key=teacher.__getitem__)
        if source[largest] <= 0.9 < teacher[largest]:
            wrong["one"] = f"{teacher[largest]:.0%} of the teacher's labels are {self.classes[largest]!r}"
        return wrong

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a resumed run goes on from."""
        running = {"confidence": self.confidence, "source": self.source}
        state = {f"health.{name}": each.value for name, each in running.items()}
        return state | {"health.first": self.first, "health.steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore it from a state that may hold more."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])
