"""Models, embeddings and LoRA files from anywhere: what would run code, what is damaged, what does not fit."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.recipe import Recipe
from tadp_da.backbones.sd.exchange import import_concept, read_embedding, read_lora, write_kohya
from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.captions.captioner import Captioner
from tadp_da.captions.rewrite import Rewrite, fit
from tadp_da.concept import LORA, ROWS, Concept
from tadp_da.errors import ArtifactError, DataError, EnvironmentSetupError, UsageError
from tadp_da.storage.tensors import read_tensors
from tadp_da.training.checkpoint import Checkpoints
from tests.tadp_da.domains.checks.checked import command

WIDTH = 32


def rows(count: int = 1, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def concept_of(backbone: Any, **given: Any) -> Concept:
    facts = {"word": "<dusk>", "domain": "dusk", "backbone": backbone.fingerprint, "method": "test"}
    return Concept(**(facts | given))


def predict(backbone: Any, text: str = "a night street") -> torch.Tensor:
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return backbone.denoise(latents, torch.tensor([100]), backbone.encode_text([text]))


# -- words


def test_a_learned_word_at_the_end_survives_a_caption_that_is_too_long(backbone: Any) -> None:
    word = "<dusk>"
    backbone.load_concept(concept_of(backbone, rows=rows(3)))
    names = f"{word} {word}_1 {word}_2"
    rewrite = Rewrite(strategy="{caption} in {word} style", word=names)
    fitted = fit(rewrite.target, "a car on a street " * 40, backbone.count_tokens, backbone.token_limit)
    assert fitted.dropped
    ids = backbone.tokenizer(fitted.prompt, truncation=True, max_length=77).input_ids
    assert set(backbone.tokenizer.convert_tokens_to_ids(names.split())) <= set(ids)
    with pytest.raises(DataError, match="a prompt has 205 tokens"):  # never cut in silence
        backbone.encode_text([rewrite.target("a car on a street " * 40)])


def test_an_imported_word_of_the_vocabulary_is_refused(backbone: Any, tmp_path: Path) -> None:
    file = saved(tmp_path / "night.safetensors", {"night": rows()})
    with pytest.raises(UsageError, match="'night' is in the vocabulary already") as caught:
        import_concept(backbone, embedding=file)
    assert "choose a new word" in caught.value.fix


@pytest.mark.parametrize(("width", "name"), [(768, "Stable Diffusion 1.x"), (1024, "Stable Diffusion 2.x")])
def test_rows_of_another_width_name_both_models(backbone: Any, tmp_path: Path, width: int, name: str) -> None:
    file = saved(tmp_path / "x.safetensors", {"<x>": rows(2, width)})
    with pytest.raises(ArtifactError) as caught:
        import_concept(backbone, embedding=file)
    assert (
        f"those of {name} with text of width {width}; this is a model with text of width 32"
        in caught.value.what
    )
    assert "with the backbone that it was learned on" in caught.value.fix
    assert caught.value.exit_code == 6


def test_one_of_several_embeddings_is_taken_by_name_only(tmp_path: Path) -> None:
    two = saved(tmp_path / "two.safetensors", {"<a>": rows()[0], "<b>": rows(2)})
    with pytest.raises(ArtifactError, match="holds 2 embeddings: <a>, <b>") as caught:
        read_embedding(two)
    assert "say which one: --word '<a>'" in caught.value.fix
    with pytest.raises(ArtifactError, match="none is '<c>'"):
        read_embedding(two, "<c>")
    assert read_embedding(two, "<a>")[1].shape == (1, WIDTH)
    assert torch.equal(read_embedding(two, "<b>")[1], rows(2))
    one = saved(tmp_path / "one.safetensors", {"<a>": rows()})
    with pytest.raises(ArtifactError, match="none is '<b>'"):
        read_embedding(one, "<b>")


def test_an_embedding_without_a_name_needs_one(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.safetensors", {"emb_params": rows(2)})
    with pytest.raises(UsageError, match="does not say its word") as caught:
        read_embedding(file)
    assert "--word" in caught.value.fix
    assert read_embedding(file, "<dusk>")[0] == "<dusk>"


# -- code in files


class Payload:
    """What a pickle would do when it is read."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (self.witness,)


READERS: dict[str, Callable[[Path, Any], object]] = {
    "an embedding": lambda path, _: read_embedding(path),
    "a LoRA": lambda path, backbone: read_lora(path, backbone.unet),
    "a model": lambda path, _: StableDiffusion.from_pretrained(str(path)),
    "a concept": lambda path, _: Concept.load(path.parent),
}


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("name", ["x.pt", "x.bin", "x.CKPT", "x.pkl", ROWS])
def test_a_pickle_is_refused_and_its_payload_never_runs(
    backbone: Any, tmp_path: Path, what: str, name: str
) -> None:
    path, witness = tmp_path / name, tmp_path / "ran"
    path.write_bytes(pickle.dumps({"<x>": Payload(witness)}))
    (tmp_path / "concept.json").write_text(
        json.dumps(
            dict.fromkeys(("domain", "backbone", "method", "settings", "fingerprint"), "x") | {"word": "<x>"}
        )
    )
    with pytest.raises((ArtifactError, EnvironmentSetupError)) as caught:
        READERS[what](path, backbone)
    assert not witness.exists()
    assert caught.value.fix
    pickle.loads(path.read_bytes())
    assert witness.exists()  # it would have


