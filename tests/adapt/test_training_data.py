"""What fine-tuning takes from the cache is what it would have computed."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from adapt import Augmentation
from adapt.batches import collate
from adapt.training_data import PromptEmbeddings, SourceDataset
from tadp_da.inference import InferenceSettings
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.cache import open_cache
from tadp_da.types import Boxes, Labeled, LabelSpace, Unlabeled

LABELS = LabelSpace("segmentation", ("dark", "bright"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "run", quiet=True, device="cpu")


@pytest.fixture
def data(tmp_path: Path) -> Labeled:
    """Two pictures of noise, the left half of each one class and the right half the other."""
    paths = tuple(tmp_path / f"{i}.bmp" for i in range(2))
    for i, path in enumerate(paths):
        values = np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(values).save(path)
    mask = np.repeat([[0] * 32 + [1] * 32], 64, 0).astype(np.uint8)
    captions = {"0.bmp": "a car", "1.bmp": "a dark street"}
    return Labeled("noise", LABELS, Unlabeled("noise", tmp_path, paths), lambda i: mask, captions)


def prepared(
    backbone: Any, data: Labeled, run: Run, inference: InferenceSettings | None = None
) -> SourceDataset:
    model = PerceptionModel.assemble(copy.deepcopy(backbone), "semantic-fpn", LABELS, width=16)
    text = PromptEmbeddings(model, data, lambda caption: f"{caption} at night", run)
    examples = SourceDataset(data, model.head, text, (inference or InferenceSettings()).size, Augmentation())
    examples.cache_images(1, run)
    examples.cache_latents(model, 1, run)
    return examples


def test_a_second_row_finds_what_the_first_one_computed(
    backbone: Any, data: Labeled, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = prepared(backbone, data, run)
    monkeypatch.setenv("TADP_DA_CACHE", str(tmp_path / "cache"))
    counts = open_cache().counts
    cold = prepared(backbone, data, run)
    assert (counts.found, counts.made) == (0, 4)  # two pictures, two prompts
    warm = prepared(backbone, data, run)
    assert (counts.found, counts.made) == (4, 4)
    for examples in (cold, warm):
        assert torch.equal(examples.text.embeddings, plain.text.embeddings)
        assert all(torch.equal(examples.latents[i], plain.latents[i]) for i in range(2))
    half = prepared(backbone, data, run, InferenceSettings(long=32))
    assert (counts.found, counts.made) == (6, 6)  # the prompts are the same
    assert half.latents[0].shape == (2, 4, 8, 8)


def test_a_picture_that_changes_after_it_was_read_is_not_kept(
    backbone: Any, data: Labeled, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TADP_DA_CACHE", str(tmp_path / "cache"))
    model = PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, width=16)
    text = PromptEmbeddings(model, data, str, run)
    examples = SourceDataset(data, model.head, text, InferenceSettings().size, Augmentation())
    examples.cache_images(1, run)
    Image.new("RGB", (64, 64)).save(data.images.paths[0])
    examples.cache_latents(model, 1, run)
    kinds = sorted(entry.kind for entry in open_cache().entries())
    assert kinds == ["latents", "text", "text"]
    changed = prepared(backbone, data, run)
    assert not torch.equal(changed.latents[0], examples.latents[0])
    assert torch.equal(changed.latents[1], examples.latents[1])


def test_objects_that_vanish_when_images_shrink_are_counted(
    data: Labeled, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = Boxes(
        np.array([[0, 0, 30, 30], [0, 0, 1.5, 30]], np.float32), np.zeros(2, int), np.zeros(2, bool)
    )
    head: Any = SimpleNamespace(task="detection", labels=LabelSpace("detection", ("car",)))
    small: Any = InferenceSettings(long=32).size
    text: Any = None
    examples = SourceDataset(
        dataclasses.replace(data, label=lambda i: boxes), head, text, small, Augmentation()
    )
    examples.cache_images(1, run)
    assert "2 objects are under a pixel wide or high at the working size and left out" in caplog.text
    assert len(examples.cached[0][1].tensors()["boxes"]) == 1


@pytest.fixture
def mixed(tmp_path: Path) -> Labeled:
    """A landscape, a portrait that its EXIF turns from a landscape, and a small square, all of one class."""
    sizes = [(64, 96), (96, 64), (32, 32)]
    paths = tuple(tmp_path / f"{i}.jpg" for i in range(3))
    for i, (path, (height, width)) in enumerate(zip(paths, sizes, strict=True)):
        picture = Image.fromarray(np.random.default_rng(i).integers(0, 255, (height, width, 3), np.uint8))
        turned = Image.Exif()
        if i == 1:
            picture, turned[ExifTags.Base.Orientation] = picture.rotate(90, expand=True), 6
        picture.save(path, exif=turned)
    masks = [np.ones(size, np.uint8) for size in sizes]
    captions = {path.name: "a car" for path in paths}
    return Labeled("mixed", LABELS, Unlabeled("mixed", tmp_path, paths), masks.__getitem__, captions)


@pytest.mark.parametrize("gigabytes", [0.0, 1.0])
def test_pictures_of_several_shapes_are_padded_to_learn_together(
    backbone: Any, mixed: Labeled, run: Run, gigabytes: float, caplog: pytest.LogCaptureFixture
) -> None:
    model = PerceptionModel.assemble(copy.deepcopy(backbone), "semantic-fpn", LABELS, width=16)
    text = PromptEmbeddings(model, mixed, str, run)
    shape = InferenceSettings(long=64).size
    examples = SourceDataset(mixed, model.head, text, shape, Augmentation(flip=0))
    assert "padded to 64x64" in caplog.text
    examples.cache_images(gigabytes, run)
    batch = collate([examples.fetch(i, np.random.default_rng(0)) for i in range(3)])
    assert batch["pixels"].shape == (3, 3, 64, 64)
    inside = [(43, 64), (64, 43), (64, 64)]
    for pixels, target, (height, width) in zip(batch["pixels"], batch["target"], inside, strict=True):
        assert (target[:height, :width] == 1).all()
        assert (target == 1).sum() == height * width
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[:height, :width] = False
        assert (pixels[:, outside].abs() < 0.01).all()
        assert pixels[:, ~outside].std() > 0.05
    examples.cache_latents(model, 1, run)
    assert set(examples.latents) == {0, 1, 2}


def test_latents_of_another_padding_are_not_mistaken(
    backbone: Any, mixed: Labeled, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TADP_DA_CACHE", str(tmp_path / "cache"))
    prepared(backbone, mixed, run, InferenceSettings(long=96))
    known = open_cache().counts.made
    prepared(
        backbone, mixed, run, InferenceSettings(short=64)
    )  # padded to 96x96 too, but the square is 64x64 in it
    assert open_cache().counts.made == known + 1
