"""Shapes of models that need not be here."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tadp_da.backbones.sd import shapes
from tadp_da.backbones.sd import single_file as _single_file
from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.storage.hub import DIFFUSION


def _counted(model: Any) -> list[int]:
    return [sum(p.numel() for p in part.parameters()) for part in model.parts().values()]


def test_the_built_in_shape_is_that_of_stable_diffusion() -> None:
    model = StableDiffusion.on_meta("sd-1.5")
    assert _counted(model) == [859_520_964, 83_653_863, 123_060_480]
    assert model.spec.widths() == {8: 320, 16: 717, 32: 1357, 64: 1280}


def test_the_built_in_shape_of_version_2_is_that_of_stable_diffusion_2() -> None:
    model = StableDiffusion.on_meta("sd-2.1")
    assert _counted(model) == [865_910_724, 83_653_863, 340_387_840]
    assert model.default_resolution == 768
    assert shapes.configuration("sd-2.1-base")["unet"]["sample_size"] == 64


def test_every_alias_has_a_built_in_shape_and_so_have_its_repositories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(shapes.SHAPES) == set(DIFFUSION)
    for alias, sources in DIFFUSION.items():
        for source in sources:
            assert shapes.configuration(source.repo) is shapes.configuration(alias)
            assert shapes.configuration(f"{source.repo}@main") is shapes.configuration(alias)


def test_shapes_of_other_models_are_read_from_the_hubs_cache(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, cache = "1" * 40, tmp_path / "hub/models--who--what"
    no_weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(tiny_pipeline, cache / "snapshots" / commit, ignore=no_weights)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("who/what", f"who/what@{commit}"):
        assert shapes.configuration(name) == shapes.configuration(str(tiny_pipeline))
    with pytest.raises(UsageError, match="not in the hub's cache"):
        shapes.configuration("who/else")


def test_shapes_of_single_files_are_those_beside_them_or_those_that_they_tell(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    tensors = {
        _single_file._TEXT_KEY: torch.zeros(1, 1024),
        _single_file._INPUT: torch.zeros(1, 4, 1, 1),
    }
    file = tmp_path / "v2-1_512-mine.safetensors"
    save_file(tensors, file)
    assert shapes.configuration(str(file)) is shapes.SHAPES["sd-2.1-base"]
    shutil.copytree(tiny_pipeline, file.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    assert shapes.configuration(str(file)) == shapes.configuration(str(tiny_pipeline))
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="not the tensors of an original"):
        shapes.configuration(str(tmp_path / "other.safetensors"))
