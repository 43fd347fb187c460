"""Images as latents, encoded once before training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tadp_da.concept import digest_tensors
from tadp_da.errors import DataError, UsageError
from tadp_da.fingerprints import content_of, image_key
from tadp_da.storage.cache import open_cache

if TYPE_CHECKING:
    from personalize.settings import TrainingSettings
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled

_CHUNK = 8  # images per pass of the encoder; bounds memory at 512 x 512


@dataclass(frozen=True)
class Latents:
    """Scaled latents of the crops and mirror images ("views") of images.

    Attributes:
        mean: ``(images, views, c, u, v)`` on the CPU.
        std: the posterior's standard deviation in the same shape; None if its mode is used.
    """

    mean: Tensor
    std: Tensor | None = None

    def __len__(self) -> int:
        return self.mean.shape[0]

    @property
    def views(self) -> int:
        return self.mean.shape[1]

    @property
    def digest(self) -> str:
        """blake2b of the values."""
        digest = hashlib.blake2b(digest_size=16)
        digest_tensors(digest, {"mean": self.mean} | ({} if self.std is None else {"std": self.std}))
        return digest.hexdigest()


def target_size(chosen: TrainingSettings, backbone: Any) -> tuple[int, int]:
    """(height, width) of the images that are trained on.

    Raises:
        UsageError: when they do not fit the backbone's grid.
    """
    if chosen.resolution is None:
        return backbone.default_resolution, backbone.default_resolution
    side_or_sides, grid = chosen.resolution, max(backbone.spec.channels)
    height, width = (side_or_sides,) * 2 if isinstance(side_or_sides, int) else side_or_sides
    if height % grid or width % grid:
        raise UsageError(
            f"images cannot be resized to {height}x{width}: this backbone works in steps of {grid} pixels",
            where="resolution",
            fix=f"choose multiples of {grid}, e.g. {max(grid, round(height / grid) * grid)}",
        )
    return height, width


def crops(
    image: Image.Image, size: tuple[int, int], views: int = 1, rng: np.random.Generator | None = None
) -> list[Image.Image]:
    """Crops of (height, width) of an image resized to cover it: one at the center, or ``views`` at random places."""
    height, width = size
    image = ImageOps.cover(image, (width, height), Image.Resampling.LANCZOS)
    room = image.height - height, image.width - width
    corners = [(room[0] // 2, room[1] // 2)]
    if rng is not None:
        corners = [(int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))) for _ in range(views)]
    return [image.crop((left, top, left + width, top + height)) for top, left in corners]


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Images of one size as ``(b, 3, h, w)`` in [-1, 1]."""
    array = np.stack([np.asarray(p.convert("RGB"), dtype=np.float32) for p in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def encode(
    backbone: Any, images: Unlabeled, chosen: TrainingSettings, run: Run, note: str = "encoding images"
) -> Latents:
    """Latents of every view of every image.

    Raises:
        DataError: when there is no image.
        UsageError: when posterior samples are asked of an autoencoder that has no posterior.
    """
    if len(images) == 0:
        raise DataError(
            f"no images to learn from ({note})", fix="check the folder and the split of the domain"
        )
    backbone.to(run.torch_device)
    facts = image_key(backbone, crops, to_pixels, _views)
    facts |= {name: getattr(chosen, name) for name in ("crop", "views", "flip", "posterior")}
    facts |= {"size": list(target_size(chosen, backbone)), "chunk": _CHUNK}
    cache, found = open_cache(), []
    known = cache.counts.found
    with run.progress(len(images), note) as advance:
        for index, path in enumerate(images.paths):
            seed = [run.seed, index] if chosen.crop == "random" else None
            about = facts | {"image": content_of(path), "place": seed}
            make = partial(_views, backbone, images, index, chosen, seed)
            found.append(cache.get_or_create("latents", about, make, source=path))
            advance(f"{cache.counts.found - known} from the cache")
    stds = [tensors["std"] for tensors in found if "std" in tensors]
    return Latents(torch.stack([tensors["mean"] for tensors in found]), torch.stack(stds) if stds else None)


def _views(
    backbone: Any, images: Unlabeled, index: int, chosen: TrainingSettings, seed: list[int] | None
) -> dict[str, Tensor]:
    """Mean and, if the posterior is sampled, standard deviation of an image's views; ``seed`` is for random crops."""
    image, size = images[index], target_size(chosen, backbone)
    if chosen.crop == "squash":
        image = image.resize(size[::-1], Image.Resampling.LANCZOS)
    pixels = to_pixels(crops(image, size, chosen.views, np.random.default_rng(seed) if seed else None))
    if chosen.flip:
        pixels = torch.cat([pixels, pixels.flip(-1)])
    means, stds = zip(*(backbone.posterior(p.to(backbone.device)) for p in pixels.split(_CHUNK)), strict=True)
    if chosen.posterior == "mode":
        return {"mean": torch.cat(means).cpu()}
    if stds[0] is None:
        raise UsageError(
            "the image encoder of this backbone has no posterior to sample from",
            where="posterior",
            fix="choose mode",
        )
    return {"mean": torch.cat(means).cpu(), "std": torch.cat(stds).cpu()}
