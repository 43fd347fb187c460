"""Sentences that a new word is learned in; each holds ``{word}`` once, and reads well with one token or several.

Textual Inversion (Gal et al. 2022, section 4) uses neutral sentences: *of* the word for an object, *in the style of* it
for a style. ``"style"`` are those that TADP's code learned with, the published ones, two of them twice. They call every
image a painting, which is wrong for photographs at night; those of ``"scene"`` do not. ``"captioned"`` describes what
an image shows, so that the word need not.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Literal

Property = Literal["style", "object", "scene", "captioned"]

_VIEWS = ("close-up", "cropped", "bright", "dark", "clear", "blurry", "good", "plain", "wide")
_STYLED = ("a painting", "the painting", "a picture", "a rendering", "a rendition")
_PAINTED = ("cropped", "clean", "dirty", "dark", "cool", "close-up", "bright", "good", "nice", "small")
_OBJECTS = ("photo of a", "photo of the", "photo of my", "photo of one", "picture of a")
_SCENES = ("photo", "picture", "image", "scene", "view", "photo of a scene", "picture of a scene")
_PLACES = ("photo of a place", "view of a place", "style photo", "style picture")
_CAPTIONED = ("photo", "picture", "image", "view", "style photo", "style picture")

TEMPLATES: dict[Property, tuple[str, ...]] = {
    "style": (
        *(f"{thing} in the style of {{word}}" for thing in _STYLED),
        *(
            f"a {look} painting in the style of {{word}}"
            for look in (*_PAINTED, "weird", "large", "cropped", "close-up")
        ),
    ),
    "object": (
        *(f"a {thing} {{word}}" for thing in _OBJECTS),
        "an image of a {word}",
        *(f"a {thing} {{word}}" for thing in ("rendering of a", "small", "large")),
        *(f"a {view} photo of a {{word}}" for view in _VIEWS),
    ),
    "scene": (
        *(f"a {{word}} {thing}" for thing in _SCENES),
        "a photo of a {word} scene",
        "a picture of a {word} scene",
        *(f"a {{word}} {thing}" for thing in _PLACES),
        "a picture in {word} style",
        "an image in {word} style",
    ),
    "captioned": (
        *(f"a {{word}} {thing} of {{caption}}" for thing in _CAPTIONED),
        "{caption} in {word} style",
        "{caption}, {word} style",
    ),
}


def fields_of(template: str) -> set[str]:
    """Names of the fields in a template.

    Raises:
        ValueError: when braces are not paired.
    """
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def check(templates: Sequence[str]) -> None:
    """Refuse templates without the word, or with unknown fields.

    Raises:
        ValueError: naming the template; pydantic turns it into a message about the setting.
    """
    if not templates:
        raise ValueError("no template is left; give at least one that holds {word}")
    for template in templates:
        fields = fields_of(template)
        if "word" not in fields:
            raise ValueError(
                f"template {template!r} does not hold {{word}}; put it where the new word belongs"
            )
        if unknown := fields - {"word", "caption"}:
            raise ValueError(
                f"template {template!r} holds unknown fields {sorted(unknown)}; use {{word}} and {{caption}}"
            )


def wants_caption(templates: Sequence[str]) -> bool:
    """Whether a template holds ``{caption}``."""
    return any("caption" in fields_of(t) for t in templates)
