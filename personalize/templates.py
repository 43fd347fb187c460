"""Sentences that a new word is learned in.

Textual Inversion (Gal et al. 2022, section 4) puts the word into neutral sentences around the training
images: for an object sentences *of* the word, for a style sentences *in the style of* the word. The paper's
style sentences call every picture a painting, which is wrong for photographs at night; ``SCENE`` says
neither painting nor style. ``CAPTIONED`` names what an image shows beside the word, so that the word need
not carry it.

Every sentence holds ``{word}`` once and reads well with one token or several in its place.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Literal

Property = Literal["style", "object", "scene", "captioned"]

_VIEWS = ("close-up", "cropped", "bright", "dark", "clear", "blurry", "good", "plain", "wide")

STYLE: tuple[str, ...] = (
    "a painting in the style of {word}",
    "a drawing in the style of {word}",
    "a picture in the style of {word}",
    "an image in the style of {word}",
    "a rendering in the style of {word}",
    "a scene in the style of {word}",
    "the whole picture in the style of {word}",
    "a work of art in the style of {word}",
    *(f"a {view} painting in the style of {{word}}" for view in _VIEWS),
)

OBJECT: tuple[str, ...] = (
    "a photo of a {word}",
    "a photo of the {word}",
    "a photo of my {word}",
    "a photo of one {word}",
    "a picture of a {word}",
    "an image of a {word}",
    "a rendering of a {word}",
    "a small {word}",
    "a large {word}",
    *(f"a {view} photo of a {{word}}" for view in _VIEWS),
)

SCENE: tuple[str, ...] = (
    "a {word} photo",
    "a {word} picture",
    "a {word} image",
    "a {word} scene",
    "a {word} view",
    "a {word} photo of a scene",
    "a {word} picture of a scene",
    "a photo of a {word} scene",
    "a picture of a {word} scene",
    "a {word} photo of a place",
    "a {word} view of a place",
    "a {word} style photo",
    "a {word} style picture",
    "a picture in {word} style",
    "an image in {word} style",
)

CAPTIONED: tuple[str, ...] = (
    "a {word} photo of {caption}",
    "a {word} picture of {caption}",
    "a {word} image of {caption}",
    "a {word} view of {caption}",
    "a {word} style photo of {caption}",
    "a {word} style picture of {caption}",
    "{caption} in {word} style",
    "{caption}, {word} style",
)

TEMPLATES: dict[Property, tuple[str, ...]] = {
    "style": STYLE,
    "object": OBJECT,
    "scene": SCENE,
    "captioned": CAPTIONED,
}


def fields_of(template: str) -> set[str]:
    """Names of the fields in a template.

    Raises:
        ValueError: when braces are not paired.
    """
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def check(templates: Sequence[str]) -> None:
    """Refuse templates that a word cannot be learned in.

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
    """Whether a template speaks of the image's own content."""
    return any("caption" in fields_of(t) for t in templates)
