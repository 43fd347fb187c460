"""Original single-file checkpoints: read as the folder is, configured offline, and pickles refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.errors import ArtifactError, EnvironmentSetupError
from tests.conftest import save_tiny_pipeline
from tests.tadp_da.backbones.sd.original_layout import write_original


@pytest.fixture(scope="module")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers per block, as the original layout numbers them."""
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny", layers=2)


@pytest.fixture
def backbone(tiny_pipeline: Path) -> StableDiffusion:
    return StableDiffusion.from_pretrained(str(tiny_pipeline))


def configure(pipeline: Path, folder: Path) -> Path:
    """A folder of the configuration only."""
    return Path(shutil.copytree(pipeline, folder, ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.fixture
def file(backbone: StableDiffusion, tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A checkpoint with its configuration in a folder of its name."""
    configure(tiny_pipeline, tmp_path / "v1-tiny")
    return write_original(backbone, tmp_path / "v1-tiny.safetensors")


@pytest.mark.parametrize("openclip", [False, True], ids=["clip", "openclip"])
def test_a_single_file_is_the_model_that_its_folder_is(backbone, file, openclip, capfd):
    write_original(backbone, file, openclip=openclip)
    model = StableDiffusion.from_pretrained(str(file))
    assert model.fingerprint == backbone.fingerprint
    assert model.origin == str(file)
    assert not model.unet.training
    assert capfd.readouterr() == ("", "")


def test_the_configuration_may_lie_in_the_files_own_folder(backbone, tiny_pipeline, tmp_path):
    file = write_original(backbone, configure(tiny_pipeline, tmp_path / "any") / "name.safetensors")
    assert StableDiffusion.from_pretrained(str(file)).fingerprint == backbone.fingerprint


def test_averaged_weights_are_taken_where_there_are_some(backbone, file):
    raw = load_file(file)
    averaged = {
        f"model_ema.{''.join(name.split('.')[1:])}": tensor
        for name, tensor in raw.items()
        if name.startswith("model.diffusion_model.")
    }
    assert len(averaged) > 100
    noise = {n: t + 1 for n, t in raw.items() if n.startswith("model.diffusion_model.")}
    save_file(raw | noise | averaged, file)
    assert StableDiffusion.from_pretrained(str(file)).fingerprint == backbone.fingerprint


def test_a_quantized_checkpoint_is_refused_when_it_is_read(file):
    raw = load_file(file)
    name = "model.diffusion_model.input_blocks.0.0.weight"
    save_file(raw | {name: (raw[name] * 50).to(torch.int8)}, file)
    with pytest.raises(ArtifactError, match="the weights are quantized") as caught:
        StableDiffusion.from_pretrained(str(file))
    assert caught.value.where == str(file)


def test_without_a_configuration_the_advice_says_what_and_where(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    wide = StableDiffusion.from_pretrained(str(save_tiny_pipeline(tmp_path / "wide", width=768, layers=2)))
    file = write_original(wide, tmp_path / "v1-5.safetensors")
    with pytest.raises(
        EnvironmentSetupError, match=r"configuration of v1-5\.safetensors is missing"
    ) as caught:
        StableDiffusion.from_pretrained(str(file))
    assert "hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --include" in caught.value.fix
    assert str(tmp_path / "v1-5") in caught.value.fix
    assert caught.value.exit_code == 4
    # the alias's cached configuration serves, and nothing of its weights is needed
    commit = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
    snapshots = tmp_path / "cache" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5" / "snapshots"
    configure(tmp_path / "wide", snapshots / commit)
    assert StableDiffusion.from_pretrained(str(file)).fingerprint == wide.fingerprint


def test_a_file_that_does_not_tell_what_it_is_is_not_guessed(backbone, tmp_path):
    file = write_original(backbone, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match=r"cannot tell which model .* text of width 32") as caught:
        StableDiffusion.from_pretrained(str(file))
    assert "model_index.json" in caught.value.fix
    assert "v2-1_768-ema-pruned.safetensors" in caught.value.fix


def test_spoiled_checkpoints_are_refused(file):
    good = load_file(file)
    unet = "model.diffusion_model.out.2.weight"
    text = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    for name in (unet, text, "first_stage_model.decoder.conv_out.weight"):
        save_file({k: v for k, v in good.items() if k != name}, file)
        with pytest.raises(ArtifactError):
            StableDiffusion.from_pretrained(str(file))
    save_file(good | {"model.diffusion_model.extra": torch.zeros(1)}, file)
    with pytest.raises(ArtifactError, match="unet has 1 tensors too many") as caught:
        StableDiffusion.from_pretrained(str(file))
    assert "whole original checkpoint" in caught.value.fix
    save_file(good | {unet: torch.zeros(1, 1, 3, 3)}, file)
    with pytest.raises(ArtifactError, match="cannot read a part of the model"):
        StableDiffusion.from_pretrained(str(file))
    save_file({"lora.weight": torch.zeros(1)}, file)
    with pytest.raises(ArtifactError, match="not the tensors of an original"):
        StableDiffusion.from_pretrained(str(file))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ArtifactError, match="cannot read the checkpoint"):
        StableDiffusion.from_pretrained(str(file))


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_a_pickle_is_refused_unread_with_advice(tmp_path, suffix):
    ran = tmp_path / "ran"
    path = tmp_path / f"model{suffix}"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(ArtifactError, match="is a pickle") as caught:
        StableDiffusion.from_pretrained(str(path))
    assert not ran.exists()
    assert caught.value.exit_code == 6
    assert "weights_only=True" in caught.value.fix
