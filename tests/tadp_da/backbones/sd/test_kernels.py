"""Kernels are chosen by running them, layers keep their capture, and speed settings change nothing but rounding."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tadp_da.backbones.sd import kernels as _kernels
from tadp_da.backbones.stable_diffusion import BackboneSettings, StableDiffusion
from tadp_da.errors import EnvironmentSetupError
from tests.tadp_da.backbones.sd import xformers_stand_in

PROMPTS = ["a photo of a street", "two cars in the fog at night"]
CPU = torch.device("cpu")


def _pixels(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _with(model: StableDiffusion, **settings: Any) -> StableDiffusion:
    parts = (model.unet, model.vae, model.text_encoder, model.tokenizer, model.scheduler)
    return StableDiffusion(*copy.deepcopy(parts), settings=BackboneSettings(**settings))


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Make xformers what it is where it works, its one function standing on torch's; returns the shapes it was given.
    The real one has no kernel for a CPU."""
    calls: list[tuple[int, ...]] = []

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        calls.append(tuple(query.shape))
        flat = query.ndim == 3  # (b * heads, n, d), or (b, n, heads, d)
        swapped = (t[:, None] if flat else t.transpose(1, 2) for t in (query, key, value))
        found = scaled_dot_product_attention(*swapped, scale=options.get("scale"))
        return found[:, 0] if flat else found.transpose(1, 2)

    xformers_stand_in.install(monkeypatch, attend)
    return calls


def _refuse(*arguments: Any, **options: Any) -> Any:
    raise NotImplementedError("No operator found for `memory_efficient_attention_forward` with inputs: ...")


def _backwards_to_infinity(*given: torch.Tensor) -> torch.Tensor:
    found = scaled_dot_product_attention(*given)
    found.register_hook(lambda gradient: gradient * float("inf"))
    return found


def test_a_kernel_that_runs_and_computes_something_else_is_caught() -> None:
    with pytest.raises(ArithmeticError, match="values are off"):
        _kernels.deviation(lambda q, k, v: v, CPU)
    with pytest.raises(ArithmeticError, match="gradient is not finite"):
        _kernels.deviation(_backwards_to_infinity, CPU)
    assert _kernels.deviation(scaled_dot_product_attention, CPU) < 1e-5


@pytest.mark.parametrize("wanted", ["auto", "xformers"])
def test_xformers_that_runs_attends_wherever_no_map_is_read(
    backbone: StableDiffusion, working: list[tuple[int, ...]], wanted: str
) -> None:
    model = _with(backbone, attention=wanted)
    text = backbone.encode_text(PROMPTS)
    with torch.no_grad():
        expected = _with(backbone, attention="sdpa").pyramid(_pixels(), text)
        found = model.pyramid(_pixels(), text)
        tried, recorded = working[0], working[1:]
        working.clear()
        model.pyramid(_pixels(), text, attention=False)
    torch.testing.assert_close(found.levels(), expected.levels(), rtol=1e-4, atol=1e-5)
    assert found.attention
    assert tried == (1, 64, 2, 64), "tried once, before it was used"
    captured = len(model._captured)
    assert captured == 6
    assert len(recorded) == len(working) - captured > 0, (
        "the captured layers use it too while nothing is recorded"
    )


