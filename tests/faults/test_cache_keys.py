"""What stands between a picture and what is kept of it is part of the key."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from adapt import training_data as _examples
from tadp_da.backbones import stable_diffusion as _stable_diffusion


def other_pixels(pixels: Tensor) -> Tensor:
    """As it might be written one day."""
    return pixels * 2


@pytest.mark.parametrize(
    ("module", "name", "key"),
    [(_stable_diffusion, "imagenet_normalize", "encoder"), (_examples, "_encode", "code")],
)
def test_latents_of_training_depend_on_the_code_that_makes_pixels(
    backbone: Any, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, key: str
) -> None:
    before = _examples._latents_key(backbone)
    monkeypatch.setattr(module, name, other_pixels)
    after = _examples._latents_key(backbone)
    assert {k for k in before if before[k] != after[k]} == {key}
