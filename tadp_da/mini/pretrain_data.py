"""Data of the pretraining: scenes of the drawn world, each in one look, drawn once; and the vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tadp_da.mini._grammar import PLAIN_PLACES, phrase, sentences
from tadp_da.mini.pretrain_loop import atomic
from tadp_da.mini.styles import LOOKS, render
from tadp_da.mini.word_tokens import words_of
from tadp_da.mini.world import CLASSES, Scene, draw_scene, parse_counts
from tadp_da.training.signals import end_with_parent

PATCH = 8
COUNTED = ("car", "person", "tree")
DAY_SHARE = 0.45
CHUNK = 250
# added to the weight of a patch that the class fills, see `emphasis`
EMPHASIS = {"car": 2.0, "person": 16.0}
RARE_WORD = "sks"  # one token for a concept to use; not in any training text
_LABELS = {CLASSES.index("car"): 0, CLASSES.index("person"): 1, CLASSES.index("vegetation"): 2}


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """Which images: `scenes` of them, `size` pixels square, from the world `seed`."""

    seed: int
    scenes: int
    size: int = 128

    @property
    def name(self) -> str:
        """The cache folder of these images."""
        return f"data-seed{self.seed}-{self.size}px"


@dataclass(frozen=True)
class TrainingImages:
    """n images of h = w pixels.

    images: uint8 (n h w 3). captions: content, no style. looks: names. cells: uint8 (n h/8 w/8 11), per patch the
    pixels of each class (0..64), then whether the middle of a car, a person or a tree is in it.
    """

    images: NDArray[np.uint8]
    captions: list[str]
    looks: list[str]
    cells: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.images.shape[2]

    def part(self, start: int, stop: int) -> TrainingImages:
        """The images start .. stop - 1."""
        cut = slice(start, stop)
        return TrainingImages(self.images[cut], self.captions[cut], self.looks[cut], self.cells[cut])


def trained_looks() -> list[str]:
    """Names of the looks that are not held out."""
    return [name for name, look in LOOKS.items() if not look.held_out]


def look_of(seed: int, index: int) -> str:
    """The look of image `index`: day for 45 % of them, another pretraining look for the rest."""
    rng = np.random.default_rng([seed, index, 1])
    others = [name for name in trained_looks() if name != "day"]
    return "day" if rng.random() < DAY_SHARE else others[int(rng.integers(len(others)))]


def cells_of(scene: Scene) -> NDArray[np.uint8]:
    """What each patch of 8 x 8 pixels shows, (h/8 w/8 11), see `Images`."""
    rows, columns = (side // PATCH for side in scene.mask.shape)
    cells = np.zeros((rows, columns, len(CLASSES) + len(COUNTED)), np.uint8)
    patches = scene.mask[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH)
    for label in range(len(CLASSES)):
        cells[..., label] = (patches == label).sum((1, 3))
    for box in scene.boxes:
        if box.label in _LABELS:
            left, top, right, bottom = box.xyxy
            row = min(rows - 1, int((top + bottom) / 2) // PATCH)
            column = min(columns - 1, int((left + right) / 2) // PATCH)
            cells[row, column, len(CLASSES) + _LABELS[box.label]] += 1
    return cells


def _draw_chunk(plan: DataPlan, folder: Path, start: int) -> None:
    path = folder / f"{start:06d}.npz"
    if path.exists():
        return
    images, captions, looks, cells = [], [], [], []
    for index in range(start, min(start + CHUNK, plan.scenes)):
        scene = draw_scene(plan.seed, index, (plan.size, plan.size))
        looks.append(look_of(plan.seed, index))
        images.append(render(scene, looks[-1], plan.seed, index))
        captions.append(scene.caption)
        cells.append(cells_of(scene))

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            np.savez(file, images=images, captions=captions, looks=looks, cells=cells)

    atomic(path, write)


def draw_all(plan: DataPlan, work: Path, processes: int = 2) -> Path:
    """Draw what is missing, in chunks, into `work/<plan.name>`."""
    folder = work / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, plan.scenes, CHUNK)
    draw = partial(_draw_chunk, plan, folder)
    with ExitStack() as stack:
        run: Callable[..., Iterable[None]] = map
        if processes > 1:
            pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=end_with_parent)
            run = stack.enter_context(pool).map
        for done, _ in enumerate(run(draw, starts), 1):
            print(f"data {min(done * CHUNK, plan.scenes)} of {plan.scenes} images", flush=True)
    return folder


def load(plan: DataPlan, work: Path, images: bool = True) -> TrainingImages:
    """The images that `draw_all` drew; without `images`, an empty image array saves the memory."""
    parts: dict[str, list[NDArray[Any]]] = {"images": [], "captions": [], "looks": [], "cells": []}
    for start in range(0, plan.scenes, CHUNK):
        path = work / plan.name / f"{start:06d}.npz"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist: run the stage 'data' with the same seed, scenes and size"
            )
        with np.load(path, allow_pickle=False) as chunk:
            for name, rows in parts.items():
                rows.append(chunk[name] if images or name != "images" else chunk[name][:0])
    whole = {name: np.concatenate(rows) for name, rows in parts.items()}
    captions, looks = whole["captions"].tolist(), whole["looks"].tolist()
    if len(captions) < plan.scenes:
        raise ValueError(
            f"{work / plan.name} holds {len(captions)} images, {plan.scenes} were requested: remove its last "
            f"file and run the stage 'data' again"
        )
    return TrainingImages(whole["images"], captions[: plan.scenes], looks[: plan.scenes], whole["cells"])


def emphasis(cells: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much the error in each patch counts, (... rows columns), with a mean of 1 per image.

    A person covers one patch in a hundred: in a plain mean over the image, a denoiser would gain almost nothing by
    drawing them.
    """
    weight = np.ones(cells.shape[:-1], np.float32)
    for name, more in EMPHASIS.items():
        weight += more * cells[..., CLASSES.index(name)].astype(np.float32) / PATCH**2
    return weight / weight.mean((-2, -1), keepdims=True)


