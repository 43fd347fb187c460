"""Histograms of target images."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from adapt.sources import Source, sources

if TYPE_CHECKING:
    from tadp_da.types import Unlabeled


@sources.add("histogram")
class Histogram(Source):
    """Each colour channel gets the histogram of that of a random target image."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """There are none."""

    reads_target = True

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    @cached_property
    def _shares(self) -> Any:
        return lru_cache(None)(lambda target, index: _cumulative(np.array(target[index])))

    def __call__(
        self, key: str, image: np.ndarray, label: Any, target: Unlabeled | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        assert target is not None  # it reads the target
        wanted, own = self._shares(target, int(rng.integers(len(target)))), _cumulative(image)
        channels = []
        for channel in range(3):
            table = np.interp(own[channel], wanted[channel], np.arange(256)).round().astype(np.uint8)
            channels.append(table[image[..., channel]])
        return np.stack(channels, axis=-1), label


def _cumulative(image: np.ndarray) -> np.ndarray:
    """Share of pixels below each value, half of those that have it counted: ``(3, 256)``."""
    counts = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])
    shares: np.ndarray = (counts.cumsum(1) - counts / 2) / (image.shape[0] * image.shape[1])
    return shares
