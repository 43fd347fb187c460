"""Captions that some run has made before are taken from the cache.

A run's own caption file serves that run; the cache serves other folders, other limits and a set that has grown: nothing
else that is made once per picture takes as long.
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
    """A captioner that is asked only for what nobody has asked it before.

    Args:
        captioner: writes one caption per image, the same in every batch.
    """

    def __init__(self, captioner: Any) -> None:
        self.captioner, self.cache = captioner, open_cache()
        # the model's name is for people: its fingerprint tells it apart
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
            return [{"caption": _written(caption)} for caption in made]

        asked = [self.facts | {"image": content_of(path)} for path in paths]
        return [
            _read(found["caption"])
            for found in self.cache.get_or_create_many("captions", asked, make, sources=paths)
        ]


def _written(caption: str) -> torch.Tensor:
    return torch.tensor(list(caption.encode()), dtype=torch.uint8)


def _read(caption: torch.Tensor) -> str:
    return bytes(caption.tolist()).decode()
