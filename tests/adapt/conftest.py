"""What every objective and source style is tried on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapt.training_data import CaptionedImages
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.types import Boxes, Labeled, Unlabeled
from tests.adapt.boxes import LABELS, scene
from tests.adapt.objectives.boxwise import SMALL, THINGS


@pytest.fixture
def quiet(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "quiet", quiet=True, device="cpu")


def noise(root: Path, count: int, size: tuple[int, int], seed: int) -> Unlabeled:
    """Images of noise."""
    root.mkdir()
    rng = np.random.default_rng(seed)
    paths = tuple(root / f"{i}.png" for i in range(count))
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(path)
    return Unlabeled(root.name, root, paths)


@pytest.fixture
def labeled(tmp_path: Path) -> Labeled:
    """Three images of noise, half one class and half the other."""
    images = noise(tmp_path / "labeled", 3, (64, 64), 1)
    mask = np.repeat([[0] * 32 + [1] * 32], 64, 0).astype(np.uint8)
    captions = {images.key(i): "a car" for i in range(3)}
    return Labeled("labeled", LABELS, images, lambda _: mask, captions)


@pytest.fixture
def unlabeled(tmp_path: Path) -> CaptionedImages:
    """Two images of the target, captioned."""
    images = noise(tmp_path / "unlabeled", 2, (64, 64), 2)
    return CaptionedImages(images, {images.key(i): "a dark street" for i in range(2)})


@pytest.fixture
def boxed(labeled: Labeled) -> Labeled:
    """The labelled images, with a box on each."""
    box = Boxes(np.array([[8, 8, 40, 40]], np.float32), np.array([1]), np.array([False]))
    return dataclasses.replace(labeled, labels=THINGS, label=lambda _: box)


@pytest.fixture
def detector(backbone: Any) -> Callable[[], PerceptionModel]:
    """A fresh model that finds boxes."""
    return lambda: PerceptionModel.assemble(copy.deepcopy(backbone), "faster-rcnn", THINGS, **SMALL)


@pytest.fixture
def fresh_model(backbone: Any) -> Callable[[], PerceptionModel]:
    return lambda: PerceptionModel.assemble(copy.deepcopy(backbone), "semantic-fpn", LABELS, width=16)


@pytest.fixture
def data_of(tmp_path: Path) -> Callable[..., Labeled]:
    """Makes a labelled set of ``count`` images on disk."""

    def make(count: int = 4, size: tuple[int, int] = (64, 64), sizes: Any = None, **changes: Any) -> Labeled:
        root = tmp_path / "images"
        root.mkdir(exist_ok=True)
        scenes = [scene(i, sizes[i] if sizes else size) for i in range(count)]
        paths = tuple(root / f"{i}.png" for i in range(count))
        for path, (image, _) in zip(paths, scenes, strict=True):
            Image.fromarray(image).save(path)
        fields = {
            "domain": "boxes",
            "labels": LABELS,
            "images": Unlabeled("boxes", root, paths),
            "label": lambda i: scenes[i][1],
            "captions": {f"{i}.png": "a dark street" if i % 2 else "a car" for i in range(count)},
        }
        return Labeled(**(fields | changes))

    return make


@pytest.fixture
def model_of(_loaded_backbone: Any) -> Callable[..., PerceptionModel]:
    """Makes a fresh model; every one starts from the same weights."""

    def make(**settings: Any) -> PerceptionModel:
        return PerceptionModel.assemble(
            copy.deepcopy(_loaded_backbone), "semantic-fpn", LABELS, **({"width": 16} | settings)
        )

    return make


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "run", quiet=True, device="cpu")
