"""The head's own loss on labelled source images (TADP, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt.batches import raw_outputs
from adapt.objectives import Objective, objectives
from tadp_da.training.objective import Generators, seeded


@objectives.add("supervised")
class Supervised(Objective):
    """The loss of the head: cross-entropy for masks, and so on."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """
        Attributes:
            weight: of the loss.
        """

        weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        batch, noise = batches["source"], generators["source"]
        with seeded(noise[0], batch["text"].device):
            outputs = raw_outputs(model, batch, noise)
            return {"supervised": self.settings.weight * model.head.loss(outputs, batch["target"])}
