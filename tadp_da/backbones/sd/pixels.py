"""The range of pixels that the autoencoder is given."""

from __future__ import annotations

from torch import Tensor


def as_for_imagenet(pixels: Tensor) -> Tensor:
    """Pixels ``(b, 3, h, w)`` in [-1, 1] with ImageNet's mean taken off and divided by its deviation.

    The published code of TADP feeds these to Stable Diffusion's autoencoder, which was trained on [-1, 1]; here they
    serve to do it again.
    """
    mean, deviation = (
        pixels.new_tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return ((pixels + 1) / 2 - mean) / deviation