def test_advice_for_pickles_says_how_to_convert(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a pickle, which can run any code") as caught:
        read_tensors(tmp_path / "x.pt")
    assert "safetensors.torch.save_file" in caught.value.fix
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"\xff" * 8,
        b"\x10\0\0\0\0\0\0\0{}",
        b"\2\0\0\0\0\0\0\0{}",
        b"\x03\0\0\0\0\0\0\0[1]",
        b"PK\x03\x04" * 9,
    ],
)
def test_what_is_no_safetensors_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_tensors(path)
    assert caught.value.where == str(path)
    assert "fetch or create the file again" in caught.value.fix


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.safetensors", {"<x>": rows(2), "<y>": rows(3)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            read_tensors(path)


def test_where_the_newest_checkpoint_is_damaged_an_older_one_is_offered(tmp_path: Path) -> None:
    line = torch.nn.Linear(2, 1)
    kept = Checkpoints(
        tmp_path, line, list(line.parameters()), torch.optim.AdamW(line.parameters()), None, None
    )
    kept.save(1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "older")
    kept.save(2)
    file = tmp_path / "step-00000002/parameters.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError) as caught:
        kept.restore()
    assert "starts anew" in caught.value.fix
    (tmp_path / "older").rename(tmp_path / "step-00000001")
    with pytest.raises(ArtifactError, match=r"parameters\.safetensors") as caught:
        kept.restore()
    assert "goes on from step-00000001" in caught.value.fix
    assert str(caught.value.where).endswith("step-00000002")
    shutil.rmtree(tmp_path / "step-00000002")
    assert kept.restore() == 1


def test_numbers_that_are_none_are_refused_with_the_tensors_name(tmp_path: Path) -> None:
    for value in ("nan", "inf", "-inf"):
        path = saved(tmp_path / "x.safetensors", {"<x>": rows(), "<y>": torch.full((1, 4), float(value))})
        with pytest.raises(
            ArtifactError, match="1 of 2 tensors hold values that are not finite, first '<y>'"
        ):
            read_tensors(path)


def test_shapes_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    for shape in ((2, 3, 4), (0, 32), ()):
        path = saved(tmp_path / "x.safetensors", {"<x>": torch.zeros(shape)})
        with pytest.raises(ArtifactError, match="expected rows"):
            read_embedding(path)


# -- code beside models


def test_code_of_a_model_is_never_run(tiny_pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sd"
    folder.mkdir()
    for part in tiny_pipeline.iterdir():
        (folder / part.name).symlink_to(part)
    index = json.loads((tiny_pipeline / "model_index.json").read_text())
    (folder / "model_index.json").unlink()
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["mine", "MyUNet"]}))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass MyUNet: pass\n")
    with pytest.raises(ArtifactError, match="unet is 'MyUNet'"):
        StableDiffusion.from_pretrained(str(folder))
    assert not (tmp_path / "ran").exists()


def test_code_of_a_captioner_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto = {"AutoConfig": "mine.C", "AutoModelForImageTextToText": "mine.M", "AutoProcessor": "mine.P"}
    config = json.dumps({"model_type": "mine", "auto_map": auto})
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        (tmp_path / name).write_text(config)
    saved(tmp_path / "model.safetensors", {"x": rows()})
    with pytest.raises(EnvironmentSetupError, match="cannot load the captioner") as caught:
        Captioner.from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()
    assert "Salesforce/blip2-opt-2.7b" in caught.value.fix


def test_no_recipe_can_ask_for_code(tmp_path: Path) -> None:
    pair = {
        "source": "mini-day",
        "target": "mini-fog",
        "backbone": "stable-diffusion",
        "head": "semantic-fpn",
    }
    unsafe = {"trust_remote_code": True}
    inner = {"backbone": {"name": "stable-diffusion", "settings": unsafe}}
    for fields in (unsafe, {"captions": unsafe}, {"adapt": unsafe}, inner):
        with pytest.raises(UsageError, match="unknown key"):
            Recipe.from_mapping(pair | fields)


def test_every_module_imports_without_extras_and_without_a_network() -> None:
    code = """
import importlib, importlib.machinery, pkgutil, socket, sys
def refuse(*a, **k): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
finder, absent = importlib.machinery.PathFinder, {"bitsandbytes", "xformers", "faster_coco_eval", "pycocotools"}
find = finder.find_spec
finder.find_spec = lambda name, *a, **k: None if name.split(".")[0] in absent else find(name, *a, **k)
for package in ("tadp_da", "personalize", "adapt", "benchmarks"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


# -- LoRA files


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
