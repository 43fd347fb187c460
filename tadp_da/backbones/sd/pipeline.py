"""The pipeline of diffusers that a backbone's parts make: drawing images with it, and writing its folder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tadp_da.errors import UsageError
from tadp_da.storage.pretrained import quiet

_AT_ONCE = 8


def pipeline(model: Any, kind: str = "StableDiffusionPipeline", **parts: Any) -> Any:
    """A pipeline of the five parts of ``model``, but for those given."""
    import diffusers

    names = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return getattr(diffusers, kind)(**{n: getattr(model, n) for n in names} | parts | nothing)


def save_parts(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a pipeline folder with weights of type ``dtype``; the model itself keeps its precision."""
    networks = {name: getattr(model, name) for name in ("unet", "vae", "text_encoder")}
    stored = {n: p if p.dtype == dtype else copy.deepcopy(p).to(dtype) for n, p in networks.items()}
    with quiet():
        pipeline(model, **stored).save_pretrained(folder, safe_serialization=True)


def sample(
    model: Any,
    prompts: Sequence[str],
    *,
    seed: int,
    size: tuple[int, int] | None = None,
    start: Tensor | None = None,
    **how: Any,
) -> list[Any]:
    """One PIL image per prompt; see :meth:`tadp_da.backbones.Backbone.sample`.

    Raises:
        UsageError: for a size off the grid.
    """
    height, width = size or (model.default_resolution, model.default_resolution)
    if height % model.grid or width % model.grid:
        raise UsageError(
            f"cannot draw at {height}x{width}",
            where="size",
            fix=f"choose height and width as multiples of {model.grid}",
        )
    kind = "StableDiffusionPipeline" if start is None else "StableDiffusionImg2ImgPipeline"
    parts = {"scheduler": type(model.scheduler).from_config(model.scheduler.config)}
    if model.vae.dtype != model.unet.dtype:  # the pipelines know one type only
        parts["vae"] = copy.deepcopy(model.vae).float()
    draw = pipeline(model, kind, **parts)
    draw.set_progress_bar_config(disable=True)
    images: list[Any] = []
    for first in range(0, len(prompts), _AT_ONCE):
        part = prompts[first : first + _AT_ONCE]
        with torch.no_grad():
            # Encoded here, because the pipeline would cut long prompts with a warning only.
            text, empty = model.encode_text(part), model.encode_text([""] * len(part))
        begin = (
            {"height": height, "width": width}
            if start is None
            else {"image": start[first : first + len(part)]}
        )
        images += draw(
            prompt_embeds=text,
            negative_prompt_embeds=empty,
            generator=[_generator(seed, first + i) for i in range(len(part))],
            **begin,
            **how,
        ).images
    return images


def _generator(seed: int, index: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, index]).generate_state(1, dtype=np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
