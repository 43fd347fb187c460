"""Concepts of the tiny model, and what a UNet with them predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tadp_da.concept import Concept

WIDTH = 32


def rows(count: int = 1, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def concept_of(backbone: Any, **given: Any) -> Concept:
    facts = {"word": "<dusk>", "domain": "dusk", "backbone": backbone.fingerprint, "method": "test"}
    return Concept(**(facts | given))


def predict(backbone: Any, text: str = "a night street") -> torch.Tensor:
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return backbone.denoise(latents, torch.tensor([100]), backbone.encode_text([text]))
