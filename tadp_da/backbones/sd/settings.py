"""Settings of Stable Diffusion: what decides the features, and how this machine computes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from tadp_da.backbones import BackboneSettings
from tadp_da.backbones.sd.kernels import Attention
from tadp_da.errors import UsageError
from tadp_da.settings import Effect


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StableDiffusionSettings(BackboneSettings):
    """How images become features.

    Attributes:
        timestep: what the UNet is told of the noise on the clean latent (1 in the authors' code, 0 in the paper).
        scaled: multiply latents by the VAE's scaling factor, as in pretraining; the authors' detectors do not.
            Only ``StableDiffusion.pyramid`` asks: noising and sampling are always scaled.
        posterior: take the mode of the VAE's posterior, or sample it.
        latent: put the latents behind the features of the finest stride, as the paper's overview has it (TADP, figure
            2) and the authors' code does not.
        pixels: for the VAE as it was trained, or normalized as for ImageNet, as the authors' code does;
            concepts never ask.
        attention: kernel of the attention whose maps nobody reads: torch's scaled-dot-product attention, xformers, or
            xformers where its kernel runs on this machine and torch's anywhere else.
        vae_dtype: of the weights of the VAE, which is never trained. Half precision saves 0.17 GB; features change a
            little.
        channels_last: memory layout of UNet and VAE that tensor cores prefer. On a CPU a training step in full
            precision took 5 % longer with it.
        compile: compile the UNet's transformer blocks (``torch.compile``, which wants a C++ compiler): minutes of
            waiting at the first steps, then each is some percent faster. For trainings of thousands of steps.
    """

    timestep: Annotated[int, Field(ge=0, le=999)] = 1
    scaled: bool = True
    posterior: Literal["mode", "sample"] = "mode"
    latent: bool = False
    pixels: Literal["sd", "imagenet"] = "sd"
    vae_dtype: Literal["fp32", "bf16"] = "fp32"
    attention: Annotated[Attention, Effect.SPEED] = "auto"
    channels_last: Annotated[bool, Effect.SPEED] = False
    compile: Annotated[bool, Effect.SPEED] = False

    def portable(self) -> dict[str, Any]:
        found = super().portable()
        # left out where it is off, so that models of versions without it are found again
        return found if found.pop("latent") is False else found | {"latent": True}

    def check(self, steps: int, vae: Any) -> None:
        """Check that the settings fit a scheduler of ``steps`` steps and the autoencoder.

        Raises:
            UsageError: when they do not.
        """
        if self.timestep >= steps:
            raise UsageError(
                f"timestep {self.timestep} is beyond the scheduler's {steps} steps",
                where="backbone.timestep",
                fix=f"choose 0 to {steps - 1}",
            )
        if self.posterior == "sample" and not hasattr(vae, "quant_conv"):
            raise UsageError(
                f"{type(vae).__name__} has no posterior to sample",
                where="backbone.posterior",
                fix="choose posterior: mode",
            )
