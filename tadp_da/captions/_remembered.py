"""Captions that some run has made before are taken from the cache.

A run's own caption file serves that run; the cache serves other folders, other limits and a set that has grown: nothing
else that is made once per picture takes as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from tadp_da.cache import open_cache
from tadp_da.frozen import code_of, content_of, libraries
from tadp_da.types import open_image, opened

if TYPE_CHECKING:
    from tadp_da.types import Unlabeled


class Remembered:
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
        asked = {i: self.facts | {"image": content_of(images.paths[i])} for i in chosen}
        found = {i: self.cache.get("captions", facts) for i, facts in asked.items()}
        captions = {i: _read(entry["caption"]) for i, entry in found.items() if entry is not None}
        missing = [i for i in asked if i not in captions]
        if missing:
            made = self.captioner([images[i] for i in missing])
            for i, caption in zip(missing, made, strict=True):
                captions[i] = caption
                self.cache.put("captions", asked[i], {"caption": _written(caption)}, source=images.paths[i])
        return [captions[i] for i in chosen]


def _written(caption: str) -> torch.Tensor:
    return torch.tensor(list(caption.encode()), dtype=torch.uint8)


def _read(caption: torch.Tensor) -> str:
    return bytes(caption.tolist()).decode()
