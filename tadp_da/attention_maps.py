"""Cross-attention of words as images: for the playground, for ``predict --attention``, and kept for reports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from tadp_da.class_names import spoken
from tadp_da.images import output_folder
from tadp_da.perception_model import PerceptionModel
from tadp_da.storage.files import write_json
from tadp_da.visualize import heat_overlay

FOLDER = "attention"
"""Of kept maps, beside the images that they belong to."""
IMAGES = 3
"""Of each row whose maps are kept."""
_INDEX = "maps.json"
_SIDE, _CLASSES = 320, 2  # pixels of a kept map's longest side; classes of an image whose maps are kept


class WordMap(NamedTuple):
    """The attention map of a word, drawn over its image, and its lowest and highest value: shares, in [0, 1], of a
    place's attention."""

    overlay: Image.Image
    low: float
    high: float


class KeptMap(NamedTuple):
    """A map of :func:`save_maps`: the image's key, its prompt, the word, where the overlay is, and the map's range."""

    key: str
    prompt: str
    word: str
    path: Path
    low: float
    high: float


def words_of(model: PerceptionModel, prompt: str) -> list[str]:
    """Words of a prompt that have an attention map; none where the backbone has no cross-attention."""
    found = dict.fromkeys(re.findall(r"[^\s,.;:!?\"'()]+", prompt))
    return [w for w in found if model.says(prompt, w)] if model.backbone.spec.attention else []


def telling_words(model: PerceptionModel, prompt: str) -> list[str]:
    """Words of a prompt that say what the domain is (the concept's word, the style), and its first class names."""
    if not model.backbone.spec.attention:
        return []
    style = model.rewrite.target_description.style
    styles = [style] if style and model.says(prompt, style) else style.split()
    domain = [w for w in (model.rewrite.word or "", *styles) if w and model.says(prompt, w)]
    names = [form for name in map(spoken, model.labels.classes) for form in (name, f"{name}s")]
    classes = sorted((n for n in names if model.says(prompt, n)), key=prompt.find)
    return list(dict.fromkeys(domain + classes[:_CLASSES]))


def draw_maps(
    model: PerceptionModel, image: Image.Image, prompt: str, words: Sequence[str]
) -> dict[str, WordMap]:
    """Maps of words of a prompt, over an image of any shape; one forward pass.

    Raises:
        UsageError: when a word is not in the prompt, or the backbone gives no maps.
    """
    found = model.attention(image, list(words), prompt) if words else {}
    return {
        word: WordMap(heat_overlay(image, heat), float(heat.min()), float(heat.max()))
        for word, heat in found.items()
    }


def save_maps(model: PerceptionModel, images: Iterable[tuple[str, Image.Image, str]], folder: Path) -> None:
    """Write maps of the telling words of each image's prompt into a folder, where :func:`read_maps` finds them; nothing
    where there is no such word.

    Args:
        model: on its device.
        images: key, image and prompt of each; one forward pass each.
        folder: of the images.
    """
    kept: list[dict[str, Any]] = []
    for index, (key, image, prompt) in enumerate(images):
        found = draw_maps(model, image, prompt, telling_words(model, prompt))
        for number, (word, drawn) in enumerate(found.items()):
            drawn.overlay.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            drawn.overlay.save(output_folder(folder / FOLDER) / _file(index, number))
            place = {"image": index, "number": number}
            kept.append(
                place | {"key": key, "prompt": prompt, "word": word, "low": drawn.low, "high": drawn.high}
            )
    if kept:
        write_json(folder / FOLDER / _INDEX, {"maps": kept})


def read_maps(folder: Path) -> list[KeptMap]:
    """What :func:`save_maps` has written into a folder; nothing where there is none that can be read."""
    try:
        kept = json.loads((folder / FOLDER / _INDEX).read_text(encoding="utf-8"))["maps"]
        return [
            KeptMap(
                str(m["key"]),
                str(m["prompt"]),
                str(m["word"]),
                folder / FOLDER / _file(int(m["image"]), int(m["number"])),
                float(m["low"]),
                float(m["high"]),
            )
            for m in kept
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _file(image: int, number: int) -> str:
    return f"{image:02d}-{number}.png"
