from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel

from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError, UsageError


def _concept(model, **given) -> Concept:
    facts = {"word": "<x>", "domain": "night", "backbone": model.fingerprint, "method": "test"}
    return Concept(**(facts | given))


def _predict(backbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    with torch.no_grad():
        return backbone.denoise(latents, torch.tensor([100]), backbone.encode_text(["a night street"]))


def _trained_lora(backbone, scale: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in backbone.trainable("lora", rank=2):
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale


def test_the_fingerprint_is_that_of_the_base_whatever_is_done_to_it(backbone, tiny_pipeline):
    assert StableDiffusion.from_pretrained(str(tiny_pipeline)).fingerprint == backbone.fingerprint
    backbone.add_tokens("<x>", "night")
    with torch.no_grad():
        backbone.unet.conv_in.weight.add_(1)
    again = StableDiffusion(
        backbone.unet, backbone.vae, backbone.text_encoder, backbone.tokenizer, backbone.scheduler
    )
    assert again.fingerprint != backbone.fingerprint


def test_installed_rows_are_the_word(backbone):
    rows = torch.randn(
        2, backbone.unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(0)
    )
    concept = _concept(backbone, rows=rows)
    assert backbone.load_concept(concept) is backbone
    assert torch.equal(backbone.token_rows(concept.tokens), rows)
    assert backbone.count_tokens(f"a {concept.prompt_word} street") == 4


def test_a_learned_word_encodes_the_same_after_it_was_saved_and_installed(backbone, tmp_path):
    other = copy.deepcopy(backbone)
    tokens = backbone.add_tokens("<x>", "dark night", vectors=2)
    _concept(backbone, rows=backbone.token_rows(tokens)).save(tmp_path)
    concept = Concept.load(tmp_path)
    other.load_concept(concept)
    prompt = f"a {concept.prompt_word} street"
    assert torch.equal(other.encode_text([prompt]), backbone.encode_text([prompt]))


def test_installed_weights_are_the_network(backbone):
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in other.unet.parameters():
            parameter.mul_(1.1)
    backbone.load_concept(_concept(backbone, word="sks", weights=other.unet.state_dict()))
    assert torch.equal(_predict(backbone), _predict(other))


def test_installed_low_rank_weights_do_what_the_layers_did_and_leave_none_behind(backbone, tiny_pipeline):
    other = copy.deepcopy(backbone)
    _trained_lora(other)
    adapted, names = _predict(other), list(backbone.unet.state_dict())
    assert (adapted - _predict(backbone)).abs().max() > 1e-3
    backbone.load_concept(_concept(backbone, word="sks", lora=other.lora_tensors()))
    torch.testing.assert_close(_predict(backbone), adapted, rtol=1e-4, atol=1e-5)
    assert list(backbone.unet.state_dict()) == names
    assert all(p.requires_grad for p in backbone.unet.parameters())
    assert backbone.pyramid(torch.zeros(1, 3, 64, 64), backbone.encode_text(["a"])).attention
    other.fuse_lora()
    torch.testing.assert_close(_predict(other), adapted, rtol=1e-4, atol=1e-5)
    assert list(other.unet.state_dict()) == names


def test_low_rank_tensors_open_in_plain_diffusers(backbone, tiny_pipeline, tmp_path):
    from diffusers import StableDiffusionPipeline

    _trained_lora(backbone)
    _concept(backbone, word="sks", lora=backbone.lora_tensors()).save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    pipeline.load_lora_weights(tmp_path)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        text = backbone.encode_text(["a night street"])
        found = pipeline.unet(latents, torch.tensor([100]), text).sample
    torch.testing.assert_close(found, _predict(backbone), rtol=1e-4, atol=1e-5)


def test_an_empty_concept_changes_nothing(backbone):
    before = _predict(backbone)
    backbone.load_concept(_concept(backbone, word="", method="nothing"))
    assert torch.equal(_predict(backbone), before)


def test_a_concept_of_another_base_is_refused_and_both_are_named(backbone):
    with pytest.raises(ArtifactError, match=f"0123abc, this one is {backbone.fingerprint}") as caught:
        backbone.load_concept(_concept(backbone, backbone="0123abc"))
    assert caught.value.exit_code == 6
    assert "learn it again on this one" in caught.value.fix


def _broken(backbone) -> dict[str, dict]:
    width = backbone.unet.config.cross_attention_dim
    state = dict(backbone.unet.state_dict())
    first = next(iter(state))
    _trained_lora(other := copy.deepcopy(backbone))
    lora = other.lora_tensors()
    half = next(iter(lora))
    return {
        "width": {"rows": torch.zeros(1, width + 4)},
        "rows-nan": {"rows": torch.full((1, width), float("nan"))},
        "missing": {"weights": {k: v for k, v in state.items() if k != first}},
        "unknown": {"weights": state | {"other.weight": torch.zeros(1)}},
        "shape": {"weights": state | {first: torch.zeros(1)}},
        "weights-nan": {"weights": state | {first: torch.full_like(state[first], float("inf"))}},
        "lora-unknown": {"lora": lora | {"unet.nowhere.lora.down.weight": torch.zeros(2, 2)}},
        "lora-text": {"lora": {"text_encoder.q_proj.lora.down.weight": torch.zeros(2, 2)}},
        "lora-half": {"lora": {k: v for k, v in lora.items() if k != half}},
        "lora-shape": {"lora": lora | {half: torch.zeros(2, 7)}},
        "lora-nan": {"lora": lora | {half: torch.full_like(lora[half], float("nan"))}},
    }


def test_tensors_that_do_not_fit_are_refused_before_anything_changes(backbone):
    before, size = _predict(backbone), len(backbone.tokenizer)
    good = torch.zeros(1, backbone.unet.config.cross_attention_dim)
    for name, parts in _broken(backbone).items():
        with pytest.raises(ArtifactError) as caught:
            backbone.load_concept(_concept(backbone, **({"rows": good} | parts)))
        assert "learn" in caught.value.fix, name
        assert caught.value.where, name
        assert len(backbone.tokenizer) == size, name
    assert torch.equal(_predict(backbone), before)


def test_a_concept_whose_word_is_known_is_refused(backbone):
    rows = torch.zeros(1, backbone.unet.config.cross_attention_dim)
    with pytest.raises(UsageError, match="in the vocabulary already"):
        backbone.load_concept(_concept(backbone, word="night", rows=rows))


def test_what_trains_is_what_was_asked_for(backbone):
    assert backbone.trainable("frozen") == []
    full = backbone.trainable("full")
    assert len(full) == len(list(backbone.unet.parameters())) - 4
    pyramid = backbone.pyramid(torch.rand(1, 3, 64, 64), backbone.encode_text(["a"]))
    sum(x.square().sum() for x in pyramid.levels().values()).backward()
    assert all(p.grad is not None for p in full)
    assert len(backbone.trainable("full", prediction=True)) == len(full) + 4
    backbone.trainable("lora", rank=3)
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora" in name for name in trained)
    with pytest.raises(UsageError, match="fuse_lora"):
        backbone.trainable("lora")


def test_training_low_rank_layers_through_the_pyramid_moves_only_them(backbone):
    base = {k: v.clone() for k, v in backbone.unet.state_dict().items()}
    parameters = backbone.trainable("lora", rank=2)
    text = backbone.encode_text(["a"])
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(2):
        sum(
            x.square().mean() for x in backbone.pyramid(torch.ones(1, 3, 64, 64), text).levels().values()
        ).backward()
        optimizer.step()
    assert any(v.abs().max() > 0 for k, v in backbone.lora_tensors().items() if "up" in k)
    now = {k.replace(".base_layer", ""): v for k, v in backbone.unet.state_dict().items() if "lora" not in k}
    assert all(torch.equal(v, now[k]) for k, v in base.items())


def test_the_saved_unet_opens_in_plain_diffusers(backbone, tmp_path):
    config = dict(backbone.unet.config)
    concept = _concept(
        backbone, word="sks", weights=backbone.unet.state_dict(), part="unet", part_config=config
    )
    concept.save(tmp_path)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    for name, value in unet.state_dict().items():
        assert torch.equal(value, backbone.unet.state_dict()[name])
