"""Captions that an earlier run generated are taken from the cache.

The caption file of a run serves that run; the cache serves other folders, other limits and data sets that have grown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from tadp_da.fingerprints import code_of, content_of, libraries
from tadp_da.images import open_image, opened
from tadp_da.storage.cache import open_cache

if TYPE_CHECKING:
    from tadp_da.types import Unlabeled


class CachedCaptioner:
    """A captioner that is only called for images that are not in the cache.

    Args:
        captioner: returns one caption per image, independent of the batch.
    """

    def __init__(self, captioner: Any) -> None:
        self.captioner, self.cache = captioner, open_cache()
        # the model's name is for people: the fingerprint identifies it
        self.facts = {name: value for name, value in captioner.facts.items() if name != "model"} | {
            "decode": "EXIF turned, RGB",
            "code": code_of(open_image, opened, type(captioner).__call__),
            "device": captioner.model.device.type,
            "libraries": libraries(),
        }

    def __call__(self, images: Unlabeled, chosen: Sequence[int]) -> list[str]:
        """Captions of some images of a set, in their order."""
        paths = [images.paths[i] for i in chosen]

        def make(missing: Sequence[int]) -> list[dict[str, torch.Tensor]]:
            made = self.captioner([images[chosen[i]] for i in missing])
            return [{"caption": torch.tensor(list(text.encode()), dtype=torch.uint8)} for text in made]

        facts = [self.facts | {"image": content_of(path)} for path in paths]
        found = self.cache.get_or_create_many("captions", facts, make, sources=paths)
        return [bytes(tensors["caption"].tolist()).decode() for tensors in found]
