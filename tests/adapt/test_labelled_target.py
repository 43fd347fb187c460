"""A few labelled target images beside the source's: how often they are seen, with which prompts, and in what form."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapt import Augmentation, FineTuning
from adapt.labelled_target import JoinedDataset, LabelledTarget
from adapt.objectives import objectives
from adapt.training_data import PromptEmbeddings, SourceDataset
from tadp_da.errors import UsageError
from tadp_da.inference import InferenceSettings
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.types import Labeled
from tests.adapt.conftest import noise
from tests.adapt.test_streams import Confident, Negative

QUICK = FineTuning(steps=2, batch=4, backbone="frozen", head_lr=1e-3, warmup=0, augment=Augmentation())


@pytest.fixture
def few(tmp_path: Path, labeled: Labeled) -> Labeled:
    """Two labelled images of the target."""
    images = noise(tmp_path / "few", 2, (64, 64), 3)
    return dataclasses.replace(labeled, images=images, captions={images.key(i): "a car" for i in range(2)})


def joined(
    model: PerceptionModel, source: Labeled, target: Labeled, share: float, run: Run, **more: Any
) -> JoinedDataset:
    parts = [
        SourceDataset(
            data,
            model.head,
            PromptEmbeddings(model, data, write, run),
            InferenceSettings().size,
            Augmentation(flip=0),
            even=False,
            **kept,
        )
        for data, write, kept in ((source, str, more), (target, "{} at night".format, {}))
    ]
    return JoinedDataset((parts[0], parts[1]), share, even=True)


@pytest.mark.parametrize(("share", "expected"), [(0.5, (3, 3)), (0.25, (6, 2)), (0.9, (3, 27))])
def test_every_image_is_seen_and_the_targets_as_often_as_asked(
    fresh_model: Any, labeled: Labeled, few: Labeled, quiet: Run, share: float, expected: tuple[int, int]
) -> None:
    data = joined(fresh_model(), labeled, few, share, quiet)
    seen = Counter(data.key(i) for i in range(len(data)))
    parts = [data._at(i)[0] for i in range(len(data))]
    assert tuple(parts.count(part) for part in data.parts) == expected
    assert set(seen) == {"0.png", "1.png", "2.png"}
    assert {data._at(i)[1] for i in range(len(data)) if parts[i] is data.parts[1]} == {0, 1}


def test_their_prompts_are_the_targets_and_styles_leave_them_alone(
    fresh_model: Any, labeled: Labeled, few: Labeled, quiet: Run
) -> None:
    model = fresh_model()
    data = joined(model, labeled, few, 0.5, quiet, style=Negative())
    data.cache_images(1, quiet)
    data.cache_latents(model, 1, quiet)
    rng = np.random.default_rng(0)
    source, target = data.fetch(0, rng), data.fetch(len(data) - 1, rng)
    with torch.no_grad():
        texts = model.backbone.encode_text(["a car", "a car at night"])
    torch.testing.assert_close(torch.stack([source["text"], target["text"]]), texts)
    whole = data.text
    assert torch.equal(whole.embeddings[whole.rows[-1]], target["text"])
    plain = np.array(few.images[data._at(len(data) - 1)[1]]).transpose(2, 0, 1)
    torch.testing.assert_close(target["pixels"], torch.from_numpy(plain).float() / 127.5 - 1)
    assert not data.parts[1].latents, "pixels of one and latents of another make no batch"
    data.collate([source, target])


def test_images_of_other_sizes_share_a_batch(
    fresh_model: Any, labeled: Labeled, few: Labeled, quiet: Run, tmp_path: Path
) -> None:
    images = noise(tmp_path / "wide", 2, (32, 96), 4)
    mask = np.zeros((32, 96), np.uint8)
    wide = Labeled("wide", labeled.labels, images, lambda _: mask, {images.key(i): "a car" for i in range(2)})
    data = joined(fresh_model(), labeled, wide, 0.5, quiet)
    batch = data.collate([data.fetch(i, np.random.default_rng(0)) for i in (0, len(data) - 1)])
    assert batch["pixels"].shape == (2, 3, 64, 96)


@pytest.mark.parametrize("cached", [True, False])
def test_a_training_learns_from_both(
    fresh_model: Any, labeled: Labeled, few: Labeled, quiet: Run, cached: bool
) -> None:
    """Nothing of the source is labelled here: what is learned is the target's."""
    held: list[Any] = []

    class Spy(objectives["supervised"]):  # type: ignore[misc]
        def __call__(self, model: Any, batches: Any, step: int, generators: Any) -> Any:
            held.append(batches["source"])
            return super().__call__(model, batches, step, generators)

    tuning = dataclasses.replace(QUICK, cache_latents=cached, steps=3)
    given = {"labelled_target": LabelledTarget(few, 0.5), "objectives": [Spy()]}
    model = fresh_model()
    model.rewrite = dataclasses.replace(model.rewrite, strategy="{caption} at night")
    tuning(model, labeled, str, quiet, **given)
    assert all(("latents" in batch) == cached for batch in held)
    with torch.no_grad():
        texts = model.backbone.encode_text(["a car", "a car at night"])
    rows = [torch.cdist(text.flatten()[None], texts.flatten(1)).argmin() for b in held for text in b["text"]]
    assert Counter(map(int, rows)) == {0: 6, 1: 6}


def test_they_are_not_given_in_vain(
    fresh_model: Any, labeled: Labeled, few: Labeled, unlabeled: Any, quiet: Run
) -> None:
    with pytest.raises(UsageError, match="no objective reads labelled images") as refused:
        QUICK(
            fresh_model(), labeled, str, quiet,
            unlabeled=unlabeled, labelled_target=LabelledTarget(few, 0.5), objectives=[Confident()],
        )  # fmt: skip
    assert "supervised" in refused.value.fix
