"""Augmentation of an image and its label in step. Every random number comes from the generator that is given."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from tadp_da.images import geometry, normalize
from tadp_da.images import resize as resize_image
from tadp_da.tasks.labels.label import Label

Side = Annotated[int, Field(ge=8)]
Factor = Annotated[float, Field(gt=0, le=10)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[Tensor, Label]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Augmentation:
    """What may happen to a training image (TADP, appendix D: crop, flip, photometric distortion).

    Attributes:
        scale: range of the random factor on the working size, drawn evenly in its logarithm; (1, 1) for none.
        crop: height and width of a random crop; smaller images are padded to the right and below with grey that
            nothing is learned from. A crop of the model's longest side is a letterbox. None takes the whole image,
            padded likewise where a batch holds several shapes.
        cat_max_ratio: a crop with one class on more than this share of its labelled pixels is drawn again, up to
            ten times; for masks.
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

    def without_colours(self) -> Augmentation:
        """The same with colours left as they are."""
        return replace(self, photometric=False)

    def __call__(
        self, image: np.ndarray, annotation: Label, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Tensor, Any]:
        """Augment one example.

        Args:
            image: ``uint8 (h, w, 3)``.
            annotation: its label.
            size: working height and width, at which the model reads an image like this one.
            rng: where every random number comes from.

        Returns:
            Pixels ``float32 (3, h, w)`` in [-1, 1] and the tensors of the label.
        """
        low, high = self.scale
        # Nothing is drawn where nothing can vary, so that flips are the same whether latents are kept or not.
        factor = low if low == high else math.exp(rng.uniform(math.log(low), math.log(high)))
        scaled = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
        pair = _resize((_wrap(image), annotation), scaled)
        if self.crop is not None:
            pair = self._crop(_pad(pair, self.crop), self.crop, rng)
        if self.photometric:
            pair = _distort(pair[0], rng), pair[1]
        return _finish(*pair, flipped=rng.random() < self.flip)

    def _crop(self, pair: Pair, crop: tuple[int, int], rng: np.random.Generator) -> Pair:
        height, width = pair[1].size
        top, left, seen = 0, 0, pair[1]
        for _ in range(10 if self.cat_max_ratio < 1 else 1):
            top, left = int(rng.integers(height - crop[0] + 1)), int(rng.integers(width - crop[1] + 1))
            seen = pair[1].crop(top, left, crop)
            if seen.dominance() <= self.cat_max_ratio:
                break
        return geometry().crop(pair[0], top, left, *crop), seen


def finish(image: np.ndarray, annotation: Label, *, flipped: bool) -> tuple[Tensor, Any]:
    """Pixels ``float32 (3, h, w)`` in [-1, 1] and the label's tensors of an image as it is, or mirrored."""
    return _finish(_wrap(image), annotation, flipped=flipped)


def resize(image: np.ndarray, annotation: Label, size: tuple[int, int]) -> tuple[np.ndarray, Label]:
    """Image ``(h, w, 3)`` and label at another height and width."""
    small, label = _resize((_wrap(image), annotation), size)
    return small.permute(1, 2, 0).numpy(), label


def pad(image: np.ndarray, annotation: Label, size: tuple[int, int]) -> tuple[np.ndarray, Label]:
    """Image ``(h, w, 3)`` and label grown to a height and width, to the right and below, with grey that nothing is
    learned from."""
    grown, label = _pad((_wrap(image), annotation), size)
    return grown.permute(1, 2, 0).numpy(), label


def _wrap(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def _finish(image: Tensor, annotation: Label, *, flipped: bool) -> tuple[Tensor, Any]:
    if flipped:
        image, annotation = image.flip(-1), annotation.flip()
    return normalize(image), annotation.tensors()


def _resize(pair: Pair, size: tuple[int, int]) -> Pair:
    if pair[1].size == size:
        return pair
    return resize_image(pair[0], size), pair[1].resize(size)


def _pad(pair: Pair, crop: tuple[int, int]) -> Pair:
    """Grow to at least the crop, to the right and below, in mid-grey."""
    height, width = pair[1].size
    grown = max(height, crop[0]), max(width, crop[1])
    if grown == (height, width):
        return pair
    image = geometry().pad(pair[0], [0, 0, grown[1] - width, grown[0] - height], fill=127.0)
    return image, pair[1].pad(grown)


def _distort(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Each of four changes with probability a half, in the ranges of torchvision's ``RandomPhotometricDistort``."""
    if rng.random() < 0.5:
        image = geometry().adjust_brightness(image, rng.uniform(0.875, 1.125))
    if rng.random() < 0.5:
        image = geometry().adjust_contrast(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = geometry().adjust_saturation(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = geometry().adjust_hue(image, rng.uniform(-0.05, 0.05))
    return image
