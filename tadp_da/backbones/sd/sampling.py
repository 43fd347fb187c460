"""Drawing images with diffusers' own pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tadp_da.errors import UsageError

_AT_ONCE = 8


def sample(
    model: Any,
    prompts: Sequence[str],
    *,
    seed: int,
    steps: int,
    guidance: float,
    size: tuple[int, int] | None,
) -> list[Any]:
    """One PIL image per prompt; see :meth:`tadp_da.backbones.stable_diffusion.StableDiffusion.sample`.

    Raises:
        UsageError: for a size off the grid.
    """
    from diffusers import StableDiffusionPipeline

    height, width = size or (model.default_resolution, model.default_resolution)
    if height % model.grid or width % model.grid:
        raise UsageError(
            f"cannot draw at {height}x{width}",
            where="size",
            fix=f"choose height and width as multiples of {model.grid}",
        )
    pipeline = StableDiffusionPipeline(
        unet=model.unet,
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        scheduler=type(model.scheduler).from_config(model.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    images: list[Any] = []
    for start in range(0, len(prompts), _AT_ONCE):
        part = prompts[start : start + _AT_ONCE]
        with torch.no_grad():
            # Encoded here, because the pipeline would cut long prompts with a warning only.
            text, empty = model.encode_text(part), model.encode_text([""] * len(part))
        images += pipeline(
            prompt_embeds=text,
            negative_prompt_embeds=empty,
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[_generator(seed, start + i) for i in range(len(part))],
        ).images
    return images


def _generator(seed: int, index: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, index]).generate_state(1, dtype=np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
