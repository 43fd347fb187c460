"""Writing a backbone as a diffusers pipeline folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from tadp_da.storage.pretrained import quiet


def save_parts(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write the five parts of ``model`` with their index; the model itself keeps its precision.

    Args:
        model: a backbone with ``unet``, ``vae``, ``text_encoder``, ``tokenizer`` and ``scheduler``.
        folder: ``StableDiffusionPipeline.from_pretrained`` opens it.
        dtype: of the weights on disk.
    """
    from diffusers import StableDiffusionPipeline

    def stored(part: Any) -> Any:
        return part if part.dtype == dtype else copy.deepcopy(part).to(dtype)

    with quiet():
        StableDiffusionPipeline(
            unet=stored(model.unet),
            vae=stored(model.vae),
            text_encoder=stored(model.text_encoder),
            tokenizer=model.tokenizer,
            scheduler=model.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder, safe_serialization=True)
