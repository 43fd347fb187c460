"""Both ways of a step are real trainings of the same thing."""

from __future__ import annotations

import argparse
import copy

import pytest
import torch

from benchmarks.profiling import step_speed
from benchmarks.profiling.full_size_cases import TINY, backbone
from benchmarks.profiling.step_speed import Script, StepTimes, Turns, both_ways, compare, draw_images
from personalize.methods.dreambooth import DreamBooth
from personalize.methods.textual_inversion import TextualInversion
from tadp_da.backbones.stable_diffusion import BackboneSettings
from tadp_da.run import Run

CPU = torch.device("cpu")
COMMON = {"batch": 2, "resolution": 64, "learning_rate": 1e-2}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return backbone(TINY, BackboneSettings(), text_layers=1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("TADP_DA_CACHE", "off")
    return Run(folder=tmp_path, device="cpu", quiet=True)


def _moved(matrix: torch.Tensor, old: torch.Tensor) -> list[int]:
    return (matrix.detach() != old).any(1).nonzero().flatten().tolist()


def test_both_ways_of_textual_inversion_move_the_new_row_only(model, run, tmp_path):
    chosen = TextualInversion(word="<dusk>", like="night", **COMMON)
    images, unet = draw_images(tmp_path, 64), copy.deepcopy(model.unet.state_dict())
    with both_ways(model, images, chosen, run) as turns:
        matrix = model.text_encoder.get_input_embeddings().weight.detach()
        old, (row,) = matrix.clone(), model.tokenizer.convert_tokens_to_ids(["<dusk>"])
        turns.ours()
    assert turns.once > 0
    assert _moved(model.text_encoder.get_input_embeddings().weight, old) == [row]
    script = Script(model, copy.deepcopy(model.text_encoder), images, "a <dusk> street", chosen)
    start = script.text_encoder.get_input_embeddings().weight.detach().clone()
    script.whole_matrix(["<dusk>"])()
    assert _moved(script.text_encoder.get_input_embeddings().weight, start) == [row]
    assert all(torch.equal(value, unet[name]) for name, value in model.unet.state_dict().items())


def test_both_ways_of_dreambooth_move_the_unet(model, run, tmp_path):
    with both_ways(model, draw_images(tmp_path, 64), DreamBooth(**COMMON), run) as turns:
        for way in (turns.ours, turns.theirs):
            before = copy.deepcopy(model.unet.state_dict())
            way()
            same = [
                name for name, value in model.unet.state_dict().items() if torch.equal(value, before[name])
            ]
            assert len(same) < len(before) / 4, same
    assert not any(p.requires_grad for p in model.text_encoder.parameters())


def test_the_first_step_is_not_counted_and_ways_take_turns():
    called: list[str] = []
    turns = Turns(lambda: called.append("ours"), lambda: called.append("theirs"), 0.0)
    times = compare(turns, 3, CPU)
    assert called == ["ours", "theirs"] * 4
    assert (len(times.ours), len(times.theirs)) == (3, 3)


def test_the_ratio_is_that_of_neighbours_in_time():
    times = StepTimes(ours=[1, 10, 1], theirs=[2, 20, 1.4], once=3.0)
    assert times.ratio == 2
    assert times.row("dreambooth") == ["dreambooth", "1", "0.5", "2.00", "1.5", "met", "3.0"]
    assert "missed" in StepTimes(ours=[1], theirs=[1.4], once=0).row("x")


def test_a_method_of_the_table_is_measured_from_its_options(monkeypatch):
    monkeypatch.setenv("TADP_DA_CACHE", "off")
    options = argparse.Namespace(
        shape="tiny", batch=1, optimizer="adamw", size=64, steps=1, device="cpu", channels_last=True
    )
    for method in ("textual-inversion", "dreambooth"):
        assert step_speed.run(method, options).ratio > 0