def mirrored(caption: str) -> str:
    """The caption of the mirror image."""
    swap = {"left": "right", "right": "left"}
    return re.sub(r"\b(left|right)\b", lambda match: swap[match.group()], caption)


def prompt(caption: str, look: str, cells: NDArray[np.uint8], rng: np.random.Generator) -> str:
    """A random training text for a image: empty (10 %), its caption, part of it or names of its classes, and most
    often the words of its look around that."""
    kind = rng.random()
    if kind < 0.10:
        return ""
    text = _content(caption, cells, rng)
    if kind < 0.32:
        return text
    templates = LOOKS[look].templates
    return templates[int(rng.integers(len(templates)))].format(caption=text)


def _content(caption: str, cells: NDArray[np.uint8], rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.80:
        return caption
    place = PLAIN_PLACES[int(rng.integers(len(PLAIN_PLACES)))]
    facts = [phrase(noun, count) for noun, count in parse_counts(caption).items() if count]
    if kind < 0.90:
        fact = facts[int(rng.integers(len(facts)))] if facts else place
        return (fact, place, f"{fact} on {place}" if facts else place)[int(rng.integers(3))]
    present = np.flatnonzero(cells[..., : len(CLASSES)].sum((0, 1)) >= 20)
    names = [CLASSES[label] for label in rng.permutation(present)]
    return ", ".join(names[: int(rng.integers(1, len(names) + 1))])


def caption_words() -> list[str]:
    """Every word of a caption: the captioner's vocabulary."""
    return words_of([*sentences(), *PLAIN_PLACES])


def prompt_words() -> list[str]:
    """Every word of a training text, and the rare word. Words that only held-out looks use stay unknown."""
    looks = [LOOKS[name] for name in trained_looks()]
    templates = [template.format(caption="") for look in looks for template in look.templates]
    styles = [f"{look.medium} {look.style}" for look in looks]
    return words_of([*sentences(), *PLAIN_PLACES, *CLASSES, *templates, *styles, RARE_WORD])


def vocabularies(work: Path) -> tuple[list[str], list[str]]:
    """The words of prompts and of captions, fixed in `work/words.json` on first use: token ids must not change
    under partially trained weights when the world gets a new word."""
    path = work / "words.json"
    if not path.exists():
        words = {"prompts": prompt_words(), "captions": caption_words()}
        atomic(path, lambda draft: draft.write_text(json.dumps(words, indent=1)))
    kept = json.loads(path.read_text())
    return kept["prompts"], kept["captions"]
