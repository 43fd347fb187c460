"""The low frequencies of target images (FDA, Yang and Soatto, CVPR 2020)."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from adapt.sources import Source, sources
from tadp_da.images import resize

if TYPE_CHECKING:
    from tadp_da.types import Unlabeled

Share = Annotated[float, Field(ge=0, le=0.5)]
_KEPT = 4096  # spectra of target images in memory; at 512 pixels and beta 0.06, 24 KB each


@sources.add("fourier")
class Fourier(Source):
    """The amplitude of the low frequencies becomes that of a random target image; the phase, and with it every edge,
    stays."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """
        Attributes:
            beta: range from which half the side of the exchanged window is drawn, as a share of the image's shorter
                side. 0 exchanges nothing.
        """

        beta: tuple[Share, Share] = (0.01, 0.06)

        @model_validator(mode="after")
        def _ordered(self) -> Any:
            if self.beta[0] > self.beta[1]:
                raise ValueError(f"beta {self.beta}: the first must not be above the second")
            return self

    reads_target = True

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    @cached_property
    def _amplitude(self) -> Any:
        return lru_cache(_KEPT)(self._read)

    def __call__(
        self, key: str, image: np.ndarray, label: Any, target: Unlabeled | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        assert target is not None  # it reads the target
        size = image.shape[0], image.shape[1]
        other, beta = int(rng.integers(len(target))), rng.uniform(*self.settings.beta)
        rows, columns = _window(size, beta)
        if not len(columns):
            return image, label
        found = self._amplitude(target, other, size)[:, : len(rows), : len(columns)]
        spectrum = np.fft.rfft2(np.moveaxis(image, 2, 0).astype(np.float32))
        inner = spectrum[:, rows[:, None], columns]
        spectrum[:, rows[:, None], columns] = found * np.exp(1j * np.angle(inner))
        shown = np.fft.irfft2(spectrum, s=size).round().clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(shown, 0, 2)), label

    def _read(self, target: Unlabeled, index: int, size: tuple[int, int]) -> np.ndarray:
        """Amplitudes ``(3, r, c)`` of an image in the largest window, in the order of :func:`_window`."""
        image = torch.from_numpy(np.array(target[index])).permute(2, 0, 1)
        rows, columns = _window(size, self.settings.beta[1])
        spectrum = np.fft.rfft2(resize(image, size).numpy().astype(np.float32))
        return np.abs(spectrum[:, rows[:, None], columns]).astype(np.float32)


def _window(size: tuple[int, int], beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a half spectrum below a frequency, nearest to 0 first: a smaller window begins a larger."""
    reach = int(np.ceil(beta * min(size)))  # frequencies 0 to reach - 1
    rows = np.stack([np.arange(reach), -np.arange(reach)], 1).reshape(-1)[1:]
    return rows, np.arange(reach)
