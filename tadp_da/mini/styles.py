"""The looks of the mini world: how one scene is rendered as day, night, comic, ...; geometry never changes.

Nine looks are seen in pretraining, each as a range (random within the look). Five are held out as targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tadp_da.mini import _looks_art as art
from tadp_da.mini import _looks_light as light
from tadp_da.mini._grammar import sentences
from tadp_da.mini.world import Scene

Renderer = Callable[[Scene, np.random.Generator], NDArray[np.uint8]]


@dataclass(frozen=True)
class Look:
    """One look: its caption templates contain ``{caption}``; ``held_out`` looks are never seen in pretraining.

    medium: what the image is (photo, painting, ...). style: the word for the look in captions.
    """

    name: str
    held_out: bool
    medium: str
    style: str
    templates: tuple[str, ...]
    render: Renderer


def _look(
    name: str, medium: str, style: str, render: Renderer, *templates: str, held_out: bool = False
) -> Look:
    return Look(name, held_out, medium, style, templates, render)


_NIGHT = (
    "a dark night photo of {caption}",
    "{caption} at night",
    "a photo of {caption} at night",
    "a night photo of {caption}",
)
_WATERCOLOR = (
    "a watercolor painting of {caption}",
    "{caption} in watercolor",
    "a watercolor style painting of {caption}",
)
_COMIC = ("a comic style painting of {caption}", "a comic drawing of {caption}", "{caption} in a comic")

LOOKS: dict[str, Look] = {
    look.name: look
    for look in (
        _look("day", "photo", "day", light.day, "a photo of {caption}", "a dashcam photo of {caption}", "{caption}",
              "a sunny photo of {caption}", "a photo of {caption} by day"),
        _look("night", "photo", "dark night", light.night, *_NIGHT),
        _look("fog", "photo", "foggy", light.fog, "a foggy photo of {caption}", "{caption} in the fog",
              "a photo of {caption} in fog"),
        _look("rain", "photo", "rainy", light.rain, "a rainy photo of {caption}", "{caption} in the rain",
              "a photo of {caption} on a rainy day"),
        _look("snow", "photo", "snowy", light.snow, "a snowy photo of {caption}", "{caption} in the snow",
              "a photo of {caption} in winter"),
        _look("sunset", "photo", "sunset", light.sunset, "a sunset photo of {caption}", "{caption} at sunset",
              "a photo of {caption} in the evening"),
        _look("comic", "painting", "comic", art.comic, *_COMIC),
        _look("watercolor", "painting", "watercolor", art.watercolor, *_WATERCOLOR),
        _look("sketch", "drawing", "sketch", art.sketch, "a pencil sketch of {caption}", "a sketch of {caption}",
              "a pencil drawing of {caption}"),
        _look("city-night", "photo", "dark night", light.city_night, *_NIGHT, held_out=True),
        _look("aquarelle", "painting", "watercolor", art.aquarelle, *_WATERCOLOR, held_out=True),
        _look("manga", "painting", "comic", art.manga, *_COMIC, held_out=True),
        _look("thermal", "image", "thermal", art.thermal, "a thermal image of {caption}",
              "{caption} in a thermal image", held_out=True),
        _look("misty-night", "photo", "dark night", light.misty_night, *_NIGHT, held_out=True),
    )
}  # fmt: skip
"""All looks by name, pretraining looks first."""


def render(scene: Scene, look: str, seed: int, index: int) -> NDArray[np.uint8]:
    """The scene in this look, uint8 (h, w, 3); the same for the same (scene, look, seed, index)."""
    if look not in LOOKS:
        raise KeyError(f"no look named {look!r}; the looks are {', '.join(LOOKS)}")
    salt = 101 + list(LOOKS).index(look)
    return LOOKS[look].render(scene, np.random.default_rng([seed, index, salt]))


def corpus() -> Iterator[str]:
    """Sentences with every word of every caption and template, held-out looks included, to train a tokenizer."""
    yield from sentences()
    for look in LOOKS.values():
        for template in look.templates:
            yield template.format(caption="a street with two cars, a person and three trees")
        yield f"a {look.style} {look.medium} of a street"
