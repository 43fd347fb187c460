"""Sure predictions on target images: entropy minimization (Grandvalet and Bengio, 2004; ADVENT, Vu et al., 2019), and
with it mean predictions as the source's shares of classes (information maximization; SHOT, Liang et al., 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt.batches import raw_outputs
from adapt.health import Running, count_classes
from adapt.objectives import Objective, objectives
from tadp_da.run import Run
from tadp_da.training.objective import Generators, seeded


class Logits(Objective):
    """Loss of the class probabilities of target pixels."""

    name: str
    tasks = frozenset({"segmentation"})
    streams = frozenset({"target"})

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
    class Settings:
        """
        Attributes:
            weight: of the loss.
        """

        weight: Annotated[float, Field(gt=0)] = 0.01

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def loss(self, logs: Tensor, batches: Mapping[str, Any]) -> Tensor:
        """Of log-probabilities ``(n, k)`` of the pixels that are not padding."""
        return entropy(logs).mean()

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        batch, noise = batches["target"], generators["target"]
        with seeded(noise[0], batch["text"].device):
            raw = raw_outputs(model, batch, noise).float()
        logs = raw.log_softmax(1).movedim(1, -1)[batch["valid"]]
        return {self.name: self.settings.weight * self.loss(logs, batches)}


def entropy(logs: Tensor) -> Tensor:
    """Entropy ``(n,)`` of log-probabilities ``(n, k)``, in nats."""
    return -(logs.exp() * logs).sum(-1)


@objectives.add("entropy")
class Entropy(Logits):
    """Mean entropy of the class probabilities of target pixels."""

    name = "entropy"


@objectives.add("information-maximization")
class InformationMaximization(Logits):
    """The same, plus the divergence of the batch's mean prediction from the source's shares of classes: what keeps
    entropy from predicting one class everywhere."""

    name = "information-maximization"
    streams = frozenset({"source", "target"})
    source: Running | None = None

    def setup(self, model: Any, run: Run) -> None:
        self.source = Running(len(model.labels.classes), device=model.device)

    def loss(self, logs: Tensor, batches: Mapping[str, Any]) -> Tensor:
        assert self.source is not None
        new = count_classes(batches["source"]["target"], logs.shape[1])
        self.source.new += new
        counts = self.source.value + new
        shares = (counts + 1) / (counts + 1).sum()  # so that a class without a pixel is not forbidden
        mean = logs.exp().mean(0)
        return entropy(logs).mean() + (mean * (mean.clamp(min=1e-12) / shares).log()).sum()

    def after_step(self, model: Any, step: int) -> None:
        if self.source is not None:
            self.source.step()

    def state_dict(self) -> Mapping[str, Tensor]:
        return {} if self.source is None else {"source": self.source.value}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        if self.source is not None:
            self.source.value.copy_(state["source"])
