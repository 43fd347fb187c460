"""What stands between a picture and what is kept of it is part of the key."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from adapt import training_data as _examples


def other_pixels(pixels: Tensor) -> Tensor:
    """As it might be written one day."""
    return pixels * 2


@pytest.mark.parametrize("name", ["as_for_imagenet", "_encode"])
def test_latents_of_training_depend_on_the_code_that_makes_pixels(
    backbone: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = _examples.SourceDataset._facts(backbone)
    monkeypatch.setattr(_examples, name, other_pixels)
    after = _examples.SourceDataset._facts(backbone)
    assert {key for key in before if before[key] != after[key]} == {"code"}
