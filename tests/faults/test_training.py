"""A training that is interrupted ends in the same bits; one that learns nothing is stopped and says why."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tadp_da.errors import DivergedError, EnvironmentSetupError, InterruptedRunError, UsageError
from tadp_da.heads.semantic_fpn import SemanticFPN
from tadp_da.run import Run
from tadp_da.training.loop import LoopSettings, fit
from tadp_da.training.monitor import STEPS, check_embeddings
from tadp_da.training.signals import attended
from tadp_da.types import FeatureSpec, LabelSpace
from tests.faults.victims import Line, Points, train, weights

WIDE = 4096  # parameters of so many values are those whose state is kept in 8 bits


def signalled(forward: int) -> Line:
    """A line that is told to stop in this forward pass, counted from 1; every step has two."""
    calls = itertools.count(1)
    return Line(lambda: next(calls) == forward and signal.raise_signal(signal.SIGTERM), WIDE)


def last_state(folder: Path) -> dict[str, bytes]:
    """Parameters, their average and the optimizer's state as they were saved after the last step."""
    (last,) = (folder / "unfinished/line").iterdir()
    return {path.name: path.read_bytes() for path in last.iterdir() if path.name != "manifest.json"}


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([1], id="in the first step"),
        pytest.param([3], id="inside accumulation"),
        pytest.param([6], id="mid-epoch"),
        pytest.param([10], id="at the end of an epoch"),
        pytest.param([14], id="in the last step"),
        pytest.param([2, 2, 1], id="three times in one epoch"),
    ],
)
def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path, stops: list[int], optimizer: str) -> None:
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    settings = {"ema": 0.6, "optimizer": optimizer, "checkpoint_every": 100}
    whole = Line(width=WIDE)
    train(tmp_path / "whole", whole, **settings)
    for stop in stops:
        with attended(), pytest.raises(InterruptedRunError, match="the same command again"):
            train(tmp_path / "cut", signalled(stop), **settings)
    resumed = Line(width=WIDE)
    train(tmp_path / "cut", resumed, **settings)
    assert all(
        torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(resumed).values(), strict=True)
    )
    assert last_state(tmp_path / "whole") == last_state(tmp_path / "cut")
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert metrics[0] == metrics[1]
    assert len(metrics[0].splitlines()) == 7
    if optimizer == "adamw8bit":
        assert b"U8" in last_state(tmp_path / "cut")["state.safetensors"]


def test_more_steps_go_on_and_fewer_than_were_taken_are_refused(tmp_path: Path) -> None:
    train(tmp_path, steps=3)
    assert [step.index for step in train(tmp_path, steps=5)] == [4, 5]
    with pytest.raises(UsageError, match="set steps to 5 or more"):
        train(tmp_path, steps=4)


def test_a_finished_training_takes_no_further_step(tmp_path: Path) -> None:
    first, again = Line(), Line()
    train(tmp_path, first, ema=0.5)
    assert train(tmp_path, again, ema=0.5) == []
    assert all(torch.equal(weights(first)[name], weights(again)[name]) for name in weights(first))


class Spoiled(Points):
    """From the second epoch on, one value of one sample is not a number."""

    def fetch(self, index: int, rng: np.random.Generator) -> torch.Tensor:
        self.seen = getattr(self, "seen", 0) + 1
        sample = super().fetch(index, rng)
        return sample * float("nan") if self.seen == 15 else sample


def nan_in_gradient(step: int) -> Line:
    line, calls = Line(), itertools.count(1)
    spoil = lambda gradient: gradient * float("nan") if next(calls) == 2 * step else gradient  # noqa: E731
    line.layer[0].weight.register_hook(spoil)
    return line


@pytest.mark.parametrize("fault", ["loss", "gradient", "one pixel"])
def test_what_is_not_finite_stops_names_the_batch_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, fault: str
) -> None:
    line, examples = Line(), Points()
    if fault == "loss":
        calls = itertools.count(1)
        line.before = lambda: next(calls) == 5 and line.layer[2].bias.data.fill_(float("inf"))
    elif fault == "gradient":
        line = nan_in_gradient(3)
    else:
        examples = Spoiled()
    with pytest.raises(DivergedError, match="not finite") as caught:
        train(tmp_path, line, examples=examples)
    assert caught.value.exit_code == 5
    told = str(caught.value.where)
    assert told.startswith("step 3, samples ")
    assert told.count(".png") == 6
    assert "look at these samples; lower the learning rate" in caught.value.fix
    (kept,) = (tmp_path / "unfinished/line").iterdir()
    assert kept.name == "step-00000002"
    rest = Line()
    assert [step.index for step in train(tmp_path, rest)] == [3, 4, 5, 6, 7]
    assert all(value.isfinite().all() for value in weights(rest).values())


def test_a_loss_that_explodes_is_warned_of_before_it_ends_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line, calls = Line(), itertools.count(1)
    line.before = lambda: next(calls) > 12 and line.layer[2].weight.data.mul_(30)
    with caplog.at_level(logging.WARNING), pytest.raises(DivergedError, match="not finite"):
        train(tmp_path, line, steps=40, lr=1e-3)
    warned = [record.getMessage() for record in caplog.records]
    assert "step 7: the loss jumped to" in warned[0]
    assert "lower the learning rate" in warned[0]


