"""Laws of the training loop: exact resume, worker independence, refusal of what cannot learn."""

from __future__ import annotations

from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tadp_da.errors import DivergedError, UsageError
from tadp_da.run import Run
from tadp_da.training.data import DeterministicSampler
from tadp_da.training.loop import LoopSettings, Step, fit
from tadp_da.training.objective import ModelLoss
from tests.conftest import DEVICES
from tests.faults.victims import Points


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)
        self.unused = nn.Linear(1, 1)

    def forward(self, batch: Tensor, generators: list[torch.Generator]) -> Tensor:
        jitter = torch.cat([torch.randn(1, generator=g) for g in generators]).to(batch)
        return ((self.layer(batch[:, :1])[:, 0] + 0.01 * jitter - batch[:, 1]) ** 2).mean()


def train(
    folder: Path,
    steps: int = 7,
    stop: int | None = None,
    line: Line | None = None,
    *,
    device: str = "cpu",
    **more: Any,
) -> tuple[Line, list[Step]]:
    line = line or Line()
    settings = LoopSettings(steps=steps, batch=3, accumulate=2, **({"checkpoint_every": 1} | more))
    groups = [{"params": list(line.layer.parameters()), "lr": 0.1, "weight_decay": 0.01}]
    seen = []
    for step in fit(
        line,
        groups,
        {"source": Points()},
        settings,
        Run(folder=folder, seed=5, device=device),
        schedule=lambda s: 1 - s / steps,
        checkpoints=folder / "checkpoints",
    ):
        seen.append(step)
        if stop is not None and step.index == stop + 1:
            break  # the checkpoint of a step stands when the next one begins
    return line, seen


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resumed_run_equals_uninterrupted_bit_for_bit(tmp_path: Path, stop: int, device: str) -> None:
    # 10 samples, 6 per step: the stops lie in mid-epoch and at the end of an epoch (step 5)
    whole, steps = train(tmp_path / "whole", device=device)
    train(tmp_path / "cut", stop=stop, device=device)
    resumed, rest = train(tmp_path / "cut", device=device)
    assert [s.index for s in rest] == list(range(stop + 1, 8))
    assert [s.loss for s in rest] == [s.loss for s in steps[stop:]]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
    assert torch.equal(resumed.layer.bias, whole.layer.bias)


def test_resumed_twice_within_one_epoch(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    train(tmp_path / "cut", stop=1)
    train(tmp_path / "cut", stop=2)
    resumed, _ = train(tmp_path / "cut")
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    alone, _ = train(tmp_path / "a")
    before = set(active_children())
    helped, _ = train(tmp_path / "b", workers=2)
    assert torch.equal(alone.layer.weight, helped.layer.weight)
    assert set(active_children()) == before, "Python's exit would wait for them, and they ignore signals"


def test_only_the_groups_move_and_the_loss_falls(tmp_path: Path) -> None:
    before = Line()
    line, steps = train(tmp_path, steps=40)
    assert steps[-1].loss < 0.3 * steps[0].loss
    assert steps[-1].lrs[0] == pytest.approx(0.1 / 40)
    assert torch.equal(line.unused.weight, before.unused.weight)


def test_the_moving_average_is_the_textbook_one(tmp_path: Path) -> None:
    line, expected = Line(), Line().layer.weight.detach()
    settings = LoopSettings(steps=9, batch=3, ema=0.6)
    groups = [{"params": list(line.layer.parameters()), "lr": 0.1}]
    for step in fit(line, groups, {"source": Points()}, settings, Run(folder=tmp_path, device="cpu")):
        decay = min(0.6, step.index / (9 + step.index)) if step.index > 1 else 0.0
        expected = decay * expected + (1 - decay) * line.layer.weight.detach()
    torch.testing.assert_close(line.layer.weight.detach(), expected)


def test_every_epoch_sees_every_sample_once() -> None:
    def sampler(rank: int = 0, world: int = 1) -> DeterministicSampler:
        return DeterministicSampler(10, batch=2, accumulate=3, steps=5, seed=1, rank=rank, world=world)

    plan = sampler()
    flat = [where for batch in plan for where in batch]
    assert len(flat) == 30
    for epoch in range(3):
        assert sorted(index for e, index in flat if e == epoch) == list(range(10))
    halves = [sampler(rank, 2) for rank in (0, 1)]
    joined = [w for pair in zip(*halves, strict=True) for batch in pair for w in batch]
    assert joined == flat


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    line = Line()
    with torch.no_grad():
        line.layer.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="lower the learning rate"):
        train(tmp_path, line=line)


def test_nothing_to_train_is_refused(tmp_path: Path) -> None:
    line = Line()
    settings = LoopSettings(steps=1, batch=1)
    run = Run(folder=tmp_path, device="cpu")
    with pytest.raises(UsageError, match="no parameter is trainable"):
        next(fit(line, [], {"source": Points()}, settings, run))
    groups = [{"params": list(line.parameters()), "lr": 0.1}]
    with pytest.raises(UsageError, match="check the data root"):
        next(fit(line, groups, {"source": Points(0)}, settings, run))


def test_a_gradient_that_never_arrives_is_an_error(tmp_path: Path) -> None:
    class Mute(Line):
        def forward(self, batch: Tensor, generators: list[torch.Generator]) -> Tensor:
            return 0.0 * super().forward(batch, generators)

    mute = Mute()
    groups = [{"params": list(mute.layer.parameters()), "lr": 0.1}]
    steps = fit(mute, groups, {"source": Points()}, LoopSettings(steps=9, batch=1), Run(folder=tmp_path))
    with pytest.raises(DivergedError, match="all ignored"):
        list(steps)


@pytest.mark.parametrize("size", [1, 2])
def test_fewer_samples_than_a_batch_still_make_whole_steps(tmp_path: Path, size: int) -> None:
    line, settings = Line(), LoopSettings(steps=3, batch=5, accumulate=2)
    groups = [{"params": list(line.layer.parameters()), "lr": 0.01}]
    run = Run(folder=tmp_path, device="cpu")
    steps = list(fit(line, groups, {"source": Points(size)}, settings, run))
    assert [step.index for step in steps] == [1, 2, 3]


def test_an_average_that_began_anew_goes_on_from_its_own_count(tmp_path: Path) -> None:
    class Replacing(ModelLoss):
        def after_step(self, model: Any, step: int) -> bool:
            return step == 4

    def run(name: str, stop: int | None = None) -> Tensor:
        line = Line()
        settings = LoopSettings(steps=9, batch=3, ema=0.9, checkpoint_every=1)
        groups = [{"params": list(line.layer.parameters()), "lr": 0.1}]
        data, place = {"source": Points()}, Run(folder=tmp_path, device="cpu")
        kept: dict[str, Any] = {"objectives": [Replacing()], "checkpoints": tmp_path / name}
        for step in fit(line, groups, data, settings, place, **kept):
            if step.index == stop:
                break
        return line.layer.weight.detach()

    whole = run("whole")
    run("cut", stop=7)
    assert torch.equal(run("cut"), whole)
