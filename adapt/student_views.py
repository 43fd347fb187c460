"""How a student sees a target image that its teacher sees as it is: other colours, blurred, partly masked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

Share = Annotated[float, Field(ge=0, le=1)]
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class StudentViews:
    """Changes of an image that leave every object where it is. Call it.

    Attributes:
        brightness, contrast, saturation: factors are drawn from 1 +- this.
        hue: angle in radians, drawn from +- this.
        blur: probability of a Gaussian blur.
        sigma: range of its standard deviation in pixels.
        mask: share of the blocks that are hidden (MIC, Hoyer et al., 2023).
        block: side of a block as a share of the image's longer side.
    """

    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.6
    hue: Annotated[float, Field(ge=0, le=math.pi)] = 0.5
    blur: Share = 0.5
    sigma: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0, le=20)]] = (0.2, 1.2)
    mask: Annotated[float, Field(ge=0, lt=1)] = 0.0
    block: Annotated[float, Field(gt=0, le=1)] = 1 / 16

    @model_validator(mode="after")
    def _ordered(self) -> StudentViews:
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma {self.sigma}: the first must not be above the second")
        return self

    def __call__(self, pixels: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Change images ``(b, 3, h, w)`` in [-1, 1], each by its own generator."""
        with torch.autocast(pixels.device.type, enabled=False):  # colours need the precision
            return self._changed(pixels, generators)

    def _changed(self, pixels: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        draws = torch.stack([torch.rand(6, generator=g) for g in generators])
        blurs = bool((draws[:, 4] < self.blur).any())
        draws = draws.to(pixels.device)
        colours = (self.brightness, self.contrast, self.saturation, self.hue)
        if any(colours):
            pixels = _recolour(pixels, (2 * draws[:, :4] - 1) * draws.new_tensor(colours))
        if blurs:
            low, high = self.sigma
            blurred = _blur(pixels, low + (high - low) * draws[:, 5], math.ceil(3 * high))
            pixels = torch.where((draws[:, 4] < self.blur)[:, None, None, None], blurred, pixels)
        return pixels * self._shown(pixels, generators) if self.mask else pixels

    def _shown(self, pixels: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Mask ``(b, 1, h, w)``: 0 in hidden blocks, which become grey."""
        height, width = pixels.shape[-2:]
        side = max(1, round(self.block * max(height, width)))
        cells = -(-height // side), -(-width // side)
        shown = torch.stack([torch.rand(cells, generator=g) >= self.mask for g in generators])
        large = shown.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None, :height, :width]
        return large.to(pixels)


def _recolour(pixels: Tensor, change: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of images ``(b, 3, h, w)`` by ``(b, 4)``, all 0 for none."""
    (bright, contrast, saturation), angle = (1 + change[:, :3]).unbind(1), change[:, 3]
    to_yiq = pixels.new_tensor(_YIQ, dtype=torch.float32)
    turned = torch.zeros(len(pixels), 3, 3, device=pixels.device)
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = saturation * angle.cos()
    turned[:, 2, 1] = saturation * angle.sin()
    turned[:, 1, 2] = -turned[:, 2, 1]
    matrix = torch.linalg.inv(to_yiq) @ turned @ to_yiq
    unit = (pixels.float() + 1) / 2
    grey = torch.einsum("c,bchw->b", to_yiq[0], unit) / unit[0, 0].numel()
    linear = torch.einsum("bij,bjhw->bihw", (bright * contrast)[:, None, None] * matrix, unit)
    changed = linear + (bright * (1 - contrast) * grey)[:, None, None, None]
    return (2 * changed.clamp(0, 1) - 1).to(pixels)


def _blur(pixels: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur of each image ``(b, 3, h, w)`` by its own ``sigma (b,)``."""
    batch, channels, height, width = pixels.shape
    radius = min(radius, height - 1, width - 1)
    at = torch.arange(-radius, radius + 1, device=pixels.device)
    kernel = torch.softmax(-(at**2) / (2 * sigma[:, None] ** 2), dim=1)
    kernel = kernel.repeat_interleave(channels, 0)[:, None].to(pixels)
    groups = batch * channels
    flat = F.pad(pixels, (radius,) * 4, mode="reflect").view(1, groups, height + 2 * radius, -1)
    flat = F.conv2d(flat, kernel[:, :, :, None], groups=groups)
    return F.conv2d(flat, kernel[:, :, None, :], groups=groups).view(batch, channels, height, width)
