"""The forward process and its training targets: one place for all training on noise.

Noise and timesteps come from CPU generators, one per sample, so that a sample's noise does not depend on the batch
it is in, on the device or on what was drawn before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tadp_da.errors import UsageError

Generators = torch.Generator | Sequence[torch.Generator]
_PREDICTIONS = ("epsilon", "v_prediction")


class Noising:
    """How a model noises latents and what it is asked to predict (Ho et al. 2020; Salimans and Ho 2022 for v).

    Args:
        config: configuration of any diffusers scheduler; its betas, prediction type and terminal SNR count.

    Attributes:
        steps: number of timesteps of the forward process.
        prediction: ``"epsilon"`` or ``"v_prediction"``.

    Raises:
        UsageError: for other prediction types, and for epsilon prediction at zero terminal SNR, which teaches nothing.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers import DDPMScheduler

        self._scheduler = DDPMScheduler.from_config(dict(config))
        self.steps = int(self._scheduler.config.num_train_timesteps)
        self.prediction = str(self._scheduler.config.prediction_type)
        if self.prediction not in _PREDICTIONS:
            raise UsageError(
                f"scheduler predicts {self.prediction!r}; training on noise knows {' and '.join(_PREDICTIONS)}",
                where="scheduler/scheduler_config.json: prediction_type",
                fix="use a pipeline that was trained to predict epsilon or v",
            )
        if self.prediction == "epsilon" and self._scheduler.alphas_cumprod[-1] < 1e-8:
            raise UsageError(
                "the last timestep has no signal left (zero terminal SNR), where epsilon prediction teaches nothing",
                where="scheduler/scheduler_config.json: rescale_betas_zero_snr",
                fix="set prediction_type to v_prediction, or rescale_betas_zero_snr to false",
            )

    @property
    def facts(self) -> dict[str, Any]:
        """What the forward process depends on, as JSON values."""
        known = ["num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas"]
        known += ["prediction_type", "rescale_betas_zero_snr"]
        return {name: self._scheduler.config[name] for name in known}

    def timesteps(self, count: int, generators: Generators) -> Tensor:
        """Uniform timesteps ``(b,)`` in [0, steps)."""
        each = _each(generators, count)
        return torch.cat([torch.randint(self.steps, (1,), generator=g) for g in each])

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``sqrt(abar_t) x + sqrt(1 - abar_t) noise`` per sample, shape of ``latents``."""
        return self._scheduler.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should predict: the noise, or v = sqrt(abar_t) noise - sqrt(1 - abar_t) x."""
        if self.prediction == "epsilon":
            return noise
        return self._scheduler.get_velocity(latents, noise, timesteps)

    def weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Min-SNR weights ``(b,)`` (Hang et al. 2023): min(snr, gamma) over snr, or over snr + 1 for v."""
        from diffusers.training_utils import compute_snr

        snr = compute_snr(self._scheduler, timesteps)
        return snr.clamp(max=gamma) / (snr if self.prediction == "epsilon" else snr + 1)


def noise_loss(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor],
    noising: Noising,
    latents: Tensor,
    text: Tensor,
    generators: Generators,
    *,
    min_snr: float | None = None,
) -> Tensor:
    """Mean squared error of the denoising objective per sample.

    Args:
        denoise: ``(noisy (b, c, u, v), timesteps (b,), text (b, t, d))`` to the prediction ``(b, c, u, v)``.
        noising: the forward process.
        latents: clean scaled latents ``(b, c, u, v)``.
        text: encoded prompts ``(b, t, d)``.
        generators: one CPU generator per sample, or one for the whole batch.
        min_snr: gamma of the min-SNR weighting; None for the plain loss.

    Returns:
        ``(b,)`` in fp32.
    """
    latents = latents.float()
    timesteps = noising.timesteps(len(latents), generators).to(latents.device)
    noise = normal(latents.shape, generators).to(latents.device)
    prediction = denoise(noising.add_noise(latents, noise, timesteps), timesteps, text)
    target = noising.target(latents, noise, timesteps)
    loss = (prediction.float() - target).square().flatten(1).mean(1)
    return loss if min_snr is None else loss * noising.weight(timesteps, min_snr)


def normal(shape: Sequence[int], generators: Generators) -> Tensor:
    """Standard normal noise of ``shape`` (b first) on the CPU, sample i from generator i, or all from one generator."""
    each = _each(generators, shape[0])
    return torch.stack([torch.randn(tuple(shape[1:]), generator=g) for g in each])


def _each(generators: Generators, count: int) -> Sequence[torch.Generator]:
    if isinstance(generators, torch.Generator):
        return [generators] * count
    if len(generators) != count:
        raise UsageError(
            f"{len(generators)} generators for {count} samples",
            where="noising",
            fix="pass one torch.Generator per sample, or a single one",
        )
    return generators
