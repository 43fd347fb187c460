"""Models and embeddings from anywhere: what would run code, what is damaged, what does not fit."""

from __future__ import annotations

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

from benchmarks.recipe import Recipe
from tadp_da.backbones.sd.exchange import import_concept, read_embedding, read_lora
from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.captions.captioner import Captioner
from tadp_da.captions.rewrite import Rewrite, fit
from tadp_da.concept import ROWS, Concept
from tadp_da.errors import ArtifactError, DataError, EnvironmentSetupError, UsageError
from tadp_da.storage.tensors import read_tensors
from tadp_da.training.checkpoint import Checkpoints
from tests.faults.concepts import WIDTH, concept_of, rows, saved

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
    assert "the model that it was learned on (--model" in caught.value.fix
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
    assert "python -c" in caught.value.fix
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
    file = tmp_path / "step-00000002/state.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError) as caught:
        kept.restore()
    assert "starts anew" in caught.value.fix
    (tmp_path / "older").rename(tmp_path / "step-00000001")
    with pytest.raises(ArtifactError, match=r"state\.safetensors") as caught:
        kept.restore()
    assert "goes on from step-00000001" in caught.value.fix
    assert str(caught.value.where).endswith("step-00000002")
    shutil.rmtree(tmp_path / "step-00000002")
    assert kept.restore() == 1
    (tmp_path / "step-00000001/manifest.json").write_text('{"step": 1, "files": {}}')
    (tmp_path / "step-00000001/state.safetensors").unlink()
    with pytest.raises(ArtifactError, match="another version wrote it"):
        kept.restore()


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
