from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tadp_da.backbones.stable_diffusion import BackboneSettings, StableDiffusion
from tadp_da.errors import ArtifactError, EnvironmentSetupError, UsageError

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may spoil."""
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


def test_loading_and_drawing_are_silent(tiny_pipeline, capfd):
    StableDiffusion.from_pretrained(str(tiny_pipeline)).sample(["a street"], seed=0, steps=1)
    assert capfd.readouterr() == ("", "")


def test_weights_of_half_precision_are_read_in_full(folder):
    save_file({k: v.half() for k, v in load_file(folder / UNET).items()}, folder / UNET)
    text = folder / "text_encoder" / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(text).items()}, text, metadata={"format": "pt"})
    model = StableDiffusion.from_pretrained(str(folder))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_folder_with_half_precision_alone_is_read(folder, backbone, variant):
    for file in folder.glob("*/*.safetensors"):
        file.rename(file.with_suffix(f".{variant}.safetensors"))
    assert StableDiffusion.from_pretrained(str(folder)).fingerprint == backbone.fingerprint
    shutil.copy(folder / "unet" / f"diffusion_pytorch_model.{variant}.safetensors", folder / UNET)
    tensors = load_file(folder / UNET)
    tensors["conv_in.bias"] = tensors["conv_in.bias"] + 1
    save_file(tensors, folder / UNET)  # full precision is preferred
    assert StableDiffusion.from_pretrained(str(folder)).fingerprint != backbone.fingerprint


@pytest.mark.parametrize("file", [UNET, "text_encoder/model.safetensors"])
def test_a_quantized_network_is_refused_when_it_is_read(folder, file):
    tensors = load_file(folder / file)
    name = next(name for name in tensors if name.endswith(".weight"))
    save_file(tensors | {name: (tensors[name] * 50).to(torch.int8)}, folder / file)
    with pytest.raises(ArtifactError, match=f"quantized: '{name}' is of type I8") as caught:
        StableDiffusion.from_pretrained(str(folder))
    assert "before it was quantized" in caught.value.fix
    assert str(caught.value.where).endswith(file)
    config = (folder / file).with_name("config.json")  # as bitsandbytes and GPTQ mark a folder
    save_file(tensors, folder / file)
    config.write_text(config.read_text().replace("{", '{"quantization_config": {"load_in_8bit": true},', 1))
    with pytest.raises(ArtifactError, match="quantized: it has a quantization_config"):
        StableDiffusion.from_pretrained(str(folder))


def test_a_network_of_eight_bit_floats_is_read(folder):
    stored = {k: v.to(torch.float8_e4m3fn) for k, v in load_file(folder / UNET).items()}
    save_file(stored, folder / UNET)
    model = StableDiffusion.from_pretrained(str(folder))
    assert all(torch.equal(v, stored[k].float()) for k, v in model.unet.state_dict().items())


def test_a_model_that_is_nowhere_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(EnvironmentSetupError, match="cannot fetch 'someone/stable-diffusion'") as caught:
        StableDiffusion.from_pretrained("someone/stable-diffusion")
    assert "hf download someone/stable-diffusion --local-dir FOLDER" in caught.value.fix
    assert caught.value.exit_code == 4
    for wrong in (str(tmp_path), "./nowhere", "nowhere"):
        with pytest.raises(EnvironmentSetupError, match=r"no model_index\.json") as caught:
            StableDiffusion.from_pretrained(wrong)
        assert "'mini'" in caught.value.fix


def test_the_alias_stands_for_the_embedded_weights(tiny_pipeline, tmp_path, monkeypatch, backbone):
    monkeypatch.setattr("tadp_da.mini.WEIGHTS", tmp_path)
    with pytest.raises(EnvironmentSetupError, match="missing from this installation") as caught:
        StableDiffusion.from_pretrained("mini")
    assert "python -m tadp_da.mini.pretrain" in caught.value.fix
    (tmp_path / "stable-diffusion").symlink_to(tiny_pipeline)
    assert StableDiffusion.from_pretrained("mini").fingerprint == backbone.fingerprint


def _spoil_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_spoiled_models_are_refused(folder):
    good = (folder / UNET).read_bytes()
    tensors = {k: v.clone() for k, v in load_file(folder / UNET).items()}  # the file is mapped into memory
    first = next(iter(tensors))
    spoiled = {
        "truncated": good[: len(good) // 2],
        "empty": b"",
        "text": b"<html>not found</html>",
    }
    for name, content in spoiled.items():
        (folder / UNET).write_bytes(content)
        with pytest.raises(ArtifactError, match="cannot read") as caught:
            StableDiffusion.from_pretrained(str(folder))
        assert "fetch the model again" in caught.value.fix, name
        assert "unet" in caught.value.where
    for name, other in {
        "missing": {k: v for k, v in tensors.items() if k != first},
        "unexpected": tensors | {"x": torch.zeros(1)},
    }.items():
        save_file(other, folder / UNET)
        with pytest.raises(ArtifactError, match=f"1 {name} tensors"):
            StableDiffusion.from_pretrained(str(folder))


def test_a_pickle_is_never_read(folder):
    torch.save(load_file(folder / UNET), folder / "unet" / "diffusion_pytorch_model.bin")
    (folder / UNET).unlink()
    with pytest.raises(ArtifactError, match="never pickles"):
        StableDiffusion.from_pretrained(str(folder))


def test_models_of_other_families_are_refused(folder):
    index = folder / "model_index.json"
    before = index.read_text()
    _spoil_json(index, unet=["diffusers", "UNet2DModel"])
    with pytest.raises(ArtifactError, match="expected UNet2DConditionModel") as caught:
        StableDiffusion.from_pretrained(str(folder))
    assert "Stable Diffusion 1.x" in caught.value.fix
    _spoil_json(index, unet=["os", "system"])
    with pytest.raises(ArtifactError, match="expected UNet2DConditionModel"):
        StableDiffusion.from_pretrained(str(folder))
    index.write_text(before)
    _spoil_json(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    with pytest.raises(UsageError, match="epsilon or v"):
        StableDiffusion.from_pretrained(str(folder))


def test_a_text_encoder_of_another_width_is_refused_and_both_are_named(folder, tmp_path):
    from transformers import CLIPTextModel

    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    encoder.config.hidden_size = 48
    CLIPTextModel(encoder.config).save_pretrained(folder / "text_encoder")
    with pytest.raises(ArtifactError, match="text encoder is 48 wide, the UNet reads text of width 32"):
        StableDiffusion.from_pretrained(str(folder))


def test_other_blocks_than_those_of_stable_diffusion_are_refused(backbone):
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(32, 32),
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"),
        norm_num_groups=8,
    )
    with pytest.raises(ArtifactError, match="AttnDownBlock2D"):
        StableDiffusion(unet, backbone.vae, backbone.text_encoder, backbone.tokenizer, backbone.scheduler)


def test_a_timestep_beyond_the_schedule_is_refused(folder):
    _spoil_json(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=100)
    with pytest.raises(UsageError, match="choose 0 to 99"):
        StableDiffusion.from_pretrained(str(folder), BackboneSettings(timestep=100))
