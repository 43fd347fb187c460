"""Entropy minimization on unlabelled target images (Grandvalet and Bengio, 2004), beside the supervised loss."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt.batches import raw_outputs
from adapt.objectives import Objective, objectives
from tadp_da.training.objective import Generators, seeded


@objectives.add("entropy")
class Entropy(Objective):
    """Mean entropy of the class probabilities of target pixels, for heads whose raw outputs are logits."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """
        Attributes:
            weight: of the loss.
        """

        weight: Annotated[float, Field(gt=0)] = 0.01

    streams = frozenset({"target"})

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        batch, noise = batches["target"], generators["target"]
        with seeded(noise[0], batch["text"].device):
            logits = raw_outputs(model, batch, noise).float()
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
        inside = batch["valid"]  # False on padding
        return {"entropy": self.settings.weight * (entropy * inside).sum() / inside.sum().clamp(min=1)}
