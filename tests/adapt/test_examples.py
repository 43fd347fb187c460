"""What fine-tuning takes from the cache is what it would have computed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapt import Augmentation
from adapt._examples import TextTable, TrainingExamples
from tadp_da.cache import open_cache
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.types import Labeled, LabelSpace, Unlabeled
from tadp_da.viewing import Viewing

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


def prepared(backbone: Any, data: Labeled, run: Run, viewing: Viewing | None = None) -> TrainingExamples:
    model = PerceptionModel.assemble(copy.deepcopy(backbone), "semantic-fpn", LABELS, width=16)
    text = TextTable(model, data, lambda caption: f"{caption} at night", run)
    examples = TrainingExamples(data, model.head, text, (viewing or Viewing()).size, Augmentation())
    examples.keep(1, run)
    examples.keep_latents(model, 1, run)
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
    half = prepared(backbone, data, run, Viewing(long=32))
    assert (counts.found, counts.made) == (6, 6)  # the prompts are the same
    assert half.latents[0].shape == (2, 4, 8, 8)


def test_a_picture_that_changes_after_it_was_read_is_not_kept(
    backbone: Any, data: Labeled, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TADP_DA_CACHE", str(tmp_path / "cache"))
    model = PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, width=16)
    text = TextTable(model, data, str, run)
    examples = TrainingExamples(data, model.head, text, Viewing().size, Augmentation())
    examples.keep(1, run)
    Image.new("RGB", (64, 64)).save(data.images.paths[0])
    examples.keep_latents(model, 1, run)
    kinds = sorted(entry.kind for entry in open_cache().entries())
    assert kinds == ["latents", "text", "text"]
    changed = prepared(backbone, data, run)
    assert not torch.equal(changed.latents[0], examples.latents[0])
    assert torch.equal(changed.latents[1], examples.latents[1])
