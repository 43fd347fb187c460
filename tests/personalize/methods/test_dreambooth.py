from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from personalize.methods.dreambooth import DreamBooth
from personalize.settings import Previews
from tadp_da.concept import Concept
from tadp_da.run import Run
from tadp_da.types import Unlabeled

SHORT = DreamBooth(steps=2, learning_rate=1e-3, batch=2, resolution=32, previews=Previews(images=0))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path, device="cpu", quiet=True)


@pytest.fixture(scope="module")
def plain(fresh: Any, images: Unlabeled, tmp_path_factory: pytest.TempPathFactory) -> Concept:
    return SHORT(fresh(), images, Run(folder=tmp_path_factory.mktemp("plain"), device="cpu", quiet=True))


def _predict(unet: Any) -> torch.Tensor:
    latents = torch.linspace(-2, 2, 4 * 16 * 16).reshape(1, 4, 16, 16)
    text = torch.linspace(-1, 1, 77 * 32).reshape(1, 77, 32)
    with torch.no_grad():
        return unet(latents, torch.tensor([300]), encoder_hidden_states=text).sample


def test_plain_diffusers_opens_the_whole_unet(learned: Any, tmp_path: Path) -> None:
    trained = learned("full")
    trained.concept.save(tmp_path)
    opened = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
    # tensors read from a file lie unaligned in memory, where kernels round differently
    torch.testing.assert_close(_predict(opened), _predict(trained.backbone.unet), rtol=1e-4, atol=1e-5)


def test_plain_diffusers_opens_the_low_rank_change(learned: Any, tiny_pipeline: Path, tmp_path: Path) -> None:
    trained = learned("lora")
    trained.concept.save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    before = _predict(pipeline.unet)
    pipeline.load_lora_weights(tmp_path)
    theirs, ours = _predict(pipeline.unet), _predict(trained.backbone.unet)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, ours, atol=1e-3)
    assert {len(v) for k, v in trained.concept.lora.items() if k.endswith("down.weight")} == {2}


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_only_the_unet_moves(learned: Any, fresh: Any, mode: str) -> None:
    ours, untouched = learned(mode).backbone.state_dict(), fresh().state_dict()
    assert ours.keys() == untouched.keys(), "adapter layers stayed behind"
    moved = {name for name, value in untouched.items() if not torch.equal(value, ours[name])}
    assert moved
    assert all(name.startswith("unet.") for name in moved)
    if mode == "lora":
        assert all(".to_" in name for name in moved)


def test_class_images_are_drawn_once_by_the_untouched_model(fresh: Any, images: Unlabeled, run: Run) -> None:
    chosen = dataclasses.replace(SHORT, steps=1, prior_images=2, prior_steps=1, prior_prompt="a street")
    backbone = fresh()
    first = chosen(backbone, images[:1], run)
    (folder,) = run.folder.glob("prior-images-*")
    drawn = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*.png")}
    assert len(drawn) == 2
    second = dataclasses.replace(chosen, prior_weight=0.0)(fresh(), images[:1], run)
    assert list(run.folder.glob("prior-images-*")) == [folder]
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.glob("*.png")} == drawn
    assert first.fingerprint != second.fingerprint, "the class images did not reach the loss"


def test_captions_reach_the_loss(fresh: Any, images: Unlabeled, run: Run) -> None:
    chosen = dataclasses.replace(SHORT, prompt="a {word} photo of {caption}", steps=1)
    assert chosen.needs_captions
    assert not SHORT.needs_captions
    some = [{images.key(0): text} for text in ("a street with cars", "a cat")]
    first, other = (chosen(fresh(), images[:1], run, captions) for captions in some)
    assert first.fingerprint != other.fingerprint


def test_the_running_average_lags_behind(fresh: Any, images: Unlabeled, run: Run, plain: Concept) -> None:
    start = fresh().unet.state_dict()
    lagging = dataclasses.replace(SHORT, ema=0.9)(fresh(), images, run)
    moved, behind = (
        sum(float((concept.weights[name] - start[name]).square().sum()) for name in start)
        for concept in (plain, lagging)
    )
    assert 0 < behind < moved


@pytest.mark.parametrize("change", [{"gradient_checkpointing": True}, {"batch": 1, "accumulate": 2}])
def test_memory_savers_leave_the_result(
    fresh: Any, images: Unlabeled, run: Run, plain: Concept, change: dict[str, Any]
) -> None:
    backbone = fresh()
    start = backbone.unet.state_dict()["conv_in.weight"].clone()
    saving = dataclasses.replace(SHORT, **change)(backbone, images, run)
    name = "conv_in.weight"
    torch.testing.assert_close(
        saving.weights[name] - start, plain.weights[name] - start, rtol=0.05, atol=1e-5
    )
    assert not backbone.unet.is_gradient_checkpointing


def test_bf16_trains_fp32_weights(fresh: Any, images: Unlabeled, run: Run) -> None:
    half = dataclasses.replace(run, precision="bf16")
    concept = dataclasses.replace(SHORT, steps=1)(fresh(), images[:1], half)
    assert {value.dtype for value in concept.weights.values()} == {torch.float32}
