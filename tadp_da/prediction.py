"""Predictions on a set of images as files: overlays, what was predicted, and attention maps."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.files import write_json
from tadp_da.types import Unlabeled
from tadp_da.visualize import overlay, save_mask

_log = logging.getLogger(__name__)


def predict_images(
    model: PerceptionModel,
    images: Unlabeled,
    captions: Mapping[str, str],
    run: Run,
    *,
    attention: Sequence[str] = (),
) -> None:
    """Write ``overlays/``, ``masks/`` or ``objects/``, ``attention/`` and ``prompts.json`` into the run's folder.

    Args:
        model: on the run's device.
        images: what to predict.
        captions: of every image by its key.
        run: folder and progress.
        attention: words of the prompts whose attention maps are drawn; an image whose prompt lacks a word has no map.
    """
    prompts: dict[str, str] = {}
    with run.progress(len(images), "predicting") as advance:
        for index in range(len(images)):
            key, image = images.key(index), images[index]
            prompts[key] = prompt = model.prompt(captions[key])
            stem = file_stem(key)
            _save(model, image, model.predict(image, prompt), run.folder, stem)
            _draw_attention(model, image, prompt, attention, run.folder / "attention", stem)
            advance(key)
    if lost := [w for w in attention if not any(model.says(prompt, w) for prompt in prompts.values())]:
        _log.warning("no prompt holds %s: there is no attention map of it", " or ".join(map(repr, lost)))
    (run.folder / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n", encoding="utf-8")


def predict_overlays(
    model: PerceptionModel, images: Unlabeled, captions: Mapping[str, str], folder: Path
) -> None:
    """Write an overlay of every image into a folder."""
    folder.mkdir(parents=True)
    for index in range(len(images)):
        key, image = images.key(index), images[index]
        rendered = model.head.paint(model.predict(image, caption=captions[key]), (image.height, image.width))
        overlay(image, rendered, model.labels).save(folder / f"{file_stem(key)}.png")


def file_stem(key: str) -> str:
    """A file name for an image: those of two folders may have one name."""
    return Path(key).with_suffix("").as_posix().replace("/", "__")


def _save(model: PerceptionModel, image: Any, prediction: Any, folder: Path, stem: str) -> None:
    rendered = model.head.paint(prediction, (image.height, image.width))
    told = model.head.tell(prediction)
    kept = folder / ("masks" if told is None else "objects")
    for place in (folder / "overlays", kept):
        place.mkdir(parents=True, exist_ok=True)
    overlay(image, rendered, model.labels).save(folder / "overlays" / f"{stem}.png")
    if told is None:
        save_mask(rendered, model.labels, kept / f"{stem}.png")
    else:
        write_json(kept / f"{stem}.json", told)


def _draw_attention(
    model: PerceptionModel, image: Any, prompt: str, words: Sequence[str], folder: Path, stem: str
) -> None:
    """Heat maps of the words that are in this image's prompt."""
    import matplotlib as mpl

    present = [word for word in words if model.says(prompt, word)]
    if not present:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for word, heat in model.attention(image, present, prompt).items():
        scaled = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-8)
        shown = Image.fromarray((255 * mpl.colormaps["inferno"](scaled)[..., :3]).astype(np.uint8))
        Image.blend(image.convert("RGB"), shown, 0.6).save(folder / f"{stem}-{word.strip('<>')}.png")
