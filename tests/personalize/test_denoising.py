from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from personalize.denoising import LatentDataset, NoisePrediction, Prompts, text_table
from personalize.latents import encode
from personalize.methods.dreambooth import DreamBooth
from tadp_da.errors import DataError
from tadp_da.run import Run
from tadp_da.types import Unlabeled


def _generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


@pytest.fixture
def views(backbone: Any, images: Unlabeled, tmp_path: Path) -> LatentDataset:
    run = Run(folder=tmp_path, device="cpu", quiet=True)
    latents = encode(backbone, images, DreamBooth(posterior="sample"), run)
    return LatentDataset(latents, Prompts(("a {word} photo", "a {word} image"), "sks"))


def _batch(views: LatentDataset, count: int = 2) -> Any:
    return LatentDataset.collate([views.fetch(i, np.random.default_rng(i)) for i in range(count)])


def test_loss_is_a_function_of_the_generators(backbone: Any, views: LatentDataset) -> None:
    objective, batch = NoisePrediction(backbone, backbone.encode_text), _batch(views)
    with torch.no_grad():
        first, again, other = (objective(batch, _generators(2, seed)) for seed in (0, 0, 9))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_batch_costs_the_mean_of_its_samples(backbone: Any, views: LatentDataset) -> None:
    objective = NoisePrediction(backbone, backbone.encode_text)
    single = [_batch(views, 2)] + [
        LatentDataset.collate([views.fetch(i, np.random.default_rng(i))]) for i in range(2)
    ]
    with torch.no_grad():
        both = objective(single[0], _generators(2))
        apart = [objective(single[1 + i], _generators(1, i)) for i in range(2)]
    torch.testing.assert_close(both, (apart[0] + apart[1]) / 2)


def test_a_gamma_beyond_every_snr_weighs_epsilon_equally(backbone: Any, views: LatentDataset) -> None:
    batch = _batch(views)
    with torch.no_grad():
        plain, vast, five = (
            NoisePrediction(backbone, backbone.encode_text, gamma)(batch, _generators(2))
            for gamma in (None, 1e9, 0.01)
        )
    torch.testing.assert_close(plain, vast)
    assert five < plain


def test_the_prior_is_added_with_its_weight(backbone: Any, views: LatentDataset) -> None:
    both = LatentDataset(
        views.latents, views.prompts, prior=LatentDataset(views.latents, Prompts(("an image",), "sks"))
    )
    batch = LatentDataset.collate([both.fetch(0, np.random.default_rng(0))])
    assert batch.prior is not None
    assert batch.prior.prompts == ["an image"]
    with torch.no_grad():
        none, half, one = (
            NoisePrediction(backbone, backbone.encode_text, None, weight)(batch, _generators(1))
            for weight in (0.0, 0.5, 1.0)
        )
    torch.testing.assert_close(half - none, (one - none) / 2)
    assert one > none


def test_a_text_table_holds_what_the_encoder_says(backbone: Any, tmp_path: Path) -> None:
    prompts = [f"a photo of {n} cars" for n in ("one", "two", "three")]
    table = text_table(backbone, prompts, Run(folder=tmp_path, device="cpu", quiet=True))
    with torch.no_grad():
        torch.testing.assert_close(table(prompts[::-1]), backbone.encode_text(prompts[::-1]))


def test_captions_stand_beside_the_word(images: Unlabeled) -> None:
    captions = {images.key(i): f"a street with {i} cars" for i in range(4)}
    prompts = Prompts.of(("a {word} photo of {caption}",), "sks", images, captions)
    assert prompts.say(2, 0) == "a sks photo of a street with 2 cars"
    assert len(prompts.all()) == 4
    del captions[images.key(3)]
    with pytest.raises(DataError, match=r"1 of 4 images(?s:.)*tadp-da caption"):
        Prompts.of(("a {word} photo of {caption}",), "sks", images, captions)
    assert Prompts.of(("a {word} photo",), "sks", images, None).all() == ["a sks photo"]
