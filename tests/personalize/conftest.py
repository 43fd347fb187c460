"""A toy domain, and what each method learned of it: trained once, looked at by many tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from personalize.methods.dreambooth import DreamBooth
from personalize.methods.textual_inversion import TextualInversion
from personalize.settings import Previews
from tadp_da.concept import Concept
from tadp_da.run import Run
from tadp_da.types import Unlabeled

SILENT = Previews(images=0)
METHODS = {
    "rows": TextualInversion(
        word="<dusk>",
        like="night",
        vectors=2,
        learnable_property="scene",
        steps=8,
        learning_rate=0.05,
        weight_decay=0.1,
        batch=2,
        accumulate=1,
        previews=Previews(images=2, steps=1),
    ),
    "full": DreamBooth(steps=5, learning_rate=1e-3, batch=2, resolution=32, previews=SILENT),
    "lora": DreamBooth(
        steps=5, learning_rate=1e-2, batch=2, mode="lora", rank=2, resolution=32, previews=SILENT
    ),
}


@dataclass(frozen=True)
class Learned:
    """A finished personalization and the backbone that it was made on."""

    settings: Any
    concept: Concept
    backbone: Any
    run: Run
    rows_before: torch.Tensor


@pytest.fixture(scope="session")
def fresh(tiny_pipeline: Path) -> Callable[[], Any]:
    """Loads the tiny backbone anew at every call."""
    from tadp_da.backbones.stable_diffusion import StableDiffusion

    return lambda: StableDiffusion.from_pretrained(str(tiny_pipeline))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Unlabeled:
    """Four wide pictures: a bright box that wanders over a dark ground."""
    root = tmp_path_factory.mktemp("dusk")
    for i in range(4):
        picture = np.full((72, 96, 3), (10, 12, 40 + 5 * i), np.uint8)
        picture[20:50, 10 + 12 * i : 40 + 12 * i] = (200, 150, 20)
        Image.fromarray(picture).save(root / f"{i}.png")
    return Unlabeled(domain="dusk", root=root, paths=tuple(sorted(root.glob("*.png"))))


@pytest.fixture(scope="session")
def learned(fresh: Callable[[], Any], images: Unlabeled, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``learned("rows" | "full" | "lora")``: trained at the first call."""
    made: dict[str, Learned] = {}

    def get(name: str) -> Learned:
        if name not in made:
            backbone = fresh()
            before = backbone.text_encoder.get_input_embeddings().weight.detach().clone()
            run = Run(folder=tmp_path_factory.mktemp(name), device="cpu", quiet=True)
            concept = METHODS[name](backbone, images, run)
            made[name] = Learned(METHODS[name], concept, backbone, run, before)
        return made[name]

    return get


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    return request.param
