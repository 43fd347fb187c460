"""Laws of objectives in the loop: named losses, streams of their own, state that survives a stop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tadp_da.errors import ArtifactError, UsageError
from tadp_da.run import Run
from tadp_da.training.loop import LoopSettings, Step, fit, recorded
from tadp_da.training.objective import Objective, seeded
from tests.faults.victims import Line, Points, weights
from tests.tadp_da.training.teachers import Fit, MeanTeacher


class Seen(Points):
    """Notes what was fetched, and from which random number."""

    def __init__(self, size: int = 10) -> None:
        super().__init__(size)
        self.fetched: list[tuple[int, float]] = []

    def fetch(self, index: int, rng: np.random.Generator) -> Tensor:
        sample = super().fetch(index, rng)
        self.fetched.append((index, float(sample[1])))
        return sample


def train(
    folder: Path,
    streams: dict[str, Any],
    objectives: Sequence[Objective],
    stop: int | None = None,
    **more: Any,
) -> tuple[Line, list[Step]]:
    line, seen = Line(), []
    run = Run(folder=folder, seed=5, device="cpu", quiet=True)
    groups = [{"params": list(line.layer.parameters()), "lr": 0.01}]
    settings = LoopSettings(steps=7, batch=4, accumulate=2, checkpoint_every=1)
    steps = fit(line, groups, streams, settings, run, objectives=objectives, checkpoints=folder / "c", **more)
    for step in recorded(steps, settings.steps, run, "line"):
        seen.append(step)
        if stop is not None and step.index == stop + 1:
            break  # the checkpoint of a step stands when the next one begins
    return line, seen


def both() -> dict[str, Any]:
    return {"source": Points(), "target": Points(6)}


@pytest.mark.parametrize("stop", [1, 4])
def test_a_resumed_run_ends_at_the_same_bits_with_the_objectives_state(tmp_path: Path, stop: int) -> None:
    uninterrupted, resumed = MeanTeacher(), MeanTeacher()
    line, steps = train(tmp_path / "whole", both(), [Fit(), uninterrupted])
    train(tmp_path / "cut", both(), [Fit(), MeanTeacher()], stop=stop)
    again, rest = train(tmp_path / "cut", both(), [Fit(), resumed])
    assert [step.index for step in rest] == list(range(stop + 1, 8))
    assert [step.losses for step in rest] == [step.losses for step in steps[stop:]]
    assert all(torch.equal(weights(line)[name], value) for name, value in weights(again).items())
    states = uninterrupted.state_dict(), resumed.state_dict()
    assert int(states[0]["steps"]) == 7
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    saved = load_file(tmp_path / "cut/c/step-00000007/state.safetensors")
    numbers = {name.split("/")[1] for name in saved if name.startswith("objectives/")}
    assert numbers == {"1"}, "the first has no state"


def test_losses_are_recorded_by_name_where_there_are_several(tmp_path: Path) -> None:
    train(tmp_path / "two", both(), [Fit(), MeanTeacher()])
    train(tmp_path / "one", {"source": Points()}, [Fit()])
    lines = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 7
    for line in lines:
        assert set(line["losses"]) == {"fit", "teacher"}
        assert sum(line["losses"].values()) == pytest.approx(line["loss"], rel=1e-6)
    assert lines[0]["losses"]["teacher"] > 0
    assert "losses" not in (tmp_path / "one/metrics.jsonl").read_text()


def test_another_stream_leaves_the_first_as_it_is_and_has_an_order_of_its_own(tmp_path: Path) -> None:
    alone, first, second = Seen(), Seen(), Seen()
    _, one = train(tmp_path / "a", {"source": alone}, [Fit()])

    class Nothing(MeanTeacher):
        def __call__(self, *given: Any) -> Any:
            return {name: 0 * loss for name, loss in super().__call__(*given).items()}

    _, two = train(tmp_path / "b", {"source": first, "target": second}, [Fit(), Nothing()])
    assert alone.fetched == first.fetched
    assert [step.loss for step in one] == [step.losses["fit"] for step in two]
    assert [index for index, _ in first.fetched] != [index for index, _ in second.fetched]
    again = Seen()
    train(tmp_path / "c", {"source": Seen(3), "target": again}, [Fit(), Nothing()])
    assert again.fetched == second.fetched, "whatever the source is"


def test_a_stream_may_have_a_batch_of_its_own(tmp_path: Path) -> None:
    target = Seen()
    train(tmp_path, {"source": Points(), "target": target}, [Fit(), MeanTeacher()], batches={"target": 1})
    assert len(target.fetched) == 7 * 2


def test_a_missing_stream_and_a_name_used_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="MeanTeacher reads the stream 'target'") as caught:
        train(tmp_path / "a", {"source": Points()}, [Fit(), MeanTeacher()])
    assert "given: source" in caught.value.fix
    with pytest.raises(UsageError, match="two objectives have a loss named 'fit'"):
        train(tmp_path / "b", {"source": Points()}, [Fit(), Fit()])


def test_state_of_another_kind_is_refused(tmp_path: Path) -> None:
    train(tmp_path, both(), [Fit(), MeanTeacher()], stop=1)
    with pytest.raises(ArtifactError, match="0 tensors of MeanTeacher"):
        train(tmp_path, both(), [MeanTeacher(), Fit()])
    with pytest.raises(ArtifactError, match="1 objectives"):
        train(tmp_path, both(), [Fit()])


def test_a_seed_for_dropout_leaves_the_generator_of_its_sample_as_it_is() -> None:
    generator, other = (torch.Generator().manual_seed(3) for _ in range(2))
    with seeded(generator, torch.device("cpu")):
        first = torch.rand(2)
    with seeded(generator, torch.device("cpu")):
        assert torch.equal(first, torch.rand(2))
    assert torch.equal(torch.rand(2, generator=generator), torch.rand(2, generator=other))
