from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tadp_da.concept import LORA, ROWS, Concept
from tadp_da.errors import ArtifactError


def _tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _concept(**given) -> Concept:
    facts = {"word": "<night>", "domain": "dark-zurich", "backbone": "0" * 32, "method": "test"}
    return Concept(**(facts | given))


KINDS = {
    "rows": {"rows": _tensor(2, 8)},
    "weights": {
        "weights": {"a.weight": _tensor(3, 4), "b": _tensor(2).half()},
        "part": "unet",
        "part_config": {"width": 3},
    },
    "lora": {"lora": {"unet.a.lora.down.weight": _tensor(2, 4), "unet.a.lora.up.weight": _tensor(3, 2)}},
    "nothing": {"word": ""},
}


@pytest.fixture(params=KINDS)
def concept(request) -> Concept:
    return _concept(**KINDS[request.param], settings={"steps": 3})


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_saving_what_was_loaded_is_the_identity(concept, tmp_path):
    concept.save(tmp_path / "one")
    loaded = Concept.load(tmp_path / "one")
    assert loaded.fingerprint == concept.fingerprint
    assert (loaded.word, loaded.domain, loaded.settings) == (concept.word, concept.domain, {"steps": 3})
    assert loaded.tokens == concept.tokens
    loaded.save(tmp_path / "two")
    assert _files(tmp_path / "two") == _files(tmp_path / "one")


def test_the_fingerprint_tells_concepts_apart():
    prints = {_concept(**given).fingerprint for given in KINDS.values()}
    prints |= {_concept(**KINDS["rows"], backbone="1" * 32).fingerprint}
    prints |= {_concept(rows=KINDS["rows"]["rows"] + 1e-6).fingerprint}
    prints |= {_concept(**KINDS["rows"] | {"word": "<dusk>"}).fingerprint}
    assert len(prints) == len(KINDS) + 3
    assert _concept(**KINDS["rows"], settings={"lr": 1}).fingerprint == _concept(**KINDS["rows"]).fingerprint


def test_a_prompt_names_every_token_of_a_concept():
    assert _concept(rows=_tensor(3, 8)).prompt_word == "<night> <night>_1 <night>_2"
    assert _concept(word="sks", **KINDS["weights"]).prompt_word == "sks"
    assert _concept(word="").prompt_word is None


def test_word_and_weights_come_apart_for_ablations():
    both = _concept(rows=_tensor(1, 8), **KINDS["weights"])
    assert both.only_word().prompt_word == "<night>"
    assert not both.only_word().weights
    assert both.only_weights().prompt_word is None
    assert both.only_weights().rows is None
    assert both.only_weights().weights == both.weights
    assert len({c.fingerprint for c in (both, both.only_word(), both.only_weights())}) == 3


def test_learned_rows_open_in_plain_diffusers(tiny_pipeline, tmp_path):
    from diffusers import StableDiffusionPipeline

    concept = _concept(rows=_tensor(2, 32))
    concept.save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    pipeline.load_textual_inversion(tmp_path, weight_name=ROWS)
    ids = pipeline.tokenizer.convert_tokens_to_ids(list(concept.tokens))
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[ids], concept.rows)


@pytest.mark.parametrize("file", [ROWS, LORA, "unet/diffusion_pytorch_model.safetensors"])
def test_changed_or_broken_tensors_are_refused(file, tmp_path):
    _concept(**KINDS["rows"], **KINDS["lora"], **KINDS["weights"]).save(tmp_path)
    path = tmp_path / file
    tensors = {k: v.clone() for k, v in load_file(path).items()}
    save_file({k: v + 1 for k, v in tensors.items()}, path)
    with pytest.raises(ArtifactError, match="not those that were saved") as caught:
        Concept.load(tmp_path)
    assert "make it again" in caught.value.fix
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtifactError, match="not a readable concept"):
        Concept.load(tmp_path)


def test_what_is_no_concept_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="not a readable concept") as caught:
        Concept.load(tmp_path)
    assert caught.value.exit_code == 6
    _concept(**KINDS["rows"]).save(tmp_path)
    facts = json.loads((tmp_path / "concept.json").read_text())
    (tmp_path / "concept.json").write_text(json.dumps(facts | {"word": "<other>"}))
    with pytest.raises(ArtifactError):
        Concept.load(tmp_path)
