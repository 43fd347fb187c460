from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError

from tadp_da.backbones.stable_diffusion import BackboneSettings, StableDiffusion
from tadp_da.errors import DataError, UsageError

PROMPTS = ["a photo of a street", "two cars in the fog at night"]


def _pixels(height: int, width: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_maps_are_probabilities_over_tokens_and_depend_on_the_words(backbone):
    with torch.no_grad():
        maps = backbone.pyramid(_pixels(64, 96), backbone.encode_text(PROMPTS)).attention
        other = backbone.pyramid(_pixels(64, 96), backbone.encode_text(["a dog", "a cat"])).attention
    for stride, levels in maps.items():
        torch.testing.assert_close(levels.sum(1), torch.ones_like(levels[:, 0]))
        assert levels.min() >= 0
        assert not torch.allclose(levels, other[stride], atol=1e-7)


def test_latents_are_put_behind_the_finest_features_and_change_nothing_else(backbone, tiny_pipeline):
    wider = StableDiffusion.from_pretrained(str(tiny_pipeline), BackboneSettings(latent=True))
    text = backbone.encode_text(PROMPTS)
    with torch.no_grad():
        plain, found = (b.pyramid(_pixels(40, 72), text) for b in (backbone, wider))
        latents = backbone.encode_padded(_pixels(40, 72))
    finest, *coarser = plain.features
    width = backbone.spec.channels[finest]
    assert wider.spec.channels == {**backbone.spec.channels, finest: width + latents.shape[1]}
    assert torch.equal(found.features[finest][:, :width], plain.features[finest])
    height, side = plain.features[finest].shape[-2:]
    assert torch.equal(found.features[finest][:, width:], latents[..., :height, :side])
    assert all(torch.equal(found.features[s], plain.features[s]) for s in coarser)
    assert wider.settings.portable()["latent"]
    assert "latent" not in backbone.settings.portable(), "models of earlier versions would not be found"


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_recording_maps_changes_neither_features_nor_gradients(backbone, checkpointing):
    if checkpointing:
        backbone.unet.enable_gradient_checkpointing()
    text, gradients, features = backbone.encode_text(PROMPTS), [], []
    for attention in (False, True):
        backbone.zero_grad()
        pyramid = backbone.pyramid(_pixels(64, 64), text, attention=attention)
        assert bool(pyramid.attention) == attention
        sum(x.square().mean() for x in pyramid.features.values()).backward()
        features.append({s: x.detach() for s, x in pyramid.features.items()})
        gradients.append(
            {n: p.grad.clone() for n, p in backbone.unet.named_parameters() if p.grad is not None}
        )
    torch.testing.assert_close(features[0], features[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_the_prediction_is_bit_identical_with_and_without_taps(backbone, tiny_pipeline):
    from diffusers import UNet2DConditionModel

    plain = UNet2DConditionModel.from_pretrained(tiny_pipeline / "unet")
    latents, text = backbone.encode_image(_pixels(64, 64)), backbone.encode_text(PROMPTS)
    with torch.no_grad():
        backbone.pyramid(_pixels(64, 64), text)
        found = backbone.denoise(latents, torch.tensor([1, 500]), text)
        expected = plain(latents, torch.tensor([1, 500]), text).sample
    assert torch.equal(found, expected)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_heads_can_train_the_unet_through_the_maps(backbone, checkpointing):
    def gradient() -> torch.Tensor:
        backbone.zero_grad()
        pyramid = backbone.pyramid(_pixels(64, 64), backbone.encode_text(PROMPTS))
        sum(x.square().sum() for x in pyramid.attention.values()).backward()
        return backbone.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2.to_q.weight.grad.clone()

    expected = gradient()
    assert expected.abs().max() > 0
    if checkpointing:
        backbone.unet.enable_gradient_checkpointing()
        torch.testing.assert_close(gradient(), expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast_stays_near_full_precision(backbone, dtype):
    text = backbone.encode_text(PROMPTS)
    with torch.no_grad():
        full = backbone.pyramid(_pixels(64, 64), text)
    with torch.autocast("cpu", dtype=dtype):
        half = backbone.pyramid(_pixels(64, 64), text)
        sum(x.float().square().mean() for x in half.levels().values()).backward()
    for stride, expected in full.features.items():
        assert (half.features[stride].float() - expected).abs().max() < 0.1 * expected.abs().max()
    for stride, expected in full.attention.items():
        assert half.attention[stride].dtype == torch.float32
        assert (half.attention[stride] - expected).abs().max() < 0.1 * expected.max()


def test_an_image_is_read_the_same_alone_and_in_a_batch(backbone):
    pixels, text = _pixels(64, 64), backbone.encode_text(PROMPTS)
    with torch.no_grad():
        both, alone = backbone.pyramid(pixels, text), backbone.pyramid(pixels[1:], text[1:])
    for stride, levels in alone.levels().items():
        torch.testing.assert_close(both.levels()[stride][1:], levels, rtol=1e-4, atol=1e-5)


def test_a_copy_records_for_itself(backbone):
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in other.unet.parameters():
            parameter.mul_(1.01)
        text = backbone.encode_text(PROMPTS)
        first, second = backbone.pyramid(_pixels(64, 64), text), other.pyramid(_pixels(64, 64), text)
    for stride, levels in first.levels().items():
        assert levels.shape == second.levels()[stride].shape
        assert not torch.equal(levels, second.levels()[stride])


def test_channels_last_gives_the_same_pyramid(backbone):
    text = backbone.encode_text(PROMPTS)
    with torch.no_grad():
        before = backbone.pyramid(_pixels(64, 96), text).levels()
        backbone.unet.to(memory_format=torch.channels_last)
        after = backbone.pyramid(_pixels(64, 96), text).levels()
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def _with(model: StableDiffusion, **settings) -> StableDiffusion:
    parts = (model.unet, model.vae, model.text_encoder, model.tokenizer, model.scheduler)
    return StableDiffusion(*copy.deepcopy(parts), settings=BackboneSettings(**settings))


def test_settings_change_what_they_say(backbone):
    text = backbone.encode_text(PROMPTS)

    def read(**settings) -> torch.Tensor:
        with torch.no_grad():
            return _with(backbone, **settings).pyramid(_pixels(64, 64), text).features[4]

    base = read()
    assert torch.equal(base, read(timestep=1, scaled=True, posterior="mode"))
    for changed in ({"timestep": 300}, {"scaled": False}, {"posterior": "sample"}, {"pixels": "imagenet"}):
        assert not torch.allclose(base, read(**changed), atol=1e-5), changed


def test_pixels_as_for_imagenet_are_torchvisions(backbone):
    from torchvision.transforms.v2 import functional

    pixels = _pixels(64, 64)
    as_published = functional.normalize(pixels / 2 + 0.5, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    asked = _with(backbone, pixels="imagenet").encode_image(pixels)
    torch.testing.assert_close(asked, backbone.encode_image(as_published), rtol=1e-4, atol=1e-5)


def test_a_sampled_posterior_is_a_function_of_the_image_and_the_generators(backbone):
    model = _with(backbone, posterior="sample")
    pixels = _pixels(64, 64)
    both, alone = model.encode_image(pixels), model.encode_image(pixels[1:])
    torch.testing.assert_close(both[1:], alone)
    generators = [torch.Generator().manual_seed(i) for i in (1, 2)]
    assert not torch.allclose(model.encode_image(pixels, generators), both, atol=1e-4)


@pytest.mark.parametrize("wrong", [{"timestep": -1}, {"posterior": "mean"}, {"scale": True}])
def test_nonsense_settings_are_refused_at_birth(wrong):
    with pytest.raises(ValidationError):
        BackboneSettings(**wrong)


def test_latents_off_the_grid_are_refused_with_advice(backbone):
    with pytest.raises(DataError, match="multiples of 32") as caught:
        backbone.encode_image(_pixels(64, 70))
    assert "pyramid() pads" in caught.value.fix


def test_the_vae_is_frozen_and_stays_in_eval_mode(backbone):
    backbone.train()
    assert backbone.unet.training
    assert not backbone.vae.training
    assert not backbone.text_encoder.training
    assert not any(p.requires_grad for m in (backbone.vae, backbone.text_encoder) for p in m.parameters())
    latents = backbone.encode_image(_pixels(64, 64))
    assert latents.shape == (2, 4, 16, 16)
    assert not latents.requires_grad
    assert backbone.decode_image(latents).shape == (2, 3, 64, 64)


def test_a_tiny_autoencoder_serves_as_well(backbone):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
    vae = AutoencoderTiny(**blocks, num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1))
    parts = (backbone.unet, vae, backbone.text_encoder, backbone.tokenizer, backbone.scheduler)
    model = StableDiffusion(*parts)
    assert model.spec == backbone.spec
    assert model.decode_image(model.encode_image(_pixels(64, 64))).shape == (2, 3, 64, 64)
    with pytest.raises(UsageError, match="choose posterior: mode"):
        StableDiffusion(*parts, settings=BackboneSettings(posterior="sample"))
