"""Fine-tuning on a handful of synthetic two-class images with the real libraries on a tiny model."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from adapt import Augmentation, FineTuning
from adapt.training_data import PromptEmbeddings, SourceDataset
from tadp_da.errors import DataError, DivergedError, InterruptedRunError
from tadp_da.inference import InferenceSettings
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.tasks import tasks
from tadp_da.training.signals import attended
from tadp_da.types import Labeled, LabelSpace, Unlabeled

LABELS = LabelSpace("segmentation", ("dark", "bright"))
PLAIN = Augmentation()
QUICK = FineTuning(steps=2, batch=1, backbone_lr=1e-3, head_lr=1e-2, warmup=0, augment=PLAIN)


def scene(seed: int, size: tuple[int, int] = (64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A bright box on dark ground, with noise."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    top, left = int(rng.integers(size[0] // 2)), int(rng.integers(size[1] // 2))
    mask[top : top + size[0] // 2, left : left + size[1] // 2] = 1
    noise = rng.normal(0, 15, (*size, 3))
    return np.clip(60 + 130 * mask[..., None] + noise, 0, 255).astype(np.uint8), mask


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


@pytest.fixture(scope="module")
def base(tiny_pipeline: Path) -> Any:
    """Loaded once; never trained."""
    from tadp_da.backbones.stable_diffusion import StableDiffusion

    return StableDiffusion.from_pretrained(str(tiny_pipeline))


@pytest.fixture
def model_of(base: Any) -> Callable[..., PerceptionModel]:
    """Makes a fresh model; every one starts from the same weights."""

    def make(**settings: Any) -> PerceptionModel:
        return PerceptionModel.assemble(
            copy.deepcopy(base), "semantic-fpn", LABELS, **({"width": 16} | settings)
        )

    return make


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "run", quiet=True, device="cpu")


def plain(caption: str) -> str:
    return caption


def metrics(run: Run) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def state(model: PerceptionModel) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def apart(run: Run, name: object) -> Run:
    """The same run in another folder: in one, a second call would go on from the first."""
    return run.inside(run.folder / str(name))


def losses(run: Run) -> np.ndarray:
    return np.array([line["loss"] for line in metrics(run)])


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {k for k in before if not torch.equal(before[k], after[k])}


def test_it_learns_what_it_is_taught(data_of: Any, model_of: Any, run: Run) -> None:
    tuning = dataclasses.replace(QUICK, steps=15, batch=4, warmup=0.1, backbone_lr=3e-4, head_lr=3e-3)
    model = tuning(model_of(dropout=0), data_of(12), plain, run)
    assert len(losses(run)) == tuning.steps
    assert losses(run)[-5:].mean() < 0.6 * losses(run)[:3].mean()
    metric = tasks[model.head.task].metric(model.labels, model.labels)
    for seed in range(100, 104):  # scenes it has never seen
        image, mask = scene(seed)
        metric.update(model.predict(Image.fromarray(image), "a car"), mask)
    assert metric.compute()[0].value > 55  # all dark: 37.5, by chance: 30
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("mode", ["full", "lora", "frozen"])
def test_only_the_intended_weights_move(data_of: Any, model_of: Any, run: Run, mode: Any) -> None:
    model = model_of()
    before = state(model)
    dataclasses.replace(QUICK, backbone=mode, lora_rank=2)(model, data_of(), plain, run)
    changed = moved(before, state(model))
    assert any(k.startswith("head.") for k in changed)
    assert not any("vae" in k or "text_encoder" in k for k in changed)
    unet = {k for k in changed if ".unet." in k}
    if mode == "full":
        assert {k for k in before if ".unet." in k} - unet <= {
            k for k in before if ".conv_norm_out." in k or ".conv_out." in k
        }
    if mode == "lora":
        assert unet
        assert all(".attn" in k for k in unet)
    if mode == "frozen":
        assert not unet


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(
    data_of: Any, model_of: Any, tmp_path: Path
) -> None:
    tuning = dataclasses.replace(
        QUICK, augment=Augmentation(scale=(0.7, 1.4), crop=(32, 64), flip=0.5, photometric=True)
    )

    def trained(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)  # the global stream must not matter
        return state(
            tuning(
                model_of(),
                data_of(),
                plain,
                Run(folder=tmp_path / f"{seed}-{noise}", seed=seed, quiet=True, device="cpu"),
            )
        )

    first = trained(0, 1)
    assert not moved(first, trained(0, 2))
    assert moved(first, trained(1, 1))


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


def test_the_moving_average_lags_behind_the_last_weights(data_of: Any, model_of: Any, run: Run) -> None:
    data = data_of()
    start, last, average = (
        model.head.classify.weight.detach().clone()
        for model in (
            model_of(),
            dataclasses.replace(QUICK, steps=3)(model_of(), data, plain, run),
            dataclasses.replace(QUICK, steps=3, ema=0.5)(model_of(), data, plain, run),
        )
    )
    assert 0 < (average - start).norm() < (last - start).norm()


@pytest.mark.parametrize("way", [{}, {"ema": 0.5}, {"backbone": "lora", "lora_rank": 2}], ids=str)
def test_resume_ends_at_the_same_bits(
    data_of: Any, model_of: Any, run: Run, way: Any, monkeypatch: Any
) -> None:
    tuning, data = dataclasses.replace(QUICK, steps=3, **way), data_of()
    whole = state(tuning(model_of(), data, plain, apart(run, "whole")))
    fetch = SourceDataset.fetch

    def told_to_stop(examples: SourceDataset, *arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return fetch(examples, *arguments)

    for _ in range(2):  # in the first step, and in the second
        monkeypatch.setattr(SourceDataset, "fetch", told_to_stop)
        with attended(), pytest.raises(InterruptedRunError, match="is saved"):
            tuning(model_of(), data, plain, run)
        monkeypatch.undo()
    resumed = state(tuning(model_of(), data, plain, run))
    assert not moved(whole, resumed)
    assert metrics(run) == metrics(apart(run, "whole"))
    assert [line["step"] for line in metrics(run)] == [1, 2, 3]


def test_a_loss_that_is_not_finite_stops_the_run(data_of: Any, model_of: Any, run: Run) -> None:
    with pytest.raises(DivergedError, match="lower the learning rate"):
        dataclasses.replace(QUICK, head_lr=1e30, backbone_lr=1e30, steps=10)(
            model_of(), data_of(), plain, run
        )
    broken = model_of()
    with torch.no_grad():
        broken.head.classify.bias[0] = float("nan")
    with pytest.raises(DivergedError, match="step 1"):
        QUICK(broken, data_of(), plain, run)


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


@pytest.mark.parametrize(
    "wrong",
    [
        {"head_lr": float("inf")},
        {"steps": 0},
        {"warmup": 1.0},
        {"backbone": "half"},
        {"ema": 1.0},
        {"lr": 1},
        {"batch": 2, "augment": Augmentation(scale=(0.5, 2.0))},  # no two of a size
    ],
    ids=str,
)
def test_nonsense_is_refused_at_birth(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FineTuning(**wrong)
