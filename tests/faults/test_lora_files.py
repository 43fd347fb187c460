"""LoRA files of other tools: read, written, and refused where a concept cannot hold them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from tadp_da.backbones.sd.exchange import import_concept, read_lora, write_kohya
from tadp_da.backbones.sd.lora import TARGETS
from tadp_da.concept import LORA, Concept
from tadp_da.errors import ArtifactError, UsageError
from tests.faults.concepts import concept_of, predict, rows, saved
from tests.tadp_da.domains.checks.checked import command


@pytest.fixture(scope="module")
def unet(_loaded_backbone: Any) -> Any:
    """The tiny model's UNet. Read only."""
    return _loaded_backbone.unet


@pytest.fixture(scope="module")
def learned(_loaded_backbone: Any, unet: Any) -> Concept:
    """A low-rank change of rank 2 of the attention projections of the tiny model."""
    generator = torch.Generator().manual_seed(0)
    lora = {}
    for name, module in unet.named_modules():
        if name.endswith(tuple(TARGETS)):
            rows, columns = module.weight.shape
            lora[f"unet.{name}.lora.down.weight"] = torch.randn(2, columns, generator=generator) * 0.2
            lora[f"unet.{name}.lora.up.weight"] = torch.randn(rows, 2, generator=generator) * 0.2
    return concept_of(_loaded_backbone, word="sks", lora=lora)


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


@pytest.mark.parametrize(
    "more",
    [{"use_rslora": True}, {"rank_pattern": {"attn2.to_k": 3}, "alpha_pattern": {"attn2.to_k": 1}}],
    ids=["rslora", "patterns"],
)
def test_the_scale_of_peft_is_read_where_diffusers_and_peft_write_it(
    backbone: Any, tmp_path: Path, more: dict[str, Any]
) -> None:
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=8, target_modules=["to_q", "attn2.to_k"], **more)
    unet = copy.deepcopy(backbone.unet)
    unet.add_adapter(config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in unet.named_parameters():
        if "lora" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    changed = copy.deepcopy(backbone)
    changed.unet = unet
    expected = predict(changed)
    assert (expected - predict(backbone)).abs().max() > 1e-3
    state = get_peft_model_state_dict(unet, adapter_name="default")
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "diffusers", unet_lora_layers=state, unet_lora_adapter_metadata=config.to_dict()
    )
    unet.save_lora_adapter(tmp_path / "unet")
    alone = get_peft_model(copy.deepcopy(backbone.unet), config)
    set_peft_model_state_dict(alone, {f"base_model.model.{k}": v for k, v in state.items()})
    alone.save_pretrained(tmp_path / "peft")
    for file in (f"diffusers/{LORA}", f"unet/{LORA}", "peft/adapter_model.safetensors"):
        again = copy.deepcopy(backbone)
        import_concept(again, lora=tmp_path / file)
        torch.testing.assert_close(predict(again), expected, rtol=1e-4, atol=1e-5)
    (tmp_path / "peft/adapter_config.json").unlink()
    with pytest.raises(ArtifactError, match="cannot read the alpha of the LoRA") as caught:
        read_lora(tmp_path / "peft/adapter_model.safetensors", backbone.unet)
    assert "put it beside the file" in caught.value.fix


OLD_FORMS = {
    "processors with prefix": lambda key: (
        key.replace(".to_", ".processor.to_").replace("to_out.0", "to_out").replace(".lora.", "_lora.")
    ),
    "processors": lambda key: OLD_FORMS["processors with prefix"](key).removeprefix("unet."),
    "linear layers": lambda key: key.replace(".lora.", ".lora_linear_layer."),
    "adapter name": lambda key: key.replace(".lora.down.", ".lora_A.default.").replace(
        ".lora.up.", ".lora_B.default."
    ),
}


@pytest.mark.parametrize("form", OLD_FORMS)
def test_old_forms_of_diffusers_are_imported(unet: Any, learned: Concept, tmp_path: Path, form: str) -> None:
    file = saved(tmp_path / "old.safetensors", {OLD_FORMS[form](k): v for k, v in learned.lora.items()})
    found = read_lora(file, unet)
    assert found.keys() == learned.lora.keys()
    assert all(torch.equal(found[k], v) for k, v in learned.lora.items())