def test_a_loss_that_wanders_is_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        train(tmp_path, steps=30)
    assert caplog.records == []


def test_nothing_that_could_move_is_refused(tmp_path: Path) -> None:
    line, run = Line(), Run(folder=tmp_path, device="cpu")
    with pytest.raises(UsageError, match="train a head"):
        next(fit(line, [], {"source": Points()}, LoopSettings(steps=1, batch=1), run))


@pytest.mark.parametrize("reason", ["no gradient", "rate 0"])
def test_parameters_that_never_move_end_the_run(tmp_path: Path, reason: str) -> None:
    line = Line()
    if reason == "no gradient":
        for parameter in line.layer.parameters():
            parameter.register_hook(torch.zeros_like)
    with pytest.raises(DivergedError) as caught:
        train(tmp_path, line, steps=9, lr=0.0 if reason == "rate 0" else 0.01)
    assert caught.value.exit_code == 5
    assert f"step {STEPS}" in str(caught.value.where)
    advice = {"no gradient": "the trained part is used", "rate 0": "raise the learning rate"}
    assert advice[reason] in caught.value.fix


def test_the_end_of_a_schedule_is_no_standstill(tmp_path: Path) -> None:
    line, run = Line(), Run(folder=tmp_path, device="cpu")
    groups = [{"params": list(line.layer.parameters()), "lr": 0.01}]

    def steps(stop: int | None) -> list[int]:
        settings = LoopSettings(steps=12, batch=2, checkpoint_every=1)
        taken = fit(
            line, groups, {"source": Points()}, settings, run, checkpoints=tmp_path / "c",
            schedule=lambda step: 1.0 if step < 6 else 0.0,
        )  # fmt: skip
        return [step.index for step in itertools.islice(taken, stop)]

    steps(7)
    assert steps(None) == list(range(7, 13))


def test_a_mask_of_ignored_pixels_only_gives_a_loss_and_gradients_of_zero() -> None:
    head = SemanticFPN(
        FeatureSpec({4: 8}, {}), LabelSpace("segmentation", ("a", "b")), SemanticFPN.Settings(width=8)
    )
    logits = torch.randn(1, 2, 8, 8, requires_grad=True)
    loss = head.loss(logits, torch.full((1, 8, 8), 255))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_text_that_tells_nothing_is_warned_of_and_an_error_where_strict(
    backbone: Any, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = ("a car on a street", "a dark night")
    with torch.no_grad():
        check_embeddings(backbone.encode_text(prompts), prompts, strict=True)
        check_embeddings(backbone.encode_text(("",)), ("",), strict=True)
        (norm,) = (m for n, m in backbone.text_encoder.named_modules() if n.endswith("final_layer_norm"))
        norm.weight.zero_()
        same = backbone.encode_text(prompts)
        norm.bias.zero_()
        zero = backbone.encode_text(prompts)
    norm.bias.data.uniform_()
    for embeddings, told in (
        (zero, "is 0"),
        (backbone.encode_text(prompts).detach(), "are all equal"),
        (same, ""),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            check_embeddings(embeddings, prompts, strict=False)
        assert told in caplog.text
        assert "check the text encoder's weights" in caplog.text
        with pytest.raises(DivergedError, match="told nothing") as caught:
            check_embeddings(embeddings, prompts, strict=True)
        assert caught.value.exit_code == 5


def test_memory_that_does_not_suffice_is_told_with_settings_that_do(tmp_path: Path) -> None:
    line = Line(lambda: torch.empty(2**60, dtype=torch.uint8))  # more than any machine has
    with pytest.raises(EnvironmentSetupError, match="does not fit into the memory of cpu") as caught:
        train(tmp_path, line)
    assert "set batch=1 accumulate=6 (the same step in half the memory)" in caught.value.fix
    assert "gradient_checkpointing=true" in caught.value.fix
    assert "allocate" in str(caught.value.where)


def test_the_seed_decides_and_the_number_of_workers_does_not(tmp_path: Path) -> None:
    ends = []
    for name, workers in (("alone", 0), ("one", 1), ("two", 2), ("again", 0)):
        line = Line()
        torch.manual_seed(len(ends))  # the global stream must not matter
        train(tmp_path / name, line, workers=workers)
        ends.append(((tmp_path / name / "metrics.jsonl").read_text(), last_state(tmp_path / name)))
    assert all(end == ends[0] for end in ends)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_spawned_workers_no_terminal_and_no_input_change_nothing(tmp_path: Path, workers: int) -> None:
    train(tmp_path / "here")
    code = (
        "import multiprocessing, pathlib\n"
        "from tests.faults.victims import train\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        f"    train(pathlib.Path({str(tmp_path / 'there')!r}), workers={workers})\n"
    )
    (tmp_path / "main.py").write_text(code)
    plain = os.environ | {"NO_COLOR": "1", "TERM": "dumb", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(
        [sys.executable, tmp_path / "main.py"], check=True, stdin=subprocess.DEVNULL, env=plain, timeout=240
    )
    assert last_state(tmp_path / "here") == last_state(tmp_path / "there")
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("here", "there")]
    assert metrics[0] == metrics[1]
