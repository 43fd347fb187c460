"""A base model is more than its weights: word ids, noise and configuration decide what a concept means on it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.base_model import BaseModel
from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError
from tadp_da.run import Run
from tadp_da.settings import Choice

CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "betas": ("scheduler/scheduler_config.json", {"beta_end": 0.02}),
    "v": ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
    "heads": ("unet/config.json", {"attention_head_dim": 8}),
    "scaling": ("vae/config.json", {"scaling_factor": 0.5}),
    "activation": ("text_encoder/config.json", {"hidden_act": "gelu"}),
    "padding": ("tokenizer/tokenizer_config.json", {"pad_token": "!"}),
}
SAMPLER = ("scheduler/scheduler_config.json", {"clip_sample": True})


def changed(base: Path, to: Path, file: str, fields: dict[str, Any]) -> Path:
    shutil.copytree(base, to)
    edit(to / file, fields)
    return to


def edit(file: Path, fields: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def other_ids(base: Path, to: Path) -> Path:
    """The same words, two of which have each other's id."""
    shutil.copytree(base, to)
    file = to / "tokenizer/tokenizer.json"
    known = json.loads(file.read_text())
    words = known["model"]["vocab"]
    words["night</w>"], words["day</w>"] = words["day</w>"], words["night</w>"]
    file.write_text(json.dumps(known))
    return to


def facts(model: Path, tmp_path: Path) -> dict[str, Any]:
    base = BaseModel(backbone=Choice(name="stable-diffusion"), model=str(model))
    return base.facts(Run(folder=tmp_path), features=False)


@pytest.mark.parametrize("what", [*CHANGES, "ids"])
def test_a_concept_of_a_base_with_other_words_or_noise_is_refused(
    backbone: Any, tiny_pipeline: Path, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "other"
    other_ids(tiny_pipeline, folder) if what == "ids" else changed(tiny_pipeline, folder, *CHANGES[what])
    other = StableDiffusion.from_pretrained(str(folder))
    rows = torch.zeros(1, backbone.unet.config.cross_attention_dim)
    concept = Concept(word="<x>", domain="d", backbone=backbone.fingerprint, method="test", rows=rows)
    with pytest.raises(ArtifactError, match="was learned on backbone"):
        other.load_concept(concept)
    backbone.load_concept(concept)


def test_a_base_that_is_changed_in_its_place_makes_other_artifacts(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    before, folder = facts(tiny_pipeline, tmp_path), tmp_path / "base"
    shutil.copytree(tiny_pipeline, folder)
    assert facts(folder, tmp_path) == before, "a moved model is the same model"
    edit(folder / SAMPLER[0], SAMPLER[1])
    assert {k for k, v in facts(folder, tmp_path).items() if before[k] != v} == {"sampler"}
    edit(folder / CHANGES["betas"][0], CHANGES["betas"][1])
    os.utime(folder / CHANGES["betas"][0], ns=(1, 1))
    assert {k for k, v in facts(folder, tmp_path).items() if before[k] != v} == {"base", "sampler"}


def test_a_base_that_was_saved_again_is_the_same(backbone: Any, tmp_path: Path) -> None:
    backbone.write_weights(tmp_path / "again", torch.float32)
    again = StableDiffusion.from_pretrained(str(tmp_path / "again"))
    assert (again.fingerprint, again.sampler) == (backbone.fingerprint, backbone.sampler)
