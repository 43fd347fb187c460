"""Predictions on a set of images as files: overlays, what was predicted, and attention maps."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from tadp_da.attention_maps import draw_maps
from tadp_da.images import output_folder
from tadp_da.inference import read_ahead
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.files import file_names
from tadp_da.tasks import tasks
from tadp_da.types import Unlabeled

_log = logging.getLogger(__name__)


def predict_images(
    model: PerceptionModel,
    images: Unlabeled,
    captions: Mapping[str, str],
    run: Run,
    *,
    attention: Sequence[str] = (),
) -> None:
    """Write overlays, the predictions in the form of their task, attention maps and ``prompts.json`` into the run's
    folder. One image is predicted while the one before it is written and the one after it is read.

    Args:
        model: on the run's device.
        images: what to predict.
        captions: of every image by its key.
        run: folder and progress.
        attention: words of the prompts whose attention maps are drawn; an image whose prompt lacks a word has no map.
    """
    prompts: dict[str, str] = {}
    names = _names(images)
    maps = file_names(
        {(k, w): (f"{name}-{w.strip('<>')}", f"{name}-{w}") for k, name in names.items() for w in attention}
    )
    read = read_ahead(images.__getitem__, range(len(images)))
    with run.progress(len(images), "predicting") as advance, ThreadPoolExecutor(1) as writer:
        saved: Future[None] | None = None
        for waiting, (key, name) in zip(read, names.items(), strict=True):
            image = waiting.result()
            prompts[key] = prompt = model.prompt(captions[key])
            prediction = model.predict(image, prompt, precision=run.precision)
            if saved:
                saved.result()
            saved = writer.submit(_save, model, image, prediction, run.folder, name)
            places = {word: run.folder / "attention" / f"{maps[key, word]}.png" for word in attention}
            _draw_attention(model, image, prompt, places)
            advance(key)
        if saved:
            saved.result()
    for word in attention:
        if lost := sum(_said(model, prompt, word) is None for prompt in prompts.values()):
            _log.warning(
                "there is no attention map of %r for %d of %d images: it is not in their prompts",
                word,
                lost,
                len(prompts),
            )
    (run.folder / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n", encoding="utf-8")


def predict_overlays(
    model: PerceptionModel, images: Unlabeled, captions: Mapping[str, str], folder: Path
) -> None:
    """Write an overlay of every image into a folder."""
    output_folder(folder)
    for index, (key, name) in enumerate(_names(images).items()):
        image = images[index]
        prediction = model.predict(image, caption=captions[key])
        tasks[model.labels.task].render(image, prediction, model.labels).save(folder / f"{name}.png")


def save_images(images: Unlabeled, folder: Path) -> None:
    """Write every image into a folder, by the name of its overlay."""
    output_folder(folder)
    for index, name in enumerate(_names(images).values()):
        images[index].convert("RGB").save(folder / f"{name}.png")


def _names(images: Unlabeled) -> dict[str, str]:
    keys = map(images.key, range(len(images)))
    return file_names({key: (PurePosixPath(key).with_suffix("").as_posix(), key) for key in keys})


def _save(model: PerceptionModel, image: Any, prediction: Any, folder: Path, name: str) -> None:
    task = tasks[model.labels.task]
    overlays, files = output_folder(folder / "overlays"), output_folder(folder / task.files)
    task.render(image, prediction, model.labels).save(overlays / f"{name}.png")
    for suffix in (task.suffix, *task.exports):
        task.write(prediction, files / f"{name}{suffix}", model.labels)


def _draw_attention(model: PerceptionModel, image: Any, prompt: str, places: Mapping[str, Path]) -> None:
    """Heat maps of the words that are in this image's prompt, each in its file."""
    present = {said: word for word in places if (said := _said(model, prompt, word))}
    for said, drawn in draw_maps(model, image, prompt, list(present)).items():
        place = places[present[said]]
        drawn.overlay.save(output_folder(place.parent) / place.name)


def _said(model: PerceptionModel, prompt: str, word: str) -> str | None:
    """A word as a prompt says it: itself, or of several things."""
    return next((form for form in (word, f"{word}s") if model.says(prompt, form)), None)
