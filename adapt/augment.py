"""Augmentation of an image and its mask in step. Every random number comes from the generator that is given."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

Side = Annotated[int, Field(ge=8)]
Factor = Annotated[float, Field(gt=0, le=10)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[tv_tensors.Image, tv_tensors.Mask]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Augmentation:
    """What may happen to a training image (TADP, appendix D: crop, flip, photometric distortion).

    Attributes:
        scale: range of the random factor on the working size, drawn evenly in its logarithm; (1, 1) for none.
        crop: height and width of a random crop, None for the whole image; smaller images are padded with ignored
            pixels.
        cat_max_ratio: a crop with one class on more than this share of its labelled pixels is drawn again, up to
            ten times.
        flip: probability of a horizontal flip.
        photometric: random brightness, contrast, saturation and hue.
    """

    scale: tuple[Factor, Factor] = (1.0, 1.0)
    crop: tuple[Side, Side] | None = None
    cat_max_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    flip: Share = 0.5
    photometric: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {self.scale}: the first factor must not be above the second")
        return self

    @property
    def only_flips(self) -> bool:
        """Whether an image can only come as itself or as its mirror image, so that two latents say it all."""
        return self.scale == (1.0, 1.0) and self.crop is None and not self.photometric

    def __call__(
        self,
        image: np.ndarray,
        mask: np.ndarray,
        size: tuple[int, int],
        ignore: int,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Augment one example.

        Args:
            image: ``uint8 (h, w, 3)``.
            mask: class ids ``uint8 (h, w)``.
            size: working height and width, at which the model reads an image like this one.
            ignore: id that pads the mask.
            rng: where every random number comes from.

        Returns:
            Pixels ``float32 (3, h, w)`` in [-1, 1] and ids ``int64 (h, w)`` of the same size.
        """
        pair = (
            tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
            tv_tensors.Mask(torch.from_numpy(mask)),
        )
        low, high = self.scale
        # Nothing is drawn where nothing can vary, so that flips are the same whether latents are kept or not.
        factor = low if low == high else math.exp(rng.uniform(math.log(low), math.log(high)))
        pair = _resize(pair, (max(1, round(size[0] * factor)), max(1, round(size[1] * factor))))
        if self.crop is not None:
            pair = self._crop(_pad(pair, self.crop, ignore), self.crop, ignore, rng)
        if self.photometric:
            pair = _distort(pair[0], rng), pair[1]
        return _finish(*pair, flipped=rng.random() < self.flip)

    def _crop(self, pair: Pair, crop: tuple[int, int], ignore: int, rng: np.random.Generator) -> Pair:
        height, width = pair[1].shape[-2:]
        box: Any = None
        for _ in range(10 if self.cat_max_ratio < 1 else 1):
            top, left = int(rng.integers(height - crop[0] + 1)), int(rng.integers(width - crop[1] + 1))
            box = (top, left, *crop)
            seen = tvf.crop(pair[1], *box).reshape(-1)
            counts = torch.bincount(seen[seen != ignore].long())
            if counts.sum() > 0 and counts.max() <= self.cat_max_ratio * counts.sum():
                break
        return tvf.crop(pair[0], *box), tvf.crop(pair[1], *box)


def finish(image: np.ndarray, mask: np.ndarray, *, flipped: bool) -> tuple[Tensor, Tensor]:
    """Pixels ``float32 (3, h, w)`` in [-1, 1] and ids ``int64 (h, w)`` of an image as it is, or mirrored."""
    return _finish(*_wrap(image, mask), flipped=flipped)


def resize(image: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Image ``(h, w, 3)`` and mask ``(h, w)`` at another height and width: smooth the one, pick ids in the other."""
    small, ids = _resize(_wrap(image, mask), size)
    return small.permute(1, 2, 0).numpy(), ids.numpy()


def _wrap(image: np.ndarray, mask: np.ndarray) -> Pair:
    return tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)), tv_tensors.Mask(torch.from_numpy(mask))


def _finish(image: Tensor, mask: Tensor, *, flipped: bool) -> tuple[Tensor, Tensor]:
    if flipped:
        image, mask = image.flip(-1), mask.flip(-1)
    pixels = image.as_subclass(Tensor).to(torch.float32) / 127.5 - 1
    return pixels, mask.as_subclass(Tensor).to(torch.int64)


def _resize(pair: Pair, size: tuple[int, int]) -> Pair:
    if tuple(pair[1].shape[-2:]) == size:
        return pair
    image = tvf.resize(pair[0], list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)
    return image, tvf.resize(pair[1], list(size), interpolation=InterpolationMode.NEAREST_EXACT)


def _pad(pair: Pair, crop: tuple[int, int], ignore: int) -> Pair:
    """Grow to at least the crop, to the right and below: mid-grey pixels, ignored ids."""
    height, width = pair[1].shape[-2:]
    missing = [0, 0, max(0, crop[1] - width), max(0, crop[0] - height)]
    if not any(missing):
        return pair
    return tvf.pad(pair[0], missing, fill=127.0), tvf.pad(pair[1], missing, fill=float(ignore))


def _distort(image: tv_tensors.Image, rng: np.random.Generator) -> tv_tensors.Image:
    """Each of four changes with probability a half, in the ranges of torchvision's ``RandomPhotometricDistort``."""
    if rng.random() < 0.5:
        image = tvf.adjust_brightness(image, rng.uniform(0.875, 1.125))
    if rng.random() < 0.5:
        image = tvf.adjust_contrast(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = tvf.adjust_saturation(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = tvf.adjust_hue(image, rng.uniform(-0.05, 0.05))
    return image
