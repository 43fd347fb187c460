"""What fine-tuning makes of images, labels and captions, and what of it is kept in memory."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
import torch

from adapt import Augmentation
from adapt.training_data import PromptEmbeddings, SourceDataset
from tadp_da.errors import DataError
from tadp_da.inference import InferenceSettings
from tadp_da.run import Run
from tests.adapt.boxes import PLAIN, QUICK, apart, losses, plain, scene


def test_what_is_kept_changes_nothing_but_speed(data_of: Any, model_of: Any, run: Run) -> None:
    data = data_of()
    ways = [{}, {"cache_latents": False}, {"cache_images": 0}, {"gradient_checkpointing": True}]
    found = np.zeros((len(ways), QUICK.steps))
    for number, way in enumerate(ways):
        model = dataclasses.replace(QUICK, **way)(model_of(), data, plain, apart(run, number))
        assert not model.backbone.unet.is_gradient_checkpointing
        found[number] = losses(apart(run, number))
    assert found[0, 0] != found[0, 1]
    np.testing.assert_allclose(found, found[:1].repeat(len(ways), 0), rtol=1e-3)


def test_latents_are_kept_only_where_they_say_it_all(data_of: Any, model_of: Any, run: Run) -> None:
    model, data = model_of(), data_of(2)

    def kept(
        augment: Augmentation,
        gigabytes: float = 1.0,
        inference: InferenceSettings | None = None,
        some: Any = data,
    ) -> int:
        size = (inference or InferenceSettings()).size
        examples = SourceDataset(some, model.head, PromptEmbeddings(model, some, plain, run), size, augment)
        examples.cache_images(gigabytes, run)
        examples.cache_latents(model, gigabytes, run)
        sample = examples.fetch(0, np.random.default_rng(0))
        assert ("latents" in sample) == bool(examples.latents)
        return len(examples.latents)

    assert kept(PLAIN) == 2
    assert kept(PLAIN, inference=InferenceSettings(short=32)) == 2
    assert kept(PLAIN, inference=InferenceSettings(short=50)) == 0  # off the grid
    assert kept(Augmentation(scale=(0.9, 1.0))) == 0
    assert kept(Augmentation(crop=(32, 32))) == 0
    assert kept(PLAIN, gigabytes=1e-6) == 0
    model.backbone.settings = dataclasses.replace(model.backbone.settings, posterior="sample")
    assert kept(PLAIN) == 0  # each step sees another


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_latents_are_kept_where_images_are_too_large_to_be(
    data_of: Any, model_of: Any, run: Run, flip: float
) -> None:
    model, data = model_of(), data_of(2)

    def samples(gigabytes: float) -> list[dict[str, Any]]:
        augment = dataclasses.replace(PLAIN, flip=flip)
        examples = SourceDataset(
            data, model.head, PromptEmbeddings(model, data, plain, run), InferenceSettings().size, augment
        )
        examples.cache_images(gigabytes, run)
        assert bool(examples.cached) == bool(gigabytes)
        examples.cache_latents(model, 1, run)
        assert all(len(latents) == (2 if flip else 1) for latents in examples.latents.values())
        return [examples.fetch(i, np.random.default_rng(i)) for i in (0, 1, 0, 1)]

    for cold, kept in zip(samples(0), samples(1), strict=True):
        assert torch.equal(cold["latents"], kept["latents"])
        assert torch.equal(cold["target"], kept["target"])


@pytest.mark.parametrize(("posterior", "expected"), [("mode", False), ("sample", True)])
def test_a_sampled_posterior_is_sampled_anew_at_every_step(
    data_of: Any, model_of: Any, run: Run, posterior: str, expected: bool
) -> None:
    model = model_of()
    model.backbone.settings = dataclasses.replace(model.backbone.settings, posterior=posterior)
    for module in model.head.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
            module.p = 0.0
    still = dataclasses.replace(
        QUICK, backbone="frozen", head_lr=1e-7, augment=Augmentation(flip=0), cache_latents=False
    )
    still(model, data_of(1), plain, run)
    first, second = losses(run)
    assert (abs(first - second) > 1e-4 * first) == expected


def test_images_are_trained_on_at_the_models_working_size(data_of: Any, model_of: Any, run: Run) -> None:
    model = model_of(inference=InferenceSettings(short=32))
    data = data_of(2, size=(64, 96))
    examples = SourceDataset(
        data, model.head, PromptEmbeddings(model, data, plain, run), model.inference.size, PLAIN
    )
    sample = examples.fetch(0, np.random.default_rng(0))
    assert sample["pixels"].shape == (3, 32, 48)
    assert sample["target"].shape == (32, 48)
    QUICK(model, data, plain, run)
    assert model.predict(data[0].image, "a car").shape == (64, 96)


def test_odd_sizes_train(data_of: Any, model_of: Any, run: Run) -> None:
    dataclasses.replace(QUICK, steps=1)(model_of(), data_of(2, size=(61, 83)), plain, run)


def test_prompts_are_rewritten_get_or_create_many(data_of: Any, model_of: Any, run: Run) -> None:
    model, data = model_of(), data_of(6)
    text = PromptEmbeddings(model, data, lambda caption: f"a photo of {caption}", run)
    assert text.prompts == ("a photo of a car", "a photo of a dark street")
    with torch.no_grad():
        expected = model.backbone.encode_text(["a photo of a dark street"])[0]
    torch.testing.assert_close(text[3], expected)


def test_long_captions_are_cut_and_reported(data_of: Any, model_of: Any, run: Run, caplog: Any) -> None:
    data = data_of(2, captions={"0.png": "car " * 100, "1.png": "a car"})
    with caplog.at_level(logging.WARNING):
        text = PromptEmbeddings(model_of(), data, lambda c: f"{c} at night", run)
    assert "1 of 2 captions were shortened" in caplog.text
    assert text.prompts[0].endswith("at night")


def test_blank_labels_are_left_out_and_reported_and_all_blank_is_an_error(
    data_of: Any, model_of: Any, run: Run, caplog: Any
) -> None:
    blank = np.full((64, 64), 255, np.uint8)
    with caplog.at_level(logging.WARNING):
        QUICK(model_of(), data_of(2, label=lambda i: scene(0)[1] if i else blank), plain, run)
    assert "1 of 2 labels are all ignored and left out" in caplog.text
    with pytest.raises(DataError, match="give labels that use other ids"):
        QUICK(model_of(), data_of(label=lambda i: blank), plain, run)


def test_labels_that_do_not_fit_are_refused(data_of: Any, model_of: Any, run: Run) -> None:
    with pytest.raises(DataError, match="give every image a label of its own size") as caught:
        QUICK(model_of(), data_of(label=lambda i: np.zeros((32, 64), np.uint8)), plain, run)
    assert "0.png" in str(caught.value)
    with pytest.raises(DataError, match="map the ids"):
        QUICK(model_of(), data_of(label=lambda i: np.full((64, 64), 7, np.uint8)), plain, run)


@pytest.mark.parametrize("crop", [None, (64, 64)])
def test_images_of_different_sizes_share_a_batch(
    data_of: Any, model_of: Any, run: Run, crop: tuple[int, int] | None
) -> None:
    data = data_of(4, sizes=[(64, 64), (64, 96), (96, 64), (64, 64)])
    dataclasses.replace(QUICK, batch=4, augment=Augmentation(crop=crop))(model_of(), data, plain, run)
    assert np.isfinite(losses(run)).all()
