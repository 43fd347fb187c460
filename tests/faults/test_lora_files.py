"""LoRA files of other tools: read, written, and refused where a concept cannot hold them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tadp_da.backbones.sd.exchange import import_concept, read_lora, write_kohya
from tadp_da.concept import LORA, Concept
from tadp_da.errors import ArtifactError, UsageError
from tests.faults.concepts import concept_of, predict, rows, saved
from tests.tadp_da.domains.checks.checked import command


@pytest.fixture
def learned(backbone: Any) -> Concept:
    """A low-rank change of rank 2 of the tiny model."""
    other = copy.deepcopy(backbone)
    generator = torch.Generator().manual_seed(0)
    for parameter in other.trainable("lora", rank=2):
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return concept_of(backbone, word="sks", lora=other.lora_tensors())


@pytest.mark.parametrize("alpha", [None, 1.0, 8.0])
def test_a_kohya_file_is_the_same_change_for_every_alpha(
    backbone: Any, learned: Concept, tiny_pipeline: Path, tmp_path: Path, alpha: float | None
) -> None:
    from diffusers import StableDiffusionPipeline

    expected = predict(copy.deepcopy(backbone).load_concept(learned))
    assert (expected - predict(backbone)).abs().max() > 1e-3
    file = tmp_path / "kohya.safetensors"
    write_kohya(learned, file, alpha=alpha)
    stored = load_file(file)
    assert {float(v) for k, v in stored.items() if k.endswith(".alpha")} == {alpha or 2.0}
    again = copy.deepcopy(backbone)
    assert import_concept(again, lora=file, word="sks").prompt_word == "sks"
    torch.testing.assert_close(predict(again), expected, rtol=1e-4, atol=1e-5)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    pipeline.load_lora_weights(file)
    plain = copy.deepcopy(backbone)
    plain.unet = pipeline.unet
    with torch.no_grad():
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
        found = pipeline.unet(latents, torch.tensor([100]), backbone.encode_text(["a night street"])).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_files_of_diffusers_and_peft_are_imported(backbone: Any, learned: Concept, tmp_path: Path) -> None:
    expected = predict(copy.deepcopy(backbone).load_concept(learned))
    learned.save(tmp_path)
    peft = {
        k.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): v
        for k, v in learned.lora.items()
    }
    for file in (tmp_path / LORA, saved(tmp_path / "peft.safetensors", peft)):
        again = copy.deepcopy(backbone)
        import_concept(again, lora=file)
        torch.testing.assert_close(predict(again), expected, rtol=1e-4, atol=1e-5)


def test_layers_that_a_concept_cannot_hold_are_told(backbone: Any, learned: Concept, tmp_path: Path) -> None:
    file = tmp_path / "kohya.safetensors"
    write_kohya(learned, file)
    stored = load_file(file)
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(2, 32)}
    saved(file, stored | text)
    with pytest.raises(ArtifactError, match=r"changes the text encoder too \(1 tensors") as caught:
        read_lora(file, backbone.unet)
    assert "--unet-only" in caught.value.fix
    assert len(read_lora(file, backbone.unet, unet_only=True)) == len(learned.lora)
    saved(file, stored | {"lora_unet_nowhere.lora_down.weight": torch.zeros(2, 32)})
    with pytest.raises(ArtifactError, match="this UNet has no low-rank layer 'lora_unet_nowhere"):
        read_lora(file, backbone.unet)
    saved(file, {k: v for k, v in stored.items() if "attn1_to_q.lora_up" not in k})
    with pytest.raises(ArtifactError, match="has no pair of down and up"):
        read_lora(file, backbone.unet)


def test_a_concept_without_layers_has_no_such_file(backbone: Any, learned: Concept, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no low-rank layers"):
        write_kohya(concept_of(backbone, rows=rows()), tmp_path / "x.safetensors")
    for alpha in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="alpha is"):
            write_kohya(learned, tmp_path / "x.safetensors", alpha=alpha)


def test_from_the_front_door_and_back(
    tiny_pipeline: Path, backbone: Any, learned: Concept, tmp_path: Path
) -> None:
    learned.save(tmp_path / "ours")
    embedding = saved(tmp_path / "dusk.safetensors", {"<dusk>": rows(2)})
    assert (
        command("concept", "export", tmp_path / "ours", "--out", tmp_path / "k.safetensors", "--alpha", 1)
        == 0
    )
    words = ["concept", "import", "--lora", tmp_path / "k.safetensors", "--embedding", embedding]
    assert command(*words, "--model", tiny_pipeline, "--out", tmp_path / "theirs") == 0
    found = Concept.load(tmp_path / "theirs")
    assert found.prompt_word == "<dusk> <dusk>_1"
    for name, value in learned.lora.items():
        torch.testing.assert_close(found.lora[name], value, rtol=1e-5, atol=1e-6)
    assert command("concept", "export", tmp_path / "ours", "--out", tmp_path / "k.safetensors") == 2
    assert command("concept", "import", "--out", tmp_path / "none", "--model", tiny_pipeline) == 2
