"""Maximum squares on unlabelled target images (Chen et al., 2019), beside the supervised loss."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt.batches import raw_outputs
from adapt.objectives import Objective, objectives
from tadp_da.training.objective import Generators, seeded


@objectives.add("maximum-squares")
class MaximumSquares(Objective):
    """The more a target pixel's class probabilities differ, the better; for heads whose raw outputs are logits."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """
        Attributes:
            weight: of the loss.
        """

        weight: Annotated[float, Field(gt=0)] = 0.01

    streams = frozenset({"target"})
    tasks = frozenset({"segmentation"})

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        batch, noise = batches["target"], generators["target"]
        with seeded(noise[0], batch["text"].device):
            logits = raw_outputs(model, batch, noise).float()
        loss = -logits.softmax(1).square().sum(1) / 2
        inside = batch["valid"]  # False on padding
        return {"maximum-squares": self.settings.weight * (loss * inside).sum() / inside.sum().clamp(min=1)}
