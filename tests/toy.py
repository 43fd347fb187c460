"""A toy pair of domains on disk: a few drawn scenes by day with masks, and by night without."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tadp_da.mini.styles import render
from tadp_da.mini.world import CLASSES, draw_scene

NAMES = ",".join(CLASSES)
SIZE = (64, 96)
PRESET = """
base:
  backbone: {name: stable-diffusion}
  inference: {long: 64}
  head: {name: semantic-fpn, settings: {width: 16}}
  adapt: {steps: 2, batch: 2, backbone_lr: 1.0e-4, head_lr: 1.0e-3, augment: {flip: 0.5}}
  personalize: {name: none}
  evaluate: {keep: 2}
rows:
  scratch: {strategy: "no-text", pretrained: false}
  no-text: {strategy: "no-text"}
  "null": {strategy: "null"}
  simple: {strategy: simple}
  textual-inversion:
    strategy: textual-inversion
    personalize: {name: textual-inversion, settings: {
      word: <night>, like: night, templates: ["a {word} photo of {caption}"],
      steps: 2, batch: 2, accumulate: 1, resolution: 64, previews: {images: 2, steps: 1}}}
  dreambooth:
    strategy: dreambooth
    personalize: &dreambooth {name: dreambooth, settings: {
      word: sks, prompt: "a {word} photo of {caption}", steps: 2, batch: 2,
      learning_rate: 1.0e-3, resolution: 64, previews: {images: 0}}}
  dreambooth-weights-only: {strategy: "null", personalize: *dreambooth, concept: weights}
  dreambooth-word-only: {strategy: dreambooth, personalize: *dreambooth, concept: word}
"""


def draw_pair(root: Path, count: int = 4) -> Path:
    """Write ``day``, ``night`` and ``test`` folders, each with ``images`` and ``masks``, and ``preset.yaml``."""
    for place, (side, look) in enumerate((("day", "day"), ("night", "city-night"), ("test", "city-night"))):
        for index in range(count):
            scene = draw_scene(11, 100 * place + index, size=SIZE)
            pictures = {"images": render(scene, look, 11, index), "masks": scene.mask}
            for folder, values in pictures.items():
                path = root / side / folder / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    (root / "preset.yaml").write_text(PRESET, encoding="utf-8")
    return root