def test_a_lora_in_eight_bits_is_read_and_one_of_integers_refused(
    unet: Any, learned: Concept, tmp_path: Path
) -> None:
    eight = {k: v.to(torch.float8_e4m3fn) for k, v in learned.lora.items()}
    found = read_lora(saved(tmp_path / "fp8.safetensors", eight), unet)
    assert all(torch.equal(found[k], v.float()) for k, v in eight.items())
    integers = {k: (v * 100).to(torch.int8) for k, v in learned.lora.items()}
    with pytest.raises(ArtifactError, match="quantized LoRAs are not read"):
        read_lora(saved(tmp_path / "int8.safetensors", integers), unet)


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ("unet.mid_block.attentions.0.proj_in.lora_magnitude_vector", "DoRA"),
        ("lora_unet_mid_block_attentions_0_proj_in.dora_scale", "DoRA"),
        ("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a", "LoHa"),
        ("lora_unet_mid_block_attentions_0_proj_in.lokr_w1", "LoKr"),
        ("lora_unet_conv_in.lora_mid.weight", "LoCon"),
    ],
)
def test_other_kinds_of_adapters_are_named(
    unet: Any, learned: Concept, tmp_path: Path, tensor: str, kind: str
) -> None:
    file = saved(tmp_path / "x.safetensors", {**learned.lora, tensor: torch.ones(2, 2)})
    with pytest.raises(ArtifactError, match=f"a {kind}") as caught:
        read_lora(file, unet)
    assert "--model FOLDER" in caught.value.fix


@pytest.mark.parametrize(("width", "name"), [(1024, "Stable Diffusion 2"), (2048, "Stable Diffusion XL")])
def test_a_lora_of_another_model_names_both(unet: Any, tmp_path: Path, width: int, name: str) -> None:
    layer = "lora_unet_down_blocks_2_attentions_0_transformer_blocks_5_attn2_to_k"
    pair = {f"{layer}.lora_down.weight": torch.ones(2, width), f"{layer}.lora_up.weight": torch.ones(64, 2)}
    with pytest.raises(ArtifactError, match=f"for {name}.*this is a model with text of width 32") as caught:
        read_lora(saved(tmp_path / "x.safetensors", pair), unet)
    assert "--model" in caught.value.fix


def test_low_rank_changes_of_convolutions_are_added(backbone: Any, tmp_path: Path) -> None:
    down, up = torch.randn(2, 32, 3, 3), torch.randn(32, 2, 1, 1)
    name = "down_blocks_0_resnets_0_conv1"
    file = saved(
        tmp_path / "conv.safetensors",
        {f"lora_unet_{name}.lora_down.weight": down, f"lora_unet_{name}.lora_up.weight": up},
    )
    weight = backbone.unet.down_blocks[0].resnets[0].conv1.weight
    before = weight.detach().clone()
    import_concept(backbone, lora=file)
    expected = torch.einsum("or,rikl->oikl", up[..., 0, 0], down)
    torch.testing.assert_close(weight.detach() - before, expected, rtol=1e-4, atol=1e-5)


def test_layers_that_a_concept_cannot_hold_are_told(unet: Any, learned: Concept, tmp_path: Path) -> None:
    file = tmp_path / "kohya.safetensors"
    write_kohya(learned, file)
    stored = load_file(file)
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(2, 32)}
    saved(file, stored | text)
    with pytest.raises(ArtifactError, match=r"changes the text encoder too \(1 tensors") as caught:
        read_lora(file, unet)
    assert "--unet-only" in caught.value.fix
    assert len(read_lora(file, unet, unet_only=True)) == len(learned.lora)
    saved(file, stored | {"lora_unet_nowhere.lora_down.weight": torch.zeros(2, 32)})
    with pytest.raises(ArtifactError, match="this UNet has no low-rank layer 'lora_unet_nowhere"):
        read_lora(file, unet)
    saved(file, {k: v for k, v in stored.items() if "attn1_to_q.lora_up" not in k})
    with pytest.raises(ArtifactError, match="has no pair of down and up"):
        read_lora(file, unet)


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
