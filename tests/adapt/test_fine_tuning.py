"""Fine-tuning on a handful of synthetic two-class images with the real libraries on a tiny model."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from adapt import Augmentation, FineTuning
from adapt.training_data import SourceDataset
from tadp_da.errors import DivergedError, InterruptedRunError
from tadp_da.run import Run
from tadp_da.tasks import tasks
from tadp_da.training.signals import attended
from tests.adapt.boxes import QUICK, apart, losses, metrics, moved, plain, scene, state


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
