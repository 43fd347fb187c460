"""Mild changes of brightness, contrast, saturation and hue, as in the training of detectors (SSD, Liu et al., 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from adapt.augmentation import distort
from adapt.sources import Source, sources

if TYPE_CHECKING:
    from tadp_da.types import Unlabeled


@sources.add("photometric")
class Photometric(Source):
    """What ``adapt.augment.photometric`` does, as a style: the published recipes' augmentation."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """There are none."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def __call__(
        self, key: str, image: np.ndarray, label: Any, target: Unlabeled | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        return distort(image, rng), label
