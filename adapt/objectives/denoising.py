"""The backbone's own loss, noise prediction, on target images beside the supervised loss: the network keeps what it
knows about images while it learns a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt.objectives import Objective, objectives
from tadp_da.errors import UsageError
from tadp_da.run import Run
from tadp_da.training.objective import Generators, seeded

NAME = "denoising"


@objectives.add(NAME)
class Denoising(Objective):
    """Mean squared error of noise prediction on the latents of target images, with their prompts."""

    streams = frozenset({"target"})

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
    class Settings:
        """
        Attributes:
            weight: of the loss.
            every: steps from one with this loss to the next.
        """

        weight: Annotated[float, Field(gt=0)] = 0.1
        every: Annotated[int, Field(ge=1)] = 1

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def reads(self, step: int) -> frozenset[str]:
        return frozenset() if step % self.settings.every else self.streams

    def setup(self, model: Any, run: Run) -> None:
        if not model.backbone.generates:
            raise UsageError(
                f"{type(model.backbone).__name__} does not denoise, and the objective {NAME} is its noise prediction",
                where="objectives",
                fix=f"choose a backbone of the Stable Diffusion family, or leave {NAME} out",
            )

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        if not self.reads(step):
            return {NAME: next(model.parameters()).new_zeros(())}
        batch, noise = batches["target"], generators["target"]
        with seeded(noise[0], batch["text"].device):
            latents = batch.get("latents")
            if latents is None:
                latents = model.backbone.encode_padded(batch["pixels"], noise)
            loss = model.backbone.noise_loss(latents, batch["text"], noise).mean()
        return {NAME: self.settings.weight * loss}
