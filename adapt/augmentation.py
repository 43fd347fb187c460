"""Augmentation of an image together with its label. All randomness comes from the generator that is given."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from tadp_da.errors import UsageError
from tadp_da.images import geometry, normalize, resize_part
from tadp_da.images import resize as resize_image
from tadp_da.settings import Effect
from tadp_da.tasks.labels.label import Label

Side = Annotated[int, Field(ge=8)]
Factor = Annotated[float, Field(gt=0, le=10)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[np.ndarray, Label]
"""An image ``uint8 (h, w, 3)`` and its label."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Augmentation:
    """Augmentation of training images (TADP, appendix D: crop, flip, photometric distortion).

    Attributes:
        scale: range of the random factor on the working size; (1, 1) for none.
        scale_draw: ``"log-uniform"`` makes images half as large as often as twice as large; ``"uniform"`` over (0.5, 2)
            enlarges twice as often as it shrinks, as the paper's code does (mmsegmentation's ``ratio_range``).
        crop: height and width of a random crop; smaller images are padded to the right and below with ignored grey. A
            crop of the model's longest side is a letterbox. None takes the whole image, padded in the same way where a
            batch holds several shapes.
        cat_max_ratio: a crop with one class on more than this share of its labelled pixels is drawn again, up to ten
            times; for masks.
        flip: probability of a horizontal flip.
        photometric: random brightness, contrast, saturation and hue.
        cut_depth: probability that a strip of the image, over its whole height and at a random place horizontally,
            shows the depth as grey instead (CutDepth, Ishii and Yamashita, 2021; "vertical CutDepth" of GLPDepth, Kim
            et al., 2022, a quarter of the images in the paper's code); for depth.
    """

    scale: tuple[Factor, Factor] = (1.0, 1.0)
    scale_draw: Annotated[Literal["log-uniform", "uniform"], Effect.ADDED] = "log-uniform"
    crop: tuple[Side, Side] | None = None
    cat_max_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    flip: Share = 0.5
    photometric: bool = False
    cut_depth: Share = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {self.scale}: the first factor must not be above the second")
        return self

    @property
    def only_flips(self) -> bool:
        """Whether an image only comes as itself or as its mirror image, so that two latents are enough."""
        return self.scale == (1.0, 1.0) and self.crop is None and not (self.photometric or self.cut_depth)

    def without_colours(self) -> Augmentation:
        """The same without photometric distortion, and without what needs labels."""
        return replace(self, photometric=False, cut_depth=0.0)

    def __call__(
        self, image: np.ndarray, annotation: Label, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Tensor, Any]:
        """Augment one example.

        Args:
            image: ``uint8 (h, w, 3)``.
            annotation: its label.
            size: working height and width, at which the model reads an image like this one.
            rng: the source of randomness.

        Returns:
            Pixels ``float32 (3, h, w)`` in [-1, 1] and the tensors of the label.
        """
        factor = self._factor(rng)
        size = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
        if self.cut_depth and rng.random() < self.cut_depth:
            image, annotation = resize(image, annotation, size)
            image = cut_depth(image, annotation, rng)
        if self.crop is not None:
            image, annotation = self._crop(image, annotation, size, self.crop, rng)
        else:
            image, annotation = resize(image, annotation, size)
        if self.photometric:
            image = distort(image, rng)
        return finish(image, annotation, flipped=rng.random() < self.flip)

    def _factor(self, rng: np.random.Generator) -> float:
        low, high = self.scale
        if low == high:  # nothing is drawn, so that flips are the same with and without cached latents
            return low
        if self.scale_draw == "uniform":
            return rng.uniform(low, high)
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    def _crop(
        self,
        image: np.ndarray,
        annotation: Label,
        size: tuple[int, int],
        crop: tuple[int, int],
        rng: np.random.Generator,
    ) -> Pair:
        """A crop of image and label at ``size``; only what is in the crop is resized."""
        height, width = max(size[0], crop[0]), max(size[1], crop[1])
        for _ in range(10 if self.cat_max_ratio < 1 else 1):
            top, left = int(rng.integers(height - crop[0] + 1)), int(rng.integers(width - crop[1] + 1))
            part = annotation.resized_crop(size, top, left, crop)
            if part.dominance() <= self.cat_max_ratio:
                break
        image = resize_part(
            image, size, (top, left, min(top + crop[0], size[0]), min(left + crop[1], size[1]))
        )
        return pad_image(image, crop), part


def finish(image: np.ndarray, annotation: Label, *, flipped: bool) -> tuple[Tensor, Any]:
    """Pixels ``float32 (3, h, w)`` in [-1, 1] and the label's tensors of an image, or of its mirror image."""
    pixels = _tensor(image)
    if flipped:
        pixels, annotation = pixels.flip(-1), annotation.flip()
    return normalize(pixels), annotation.tensors()


def resize(image: np.ndarray, annotation: Label, size: tuple[int, int]) -> Pair:
    """Image and label at another height and width."""
    if annotation.size == size:
        return image, annotation
    return resize_image(_tensor(image), size).permute(1, 2, 0).numpy(), annotation.resize(size)


def pad(image: np.ndarray, annotation: Label, size: tuple[int, int]) -> Pair:
    """Image and label grown to at least this height and width, to the right and below, with ignored grey."""
    height, width = annotation.size
    grown = max(height, size[0]), max(width, size[1])
    return (
        (image, annotation) if grown == (height, width) else (pad_image(image, grown), annotation.pad(grown))
    )


def pad_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image grown to this height and width, to the right and below, with grey."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    return np.pad(image, ((0, size[0] - height), (0, size[1] - width), (0, 0)), constant_values=127)


def cut_depth(image: np.ndarray, annotation: Label, rng: np.random.Generator) -> np.ndarray:
    """An image of which a strip shows its label: the left end is uniform over the width, the strip uniform over up to
    three quarters of what is to its right.

    Raises:
        UsageError: when the label cannot be shown as grey.
    """
    grey = annotation.painted()
    if grey is None:
        raise UsageError(
            "cut_depth shows depth in the image, and these labels have none",
            where="adapt.augment.cut_depth",
            fix="set it to 0",
        )
    width = image.shape[1]
    left = int(rng.random() * width)
    right = left + max(1, int((width - left) * rng.random() * 0.75))
    image = image.copy()
    image[:, left:right] = grey[:, left:right, None]
    return image


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each of four changes with probability a half, in the ranges of torchvision's ``RandomPhotometricDistort``."""
    from PIL import Image

    transforms = geometry()
    changed = Image.fromarray(
        image
    )  # Pillow changes the hue of 8-bit values, several times as fast as of floats
    for change, low, high in (
        (transforms.adjust_brightness, 0.875, 1.125),
        (transforms.adjust_contrast, 0.5, 1.5),
        (transforms.adjust_saturation, 0.5, 1.5),
        (transforms.adjust_hue, -0.05, 0.05),
    ):
        if rng.random() < 0.5:
            changed = change(changed, rng.uniform(low, high))
    return np.array(changed)
