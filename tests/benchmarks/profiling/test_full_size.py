"""The measurement of full size, on networks of next to no width."""

from __future__ import annotations

import os

import pytest
import torch

from benchmarks.profiling import full_size
from benchmarks.profiling.full_size_cases import CASES, TINY, Bench, Published, backbone, bare_unet
from benchmarks.profiling.measure import MIB, Cost, apart, measure
from tadp_da.backbones.sd.feature_layers import feature_layers
from tadp_da.backbones.stable_diffusion import BackboneSettings
from tadp_da.errors import EnvironmentSetupError, UsageError

CPU = torch.device("cpu")
SMALL = Bench(size=64, tiny=True)


def test_measurements_become_a_table(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(full_size, "apart", lambda work, *arguments: work(*arguments))
    out = tmp_path / "table.md"
    full_size.main(["--tiny", "--size", "64", "--repeat", "1", "--only", "ours-bf16", "--out", str(out)])
    shown = capsys.readouterr().out
    assert out.read_text() == shown
    assert "| ours, bf16 weights |" in shown
    assert "eager" not in shown
    assert "Tiny stand-in, batch 1, 64 px, 1 rounds" in shown


def test_a_measurement_has_a_process_of_its_own():
    assert apart(os.getppid) == os.getpid()


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs(name):
    cost = SMALL.cost(CASES[name])
    assert cost.seconds > 0
    assert cost.cpu_seconds > 0
    assert cost.extra_bytes >= 0


def test_the_reference_sees_what_the_backbone_sees():
    """Eager attention is the slow way to the same numbers, or the comparison would be of two things."""
    torch.manual_seed(0)
    ours = backbone(TINY, BackboneSettings(channels_last=True), text_layers=1)
    plain = bare_unet(TINY)
    plain.load_state_dict(ours.unet.state_dict())
    eager = Published(plain, feature_layers(plain, 8), 16 * 16)
    latents, text = torch.randn(1, 4, 16, 16), torch.randn(1, 77, 32)
    with torch.no_grad():
        expected, found = eager(latents, text), ours.pyramid_of(latents, text, (128, 128))
    torch.testing.assert_close(found.levels(), expected.levels(), rtol=1e-3, atol=1e-4)
    kinds = {name.rpartition(".")[2] for name in eager.maps}
    assert kinds == {"attn1", "attn2"}, "maps of self-attention are kept as well"
    assert max(kept.shape[1] for kept in eager.maps.values()) == 8 * 8, "the finest level's are not"


def test_memory_is_the_peak_above_what_was_there():
    held = torch.ones(64 * MIB)
    cost = measure(lambda: torch.ones(16 * MIB).sum() + held[0], CPU)
    assert 60 * MIB < cost.extra_bytes < 100 * MIB


def test_gradients_are_given_back_before_the_second_time():
    weight = torch.ones(16 * MIB, requires_grad=True)

    def work() -> None:
        weight.sum().backward()

    def reset() -> None:
        weight.grad = None

    assert measure(work, CPU, reset=reset).extra_bytes > 60 * MIB
    assert measure(work, CPU).extra_bytes < 130 * MIB


def _rounds(**seconds: list[float]) -> full_size.Rounds:
    return {name: [Cost(s, s, int(100 * s)) for s in values] for name, values in seconds.items()}


def test_ratios_are_of_the_same_round():
    """A machine that was busy in one round slows both sides of it."""
    said = full_size.table(_rounds(eager=[10, 30, 10], ours=[5, 15, 5.5], bare=[5, 20, 5]))
    assert "| features with maps / eager, time | 0.50 | 0.50 to 0.55 | 0.60 | met |" in said
    assert "| features with maps / bare call, time | 1.00 | 0.75 to 1.10 | 1.05 | met |" in said
    assert "| features with maps / eager, extra memory | 0.50 | 0.50 to 0.55 | 0.25 | missed |" in said


def test_every_goal_is_about_cases_that_exist():
    for goal in full_size.GOALS:
        assert {goal.case, goal.reference} <= set(CASES)
        assert goal.of in Cost.__dataclass_fields__


def test_an_unknown_case_is_refused_with_the_nearest():
    assert full_size.select(["step"]) == [name for name in CASES if name.startswith("step")]
    assert full_size.select(["ours-bf16"]) == ["ours-bf16"]
    with pytest.raises(UsageError, match="did you mean 'step-lora'") as caught:
        full_size.select(["step-loras"])
    assert "choose from: eager, bare" in caught.value.fix


def test_a_measurement_that_dies_is_told_with_advice():
    with pytest.raises(EnvironmentSetupError, match="a measurement failed: BrokenProcessPool") as caught:
        apart(os.abort)
    assert "a machine with more memory" in caught.value.fix


@pytest.mark.gpu
def test_full_size_is_measured_on_the_gpu(capsys):
    full_size.main(["--device", "cuda", "--repeat", "1"])
    assert "Stable Diffusion 1.5, batch 1, 512 px" in capsys.readouterr().out
