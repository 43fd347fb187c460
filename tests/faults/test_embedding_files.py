"""Embeddings of other tools, and what to write in prompts of each tool."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tadp_da.backbones.sd.exchange import import_concept, read_embedding
from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.storage.tensors import read_tensors
from tests.faults.concepts import WIDTH, concept_of, rows, saved
from tests.tadp_da.domains.checks.checked import command


@pytest.mark.parametrize("name", ["*", "emb_params", "clip_l", "<dawn>"])
def test_the_only_embedding_is_taken_under_any_word(tmp_path: Path, name: str) -> None:
    file = saved(tmp_path / "evening.safetensors", {name: rows(2)})
    word, found = read_embedding(file, "<dusk>")
    assert word == "<dusk>"
    assert torch.equal(found, rows(2))
    if name == "<dawn>":
        assert read_embedding(file)[0] == name
    else:
        with pytest.raises(UsageError, match="does not say its word") as caught:
            read_embedding(file)
        assert "--word '<evening>'" in caught.value.fix


@pytest.mark.parametrize("container", ["dict", "ParameterDict", "bin", "ckpt"])
def test_the_advice_for_pickles_leads_to_a_file_that_is_read(
    backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str
) -> None:
    row = torch.nn.Parameter(rows(2))
    pickled: dict[str, Any] = {
        "dict": {"string_to_token": {"*": 265}, "string_to_param": {"*": row}, "name": "dusk", "step": 1},
        "ParameterDict": {"string_to_param": torch.nn.ParameterDict({"*": row}), "name": "dusk"},
        "bin": {"<dusk>": rows(2)},
        "ckpt": {"state_dict": {"<dusk>": rows(2)}, "epoch": 3},
    }[container]
    file = tmp_path / "it's dusk.pt"
    torch.save(pickled, file)
    with pytest.raises(ArtifactError) as caught:
        read_embedding(file)
    _, line = caught.value.fix.split("convert the file with ")
    python, option, code, *files = shlex.split(line)
    assert (python, option) == ("python", "-c")
    monkeypatch.setattr(sys, "argv", ["-c", *files])
    exec(code, {})
    concept = import_concept(backbone, word="<dusk>", embedding=Path(files[1]))
    assert torch.equal(concept.rows, rows(2))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_of_eight_bits_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = rows(2).to(dtype)
    assert torch.equal(read_embedding(saved(tmp_path / "x.safetensors", {"<x>": stored}))[1], stored.float())
    broken = saved(tmp_path / "nan.safetensors", {"<x>": torch.full((1, WIDTH), float("nan")).to(dtype)})
    with pytest.raises(ArtifactError, match="not finite"):
        read_tensors(broken)


def test_integers_are_no_embedding(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="int8, expected rows"):
        read_embedding(saved(tmp_path / "x.safetensors", {"<x>": torch.ones(1, WIDTH, dtype=torch.int8)}))


def test_an_embedding_of_stable_diffusion_xl_is_named(tmp_path: Path) -> None:
    both = {"clip_l": rows(2, 768), "clip_g": rows(2, 1280)}
    for word in ("", "clip_l"):
        with pytest.raises(ArtifactError, match="an embedding for Stable Diffusion XL") as caught:
            read_embedding(saved(tmp_path / "x.safetensors", both), word)
        assert "Stable Diffusion 1.x" in caught.value.fix


@pytest.mark.parametrize("vectors", [1, 3])
def test_the_advised_prompt_means_the_same_in_plain_diffusers(
    backbone: Any, tiny_pipeline: Path, tmp_path: Path, vectors: int
) -> None:
    from diffusers import StableDiffusionPipeline

    concept_of(backbone, rows=rows(vectors)).save(tmp_path)
    concept = Concept.load(tmp_path)
    backbone.load_concept(concept)
    backbone.save(tmp_path / "model")
    plain = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    plain.load_textual_inversion(tmp_path)
    saved_model = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    advice = concept.prompt_advice
    ours, theirs = concept.prompt_word, "<dusk>"
    if vectors > 1:
        assert f"in prompts of tadp-da write {ours};" in advice
        assert f"in plain diffusers, after load_textual_inversion, write {theirs} alone" in advice
    else:
        assert advice == f"its word in prompts is {ours}" == f"its word in prompts is {theirs}"
    expected = backbone.encode_text([f"a {ours} street"])
    for pipeline in (plain, saved_model):
        found, _ = pipeline.encode_prompt(f"a {theirs} street", "cpu", 1, do_classifier_free_guidance=False)
        torch.testing.assert_close(found, expected)


def test_commands_say_what_to_write_where(
    tiny_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tmp_path / "dusk.safetensors", {"*": rows(2)})
    words = ["concept", "import", "--embedding", file, "--word", "<dusk>", "--model", tiny_pipeline]
    assert command(*words, "--out", tmp_path / "dusk") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "in prompts of tadp-da write <dusk> <dusk>_1; in plain diffusers" in said
    before = sorted((tmp_path / "dusk").iterdir())
    assert command(*words, "--out", tmp_path / "dusk") == 2
    assert "the output folder exists" in capsys.readouterr().err
    assert sorted((tmp_path / "dusk").iterdir()) == before
