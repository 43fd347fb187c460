"""What ``tadp_da.backbones`` asks of every member, at a small random size. A new member names its small model here."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tadp_da.backbones import Backbone, backbones, load_backbone, meta_backbone
from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.settings import effects
from tests.conftest import save_tiny_pipeline
from tests.tadp_da.backbones.small import save_mobilenet, save_tiny_segformer
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2

SMALL: dict[str, Callable[[Path], Path]] = {
    "stable-diffusion": save_tiny_pipeline,
    "dinov2": save_tiny_dinov2,
    "mobilenet-v3": save_mobilenet,
    "segformer": save_tiny_segformer,
}
"""By name, what writes a small random model that ``from_pretrained`` opens."""


@pytest.fixture(scope="module", params=sorted(backbones))
def name(request: pytest.FixtureRequest) -> str:
    assert request.param in SMALL, f"give {request.param!r} a small model in {__name__}.SMALL"
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL[name](tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def loaded(name: str, folder: Path) -> Backbone:
    return load_backbone(name, str(folder))


@pytest.fixture
def backbone(loaded: Backbone) -> Backbone:
    return copy.deepcopy(loaded)


def _pixels(height: int, width: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def _features(backbone: Backbone, pixels: torch.Tensor, prompt: str = "a street") -> list[torch.Tensor]:
    text = backbone.encode_text([prompt] * len(pixels))
    return list(backbone.pyramid(pixels, text).features.values())


def _same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_settings_are_validated_and_json(name: str, folder: Path) -> None:
    portable = backbones[name].Settings().portable()
    assert json.loads(json.dumps(portable)) == portable
    assert effects(backbones[name].Settings).keys().isdisjoint(portable)
    assert load_backbone(name, str(folder), portable).settings == backbones[name].Settings()
    with pytest.raises(UsageError, match="unknown key"):
        load_backbone(name, str(folder), {"no_such_setting": 1})


@pytest.mark.parametrize("size", [(64, 64), (70, 90)])
def test_the_pyramid_is_what_the_spec_announces(backbone: Backbone, size: tuple[int, int]) -> None:
    pixels = _pixels(*size, count=2)
    text = backbone.encode_text(["a street", "a car"])
    with torch.no_grad():
        full, plain = backbone.pyramid(pixels, text), backbone.pyramid(pixels, text, attention=False)
    assert {s: x.shape[1] for s, x in full.features.items()} == dict(backbone.spec.channels)
    assert {s: x.shape[1] for s, x in full.attention.items()} == dict(backbone.spec.attention)
    assert list(full.features) == sorted(backbone.spec.channels)
    for levels in (full.features, full.attention):
        for stride, level in levels.items():
            assert level.shape[-2:] == tuple(-(-side // stride) for side in size)
    assert not plain.attention
    for stride, level in plain.features.items():
        torch.testing.assert_close(level, full.features[stride], rtol=1e-4, atol=1e-4)


def test_an_image_is_seen_alike_in_every_batch_and_from_its_latents(backbone: Backbone) -> None:
    side = max(backbone.spec.channels)
    pixels, text = _pixels(side, 2 * side, count=2), backbone.encode_text(["a street"])
    with torch.no_grad():
        together = backbone.pyramid(pixels, text.expand(2, -1, -1)).features
        alone = backbone.pyramid(pixels[1:], text).features
        latents = backbone.pyramid_of(backbone.encode_image(pixels[1:]), text, (side, 2 * side)).features
    for stride, level in alone.items():
        assert torch.equal(level, latents[stride])
        torch.testing.assert_close(together[stride][1:], level, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scope", ["frozen", "full", "lora"])
def test_what_trains_is_what_requires_a_gradient_and_is_reached(backbone: Any, scope: str) -> None:
    before = _features(backbone, _pixels(64, 64))
    moving = backbone.trainable(scope, rank=2)
    assert {id(p) for p in backbone.parameters() if p.requires_grad} == {id(p) for p in moving}
    assert bool(moving) == (scope != "frozen")
    if not moving:
        return
    gradients = []
    for again in (False, True):
        backbone.zero_grad()
        with backbone.gradient_checkpointing(again):
            levels = backbone.pyramid(_pixels(64, 64), backbone.encode_text(["a street"])).levels()
            torch.stack([x.square().mean() for x in levels.values()]).sum().backward()
        gradients.append([p.grad for p in moving])
    assert all(g is not None for g in gradients[0])
    assert _same(gradients[0], gradients[1])
    if scope == "lora":
        names = set(load_names(backbone))
        backbone.fuse_lora()
        assert set(backbone.state_dict()) == names
        for old, new in zip(before, _features(backbone, _pixels(64, 64)), strict=True):
            torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-4)


def load_names(backbone: Backbone) -> list[str]:
    """Names of the state dict without low-rank layers."""
    return [k.replace(".base_layer", "") for k in backbone.state_dict() if "lora_" not in k]


def test_saving_and_loading_keep_the_pyramid(name: str, backbone: Backbone, tmp_path: Path) -> None:
    backbone.save(tmp_path / "saved")
    again = backbones[name].load(tmp_path / "saved")
    assert again.fingerprint == backbone.fingerprint
    assert again.settings == backbone.settings
    assert _same(_features(again, _pixels(70, 90)), _features(backbone, _pixels(70, 90)))
    with torch.no_grad():
        next(backbone.parameters()).add_(0.1)
    assert again.fingerprint == backbone.fingerprint, "a fingerprint is that of the base as it was loaded"
    backbone.save(tmp_path / "changed")
    assert backbones[name].load(tmp_path / "changed").fingerprint != backbone.fingerprint
    (tmp_path / "saved" / "backbone.json").write_text("[")
    with pytest.raises(ArtifactError, match="settings"):
        backbones[name].load(tmp_path / "saved")


def test_reinitialized_weights_are_a_function_of_the_seed(backbone: Backbone) -> None:
    found = [_features(backbone, _pixels(64, 64))]
    for seed in (1, 2, 1):
        backbone.reinitialize(seed)
        found.append(_features(backbone, _pixels(64, 64)))
    assert _same(found[1], found[3])
    assert not _same(found[0], found[1])
    assert not _same(found[1], found[2])


def test_shapes_need_no_weights(name: str, backbone: Backbone, folder: Path) -> None:
    meta = meta_backbone(name, str(folder))
    assert {p.device.type for p in meta.parameters()} == {"meta"}
    assert meta.spec == backbone.spec
    assert meta.default_resolution == backbone.default_resolution
    for part, module in backbone.parts().items():
        there = meta.parts()[part].state_dict()
        assert {k: v.shape for k, v in there.items()} == {k: v.shape for k, v in module.state_dict().items()}
    text = meta.encode_text(["a street"])
    pyramid = meta.pyramid(_pixels(70, 90).to("meta"), text)
    real = backbone.pyramid(_pixels(70, 90), backbone.encode_text(["a street"]))
    assert {s: x.shape for s, x in pyramid.levels().items()} == {s: x.shape for s, x in real.levels().items()}


def test_text_is_read_or_ignored_as_announced(backbone: Backbone) -> None:
    same = _same(*(_features(backbone, _pixels(64, 64), prompt) for prompt in ("a street", "a car at night")))
    assert same == (not backbone.reads_text)
    assert backbone.count_tokens("a street") <= backbone.token_limit
    for key in (backbone.text_key(), backbone.image_key()):
        assert json.loads(json.dumps(key)) == key


def test_concepts_and_noise_are_for_backbones_that_generate(backbone: Any) -> None:
    facts = {"domain": "d", "backbone": backbone.fingerprint, "method": "test"}
    assert backbone.load_concept(Concept(word="", **facts)) is backbone
    latents, text = backbone.encode_image(_pixels(64, 64)), backbone.encode_text(["a street"])
    generator = torch.Generator().manual_seed(0)
    if backbone.generates:
        assert backbone.noise_loss(latents, text, generator).shape == (1,)
        mean, _ = backbone.posterior(_pixels(64, 64))
        torch.testing.assert_close(mean, latents)
        weights = Concept(word="sks", **facts, **backbone.concept_weights())
        assert backbone.load_concept(weights) is backbone
        (token,) = backbone.add_tokens("<dusk>", "night")
        with backbone.trained_rows([token]) as rows:
            assert rows.requires_grad
        return
    for refused in (
        lambda: backbone.load_concept(Concept(word="sks", weights={"a": torch.zeros(1)}, **facts)),
        lambda: backbone.noise_loss(latents, text, generator),
        lambda: backbone.posterior(_pixels(64, 64)),
        lambda: backbone.add_tokens("<dusk>", "night"),
        lambda: backbone.sample(["a street"], seed=0),
    ):
        with pytest.raises(UsageError, match="not a generative model"):
            refused()