def test_xformers_asked_for_and_missing_is_an_error_with_advice(
    backbone: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xformers", None)
    model = _with(backbone, attention="xformers")
    with pytest.raises(EnvironmentSetupError, match="does not run on cpu: not installed") as caught:
        model.pyramid(_pixels(), backbone.encode_text(PROMPTS))
    assert caught.value.exit_code == 4
    assert "choose attention: auto or sdpa" in caught.value.fix


@pytest.mark.parametrize(("device", "state"), [("cpu", "elsewhere"), ("cuda", "broken")])
def test_a_build_without_a_kernel_is_broken_only_where_it_should_have_one(
    monkeypatch: pytest.MonkeyPatch, device: str, state: str
) -> None:
    xformers_stand_in.install(monkeypatch, _refuse)
    monkeypatch.setattr(_kernels, "deviation", lambda attend, device, *, heads_last: attend(None, None, None))
    assert _kernels.try_xformers(torch.device(device)).state == state


def test_speed_settings_stay_on_the_machine(backbone: StableDiffusion, tmp_path: Path) -> None:
    model = _with(backbone, channels_last=True, attention="sdpa", timestep=7)
    weight = model.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    model.save(tmp_path)
    loaded = StableDiffusion.load(tmp_path)
    assert loaded.settings == BackboneSettings(timestep=7)
    assert loaded.fingerprint == model.fingerprint == backbone.fingerprint
    text = backbone.encode_text(PROMPTS)
    with torch.no_grad():
        levels = [m.pyramid(_pixels(), text).levels() for m in (loaded, model)]
    torch.testing.assert_close(levels[0], levels[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_a_backbone_of_half_precision_stays_near_full_precision(
    backbone: StableDiffusion, dtype: torch.dtype
) -> None:
    half = copy.deepcopy(backbone).to(dtype)
    with torch.no_grad():
        full = backbone.pyramid(_pixels(), backbone.encode_text(PROMPTS))
        found = half.pyramid(_pixels(), half.encode_text(PROMPTS))
        assert half.decode_image(half.encode_image(_pixels())).shape == (2, 3, 64, 96)
    for stride, expected in full.features.items():
        assert found.features[stride].dtype == dtype
        assert (found.features[stride].float() - expected).abs().max() < 0.1 * expected.abs().max()
    for stride, expected in full.attention.items():
        assert (found.attention[stride].float() - expected).abs().max() < 0.1 * expected.max()
    loss = half.noise_loss(
        torch.zeros(1, 4, 16, 16), half.encode_text(["a"]), torch.Generator().manual_seed(0)
    )
    assert loss.isfinite().all()


def _compiled(model: StableDiffusion) -> list[str]:
    return [name for name, module in model.unet.named_modules() if module._compiled_call_impl is not None]


def test_compilation_reaches_every_transformer_block_and_stays_on_the_machine(
    backbone: StableDiffusion, tmp_path: Path
) -> None:
    """Nothing is compiled before it runs, which takes minutes; see the slow test for that."""
    assert _compiled(backbone) == []
    model = _with(backbone, compile=True)
    blocks = [name for name, _ in model.unet.named_modules() if name.endswith("transformer_blocks.0")]
    assert _compiled(model) == blocks
    assert len(blocks) == 10
    assert model.unet.state_dict().keys() == backbone.unet.state_dict().keys()
    model.save(tmp_path)
    assert _compiled(StableDiffusion.load(tmp_path)) == []


@pytest.mark.slow
def test_compiled_blocks_give_the_same_pyramid_and_gradient(backbone: StableDiffusion) -> None:
    model, text = _with(backbone, compile=True), backbone.encode_text(PROMPTS)
    found = []
    for each in (backbone, model):
        moving = each.trainable("full")
        levels = each.pyramid(_pixels(), text).levels()
        sum(x.square().mean() for x in levels.values()).backward()
        found.append(({s: x.detach() for s, x in levels.items()}, [p.grad for p in moving]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_a_vae_in_half_precision_encodes_decodes_and_samples_about_the_same(
    backbone: StableDiffusion,
) -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = backbone.encode_image(pixels)
    half = _with(backbone, vae_dtype="bf16")
    latents = half.encode_image(pixels)
    assert half.vae.dtype == torch.bfloat16
    assert latents.dtype == half.decode_image(latents).dtype == torch.float32
    assert 0 < (latents - whole).abs().max() < 0.1 * whole.abs().max()
    assert half.sample(["a car"], seed=0, steps=1, size=(64, 64))[0].size == (64, 64)
    assert half.image_key() != backbone.image_key()
