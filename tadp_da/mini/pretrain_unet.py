"""The denoiser and the text encoder of the mini Stable Diffusion, trained together from scratch on cached latents.

v-prediction (Salimans and Ho, 2022) with zero terminal SNR (Lin et al., 2024): the last step is pure noise, so that
brightness and hue of a sample follow the prompt and not the noise it starts from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tadp_da.mini.pretrain_loop import Budget, Draw, Schedule, Training, train

SCHEDULE = Schedule(lr=1e-3, warmup=200, ema=0.998)
WIDTHS = (32, 64, 128, 192)
TEXT = 128
SNR_LIMIT = 5.0

Prompt = Callable[[int, bool, Draw], str]
Emphasis = NDArray[np.float32]


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, rescaled to zero terminal SNR."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def new_unet(size: int = 32, widths: tuple[int, ...] = WIDTHS) -> UNet2DConditionModel:
    """An untrained denoiser; text attention where the image is 1/8 and 1/16 of its pixels (and in the middle)."""
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=TEXT,
        norm_num_groups=4,  # few: narrow groups would normalise brightness away
        attention_head_dim=tuple(max(1, width // 32) for width in widths),  # diffusers reads this as heads
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    ).to(memory_format=torch.channels_last)


def new_text_encoder(tokenizer: CLIPTokenizer, layers: int = 2) -> CLIPTextModel:
    """An untrained text encoder for the words of `tokenizer`."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT,
        intermediate_size=4 * TEXT,
        projection_dim=TEXT,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


class Denoiser(nn.Module):
    """Text encoder and UNet as one trainable module."""

    def __init__(self, tokenizer: CLIPTokenizer, size: int = 32) -> None:
        super().__init__()
        self.text_encoder = new_text_encoder(tokenizer)
        self.unet = new_unet(size)

    def forward(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        """The predicted velocity of latents (b 4 u v) at times (b), given tokens (b t)."""
        text = self.text_encoder(tokens).last_hidden_state
        predicted: Tensor = self.unet(noisy, times, text).sample
        return predicted


def weight(scheduler: DDIMScheduler, times: Tensor) -> Tensor:
    """Loss weights of v-prediction: (min(SNR, 5) + 1) / (SNR + 1).

    Min-SNR (Hang et al., 2023) weights the clean image's error by min(SNR, 5), which for v would give nothing to the
    pure-noise step; one more, v's own weight there, keeps that step in training.
    """
    alpha = scheduler.alphas_cumprod[times]
    snr = alpha / (1 - alpha)
    return (snr.clamp(max=SNR_LIMIT) + 1) / (snr + 1)


def _losses(
    model: Denoiser, scheduler: DDIMScheduler, latents: Tensor, emphasis: Emphasis, tokenizer: CLIPTokenizer,
    prompt: Prompt, batch: int, draw: Draw,
) -> dict[str, Tensor]:  # fmt: skip
    chosen = draw.indices(len(latents), batch)
    flip = draw.numpy.integers(0, 2, batch)
    clean = latents[chosen, flip].float().contiguous(memory_format=torch.channels_last)
    tokens = tokenizer(
        [prompt(int(index), bool(mirror), draw) for index, mirror in zip(chosen, flip, strict=True)],
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    ).input_ids
    noise = draw.normal(*clean.shape)
    # one time per stratum: less variance between steps than independent times
    strata = (torch.arange(batch) + draw.uniform(0, 1, batch)) / batch
    times = (
        (strata * scheduler.config.num_train_timesteps)
        .long()
        .clamp(max=scheduler.config.num_train_timesteps - 1)
    )
    noisy = scheduler.add_noise(clean, noise, times).contiguous(memory_format=torch.channels_last)
    # plain matrix products: the fused kernel's backward pass takes a quarter of a step on a CPU
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        predicted = model(noisy, times, tokens)
    errors = (predicted.float() - scheduler.get_velocity(clean, noise, times)).square().mean(1)
    places = weights_on_latents(emphasis[chosen], flip, errors.shape[-1])
    errors = errors * weights_in_noise(places, scheduler.alphas_cumprod[times])
    return {"v": (weight(scheduler, times) * errors.mean((1, 2))).mean()}


def weights_on_latents(weights: Emphasis, flip: NDArray[np.int64], side: int) -> Tensor:
    """Weights of patches (b rows columns), mirrored where `flip` (b) is 1, on the latent grid (b side side)."""
    turned = np.where(flip[:, None, None] == 1, weights[..., ::-1], weights)
    return F.interpolate(torch.from_numpy(turned)[:, None], (side, side), mode="nearest")[:, 0]


def weights_in_noise(weights: Tensor, clean: Tensor) -> Tensor:
    """Weights (b u v) drawn to 1 as noise hides the image; `clean` (b) is the image's share of the variance.

    Where noise hides everything, a weight on people would change how likely the denoiser finds them and not how well
    it draws them: a model trained so drew people whatever the prompt counted.
    """
    return 1 + clean.square()[:, None, None] * (weights - 1)


def trainable(
    latents: Tensor, emphasis: Emphasis, tokenizer: CLIPTokenizer, prompt: Prompt, budget: Budget, work: Path,
    seed: int, schedule: Schedule = SCHEDULE, batch: int = 24,
) -> nn.Module:  # fmt: skip
    """Train on latents (n 2 4 u v: a image and its mirror image).

    Their errors are weighted by `emphasis` (n rows columns, of the image, not its mirror image) as far as noise lets
    the image be seen; `prompt(n, mirror, draw)` is a text for image n or its mirror image.
    """
    torch.manual_seed(seed)
    model, scheduler = Denoiser(tokenizer, latents.shape[-1]), new_scheduler()
    return train(
        model, lambda draw: _losses(model, scheduler, latents, emphasis, tokenizer, prompt, batch, draw), budget,
        schedule, work / "unet", seed,
    )  # fmt: skip


def load_denoiser(tokenizer: CLIPTokenizer, work: Path, size: int = 32) -> Denoiser:
    """The denoiser with the averaged weights of the last checkpoint, finished or not."""
    model = Denoiser(tokenizer, size)
    state = Training(model, work / "unet", SCHEDULE)
    if not state.resume():
        raise FileNotFoundError(f"{state.checkpoint} does not exist: run the stage 'unet' first")
    state.averaged()
    return model
