"""The shape of Stable Diffusion 2: linear projections, heads by level, another text encoder, velocity prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tadp_da.backbones.stable_diffusion import StableDiffusion
from tests.conftest import save_tiny_pipeline
from tests.tadp_da.backbones.sd.original_layout import write_original

PROMPTS = ["a photo of a street", "two cars in the fog at night"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 2.1: as published, save for its widths."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = save_tiny_pipeline(
        tmp_path_factory.mktemp("sd2") / "tiny", scheduler={"prediction_type": "v_prediction"}
    )
    torch.manual_seed(1)
    UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 32, 64, 64),
        attention_head_dim=(1, 2, 4, 4),  # heads, in spite of the name
        cross_attention_dim=1024,
        norm_num_groups=8,
        use_linear_projection=True,
        upcast_attention=True,
    ).save_pretrained(folder / "unet")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.pad_token = "!"
    tokenizer.save_pretrained(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=1024, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=16, hidden_act="gelu", projection_dim=512,
            bos_token_id=0, eos_token_id=2, pad_token_id=1,
        )
    ).save_pretrained(folder / "text_encoder")  # fmt: skip
    return folder


@pytest.fixture
def model(folder: Path) -> StableDiffusion:
    return StableDiffusion.from_pretrained(str(folder))


def _pixels() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_features_and_maps_are_those_of_plain_attention(model, folder):
    """The reference keeps every map by diffusers' eager attention and averages by hand."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    kept: dict[int, list[torch.Tensor]] = {}

    class Keeping(AttnProcessor):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
            if encoder_hidden_states is not None:
                query = attn.head_to_batch_dim(attn.to_q(hidden_states))
                key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
                scores = attn.get_attention_scores(query, key).unflatten(0, (2, attn.heads)).mean(1)
                kept.setdefault(scores.shape[1], []).append(scores)
            return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)

    plain = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    heads = [plain.down_blocks[i].attentions[0].transformer_blocks[0].attn2.heads for i in range(3)]
    assert heads == [1, 2, 4]
    plain.set_attn_processor(Keeping())
    text, latents = model.encode_text(PROMPTS), model.encode_image(_pixels())
    assert text.shape == (2, 77, 1024)
    with torch.no_grad():
        pyramid = model.pyramid_of(latents, text, (64, 64))
        expected = plain(latents, torch.tensor([1, 1]), text).sample
        found = model.denoise(latents, torch.tensor([1, 1]), text)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert {s: tuple(m.shape) for s, m in pyramid.attention.items()} == {8: (2, 77, 8, 8), 16: (2, 77, 4, 4)}
    for maps in pyramid.attention.values():
        cells = maps.shape[-2] * maps.shape[-1]
        mean = torch.stack(kept[cells]).mean(0).transpose(1, 2)
        torch.testing.assert_close(maps.flatten(2), mean, rtol=1e-4, atol=1e-6)


def test_products_that_overflow_in_half_precision_do_not(model):
    """Stable Diffusion 2.1 asks for fp32 products, because its own overflow in fp16."""
    with torch.no_grad():
        for name, layer in model.unet.named_modules():
            if name.endswith("attn2"):
                layer.to_q.weight.mul_(600)
                layer.to_k.weight.mul_(600)
    text = model.encode_text(PROMPTS)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        pyramid = model.pyramid(_pixels(), text)
    for maps in pyramid.attention.values():
        assert maps.isfinite().all()
        torch.testing.assert_close(maps.sum(1), torch.ones_like(maps[:, 0]), rtol=1e-3, atol=1e-3)


def test_it_predicts_velocity_and_trains_and_draws(model):
    assert model.noising.prediction == "v_prediction"
    latents, text = model.encode_image(_pixels()), model.encode_text(PROMPTS)
    loss = model.noise_loss(latents, text, torch.Generator().manual_seed(0))
    loss.sum().backward()
    assert model.unet.conv_in.weight.grad.abs().max() > 0
    assert model.sample(["a street"], seed=0, steps=1)[0].size == (64, 64)


def test_it_survives_saving_learning_and_low_rank_layers(model, tmp_path):
    assert model.add_tokens("<night>", "night") == ("<night>",)
    assert model.trainable("lora", rank=2)
    model.fuse_lora()
    model.save(tmp_path / "saved")
    again = StableDiffusion.load(tmp_path / "saved")
    with torch.no_grad():
        first = model.pyramid(_pixels(), model.encode_text(["a <night> street", "a car"]))
        second = again.pyramid(_pixels(), again.encode_text(["a <night> street", "a car"]))
    torch.testing.assert_close(first.levels(), second.levels())


@pytest.mark.parametrize(
    ("name", "alias"), [("v2-1_768", "sd-2.1"), ("v2-1_512", "sd-2.1-base"), ("v2", None)]
)
def test_a_single_file_of_version_2_is_told_by_its_name(model, tmp_path, name, alias):
    from tadp_da.backbones.sd.single_file import alias as alias_of
    from tadp_da.errors import ArtifactError

    file = write_original(model, tmp_path / f"{name}.safetensors", openclip=True)
    if alias:
        assert alias_of(file) == alias
    else:
        with pytest.raises(ArtifactError, match="text of width 1024") as caught:
            alias_of(file)
        assert "the file's own name will do" in caught.value.fix


def test_a_single_file_of_version_2_is_the_model_that_its_folder_is(model, folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "v2", ignore=shutil.ignore_patterns("*.safetensors"))
    file = write_original(model, tmp_path / "v2.safetensors", openclip=True)
    again = StableDiffusion.from_pretrained(str(file))
    assert again.fingerprint == model.fingerprint
    assert again.noising.prediction == "v_prediction"


def test_an_inpainting_model_is_refused(folder, tmp_path):
    import shutil

    from diffusers import UNet2DConditionModel

    from tadp_da.errors import ArtifactError

    other = Path(shutil.copytree(folder, tmp_path / "inpaint"))
    config = json.loads((other / "unet" / "config.json").read_text())
    UNet2DConditionModel.from_config(config | {"in_channels": 9}).save_pretrained(other / "unet")
    with pytest.raises(ArtifactError, match="reads 9 channels, the VAE gives 4") as caught:
        StableDiffusion.from_pretrained(str(other))
    assert "not one for inpainting" in caught.value.fix
