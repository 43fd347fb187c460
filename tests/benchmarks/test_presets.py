"""Presets for smaller GPUs: they change what they say, and run with all of their switches on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.cost.estimate import Planner
from benchmarks.recipe import read_benchmark
from tadp_da import api
from tadp_da.errors import UsageError
from tests.conftest import DEVICES
from tests.tadp_da.domains import trees

DOMAINS = {"source": "mini-day", "target": "mini-night"}
SMALLER = ("stable-diffusion-24gb", "stable-diffusion-12gb")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("preset", [pytest.param(SMALLER[0], marks=pytest.mark.slow), SMALLER[1]])
def test_a_row_runs_with_all_switches_on(
    command: Callable[..., int], tiny_pipeline: Path, tmp_path: Path, preset: str, device: str
) -> None:
    for name in ("day", "night"):
        trees.picture(tmp_path / name / "a.png")
    trees.mask(tmp_path / "masks/a.png", (0, 1, 0, 1))
    small = (
        "adapt.steps=2 adapt.batch=2 adapt.augment.crop=[64,64] inference.window=null inference.stride=null "
    )
    small += "inference.long=64 head.settings.width=16 personalize.settings.steps=2 personalize.settings.resolution=64 "
    small += "personalize.settings.previews.steps=1"
    words = ["run", "--preset", preset, "--rows", "best", "--model", tiny_pipeline, "--captioner", "mini"]
    words += ["--source-images", tmp_path / "day", "--source-masks", tmp_path / "masks", "--classes", "a,b"]
    words += ["--target-images", tmp_path / "night", "--target-style", "dark", "--out", tmp_path / "run"]
    sets = (word for each in small.split() for word in ("--set", each))
    assert command(*words, "--device", device, *sets) == 0
    (place,) = (tmp_path / "run").glob("model-*")
    backbone = api.load_model(place).backbone
    assert (backbone.settings.vae_dtype == "bf16") == (preset == SMALLER[1])
    assert not any("lora" in name for name in backbone.state_dict()), "low-rank layers are fused"


def test_what_extends_a_preset_is_it_but_for_its_changes() -> None:
    whole = read_benchmark("stable-diffusion", base=DOMAINS, kind="presets").rows
    for preset in SMALLER:
        rows = read_benchmark(preset, base=DOMAINS, kind="presets").rows
        assert list(rows) == list(whole)
        for name, row in rows.items():
            assert row.adapt.gradient_checkpointing
            assert row.adapt.optimizer == "adamw8bit"
            same = {"backbone": whole[name].backbone, "adapt": whole[name].adapt}
            if row.personalize.name == "dreambooth":
                assert row.personalize.settings["gradient_checkpointing"]
                assert row.personalize.settings["prompt"] == whole[name].personalize.settings["prompt"]
                same["personalize"] = whole[name].personalize
            assert dataclasses.replace(row, **same) == whole[name]


@pytest.mark.parametrize("preset", ["stable-diffusion", *SMALLER])
def test_a_row_that_changes_one_part_of_augmentation_keeps_the_others(preset: str) -> None:
    rows = read_benchmark(preset, base=DOMAINS, kind="presets").rows
    ours = dataclasses.replace(rows["null"].adapt.augment, photometric=False)
    assert rows["mic"].adapt.augment == ours
    assert ours.crop == (512, 512)


def test_a_table_that_extends_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: {file}\nrows: {{'null': {{strategy: 'null'}}}}")
    with pytest.raises(UsageError, match="cannot extend"):
        read_benchmark(str(file))


@pytest.mark.slow
def test_each_preset_fits_the_gpu_that_it_names() -> None:
    held = {}
    for preset in ("stable-diffusion", *SMALLER):
        row = read_benchmark(preset, base=DOMAINS | {"model": "sd-1.5"}, kind="presets").rows["null"]
        held[preset] = sum(Planner(precision="bf16").cost(row).memory.values()) / 1e9
    assert held["stable-diffusion"] < 20
    assert held["stable-diffusion-24gb"] < 12
    assert held["stable-diffusion-12gb"] < 6
