"""Laws of self-training for masks: what the student is taught, when, and that a resumed run does not notice."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from adapt.health import Health
from adapt.objectives import objectives
from adapt.objectives.self_training import Taught, classmix
from adapt.student_views import StudentViews
from tadp_da.errors import UsageError
from tadp_da.run import Run
from tadp_da.training.loop import LoopSettings, Step, fit, recorded
from tests.adapt.objectives.pixelwise import LABELS, STILL, Pixelwise, batches, generators, streams

KIND = objectives["self-training"]
PLAIN: dict[str, Any] = {"student": STILL, "start": 0}


def ready(model: Any, **settings: Any) -> Any:
    """The objective, set up for a training of 8 steps."""
    objective = KIND(KIND.Settings(**(PLAIN | settings)))
    objective.steps = 8
    objective.setup(model, None)
    return objective


def says(objective: Any, logits: Tensor) -> None:
    """Replace what the teacher answers."""
    objective.teacher.raw = lambda *_: logits


def sure_of(labels: Tensor, confidence: float = 0.9999) -> Tensor:
    """Logits of labels ``(b, h, w)`` with this confidence."""
    other = torch.tensor((1 - confidence) / (len(LABELS.classes) - 1)).log()
    hot = torch.nn.functional.one_hot(labels, len(LABELS.classes)).movedim(-1, 1)
    return torch.where(hot.bool(), torch.tensor(confidence).log(), other)


def gradient(model: Any, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def one(objective: Any, model: Any) -> Tensor:
    return objective(model, batches(), 0, generators())["self-training"]


@pytest.mark.parametrize("trusted", [1.0, 0.5])
def test_a_perfect_teacher_gives_the_supervised_gradient_of_the_pixels_it_is_sure_of(trusted: float) -> None:
    model, batch = Pixelwise(), batches()["target"]
    truth = batch["pixels"].argmax(1)
    sure = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < trusted
    objective = ready(model, trust="fixed", threshold=0.9)
    says(objective, torch.where(sure[:, None], sure_of(truth), sure_of(truth, 0.5)))
    raw = model(batch["pixels"], batch["text"])
    supervised = model.loss(raw, truth.masked_fill(~sure, LABELS.ignore)) * sure.float().mean()
    torch.testing.assert_close(gradient(model, one(objective, model)), gradient(model, supervised))
    objective.after_step(model, 0)
    assert objective.facts()["trusted"] == pytest.approx(float(sure.float().mean()), abs=1e-4)


def test_a_teacher_that_is_the_student_teaches_nothing_new() -> None:
    model = Pixelwise()
    objective = ready(model, trust="fixed", threshold=0.0, soft=True)
    assert gradient(model, one(objective, model)).abs().max() < 1e-6
    objective.after_step(model, 0)
    assert objective.facts()["agreement"] == 1.0
    drift = [value - model.get_parameter(name) for name, value in objective.teacher.average.items()]
    assert not any(bool(value.any()) for value in drift)


def test_each_class_has_a_limit_of_its_own_from_the_steps_before() -> None:
    model = Pixelwise()
    objective = ready(model)
    labels = torch.zeros(2, 8, 16, dtype=torch.long)
    labels[:, :, 8:] = 2
    confidence = torch.where(labels == 2, 0.5, 0.99)
    confidence[:, :2, 8:] = 0.7
    says(objective, torch.where(labels[:, None] == 2, sure_of(labels, 0.5), sure_of(labels, 0.99)))
    valid = torch.ones_like(labels, dtype=torch.bool)
    assert torch.equal(objective._weights(labels, confidence, valid), (labels == 0).float()), "at first"
    for _ in range(3):
        objective.health.observe(labels, confidence, valid, valid, valid)
        objective.health.step()
    found = objective._weights(labels, confidence, valid)
    assert bool(found[labels == 0].all()), "above the threshold, whatever the quantile"
    assert torch.equal(found[:, :, 8:] > 0, torch.full((2, 8, 8), True)), "half of them are at the limit"
    weak = objective._weights(labels, confidence - 0.1 * (labels == 2) * (confidence < 0.6), valid)
    assert torch.equal(weak[:, :, 8:] > 0, confidence[:, :, 8:] == 0.7)
    assert not bool(objective._weights(labels, confidence, ~valid).any()), "padding"


def test_the_whole_image_is_weighed_by_the_share_of_sure_pixels() -> None:
    objective = ready(Pixelwise(), trust="image-wide", threshold=0.968)
    confidence = torch.full((2, 4, 4), 0.97)
    confidence[1, :1] = 0.9
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    found = objective._weights(labels, confidence, torch.ones_like(labels, dtype=torch.bool))
    assert found[:, 0, 0].tolist() == [1.0, 0.75]
    assert bool((found == found[:, :1, :1]).all())


def test_aligned_labels_come_nearer_to_the_shares_of_the_source() -> None:
    model, batch = Pixelwise(), batches()
    objective = ready(model, align=True)
    plain = objective._teach(model, batch["target"], generators()["target"])[2].mean((0, 2, 3))
    source = torch.tensor([0.0, 0.25, 0.75])
    objective.health.source.value = 100 * source
    objective.soft.step()
    aligned = objective._teach(model, batch["target"], generators()["target"])[2]
    torch.testing.assert_close(aligned.sum(1), torch.ones(2, 8, 16))
    shares = aligned.mean((0, 2, 3))
    assert abs(shares[2] - 0.75 * (1 - shares[0])) < abs(plain[2] - 0.75 * (1 - plain[0]))


@pytest.mark.parametrize("soft", [False, True])
def test_half_of_the_classes_of_a_source_image_are_pasted_with_their_labels(soft: bool) -> None:
    source = {"pixels": torch.ones(1, 3, 8, 12), "target": torch.zeros(1, 8, 12, dtype=torch.long)}
    source["target"][:, :4] = 2
    source["target"][:, 6:] = LABELS.ignore
    labels = torch.ones(2, 8, 16, dtype=torch.long)
    probabilities = sure_of(labels).softmax(1)
    taught = Taught(torch.zeros(2, 3, 8, 16), probabilities if soft else labels, torch.full((2, 8, 16), 0.5))
    mixed, pasted = classmix(taught, source, LABELS.ignore, generators()["target"])
    classes = mixed.labels.argmax(1) if soft else mixed.labels
    for index in range(2):
        (kind,) = classes[index][pasted[index]].unique().tolist()
        assert kind in (0, 2)
        assert torch.equal(pasted[index, :, :12], source["target"][0] == kind)
    assert not bool(pasted[:, :, 12:].any())
    assert torch.equal(mixed.pixels[:, 0], pasted.float())
    assert torch.equal(mixed.weight, torch.where(pasted, 1.0, 0.5))
    assert bool((classes[~pasted] == 1).all())
    assert not bool(taught.pixels.any()), "the target's own images are as they were"


def test_each_part_can_be_switched_on_and_has_a_loss_of_its_own() -> None:
    model = Pixelwise()
    masked = ready(model, masked=STILL | {"mask": 0.7}, classmix=True, soft=True)
    found = masked(model, batches(), 0, generators())
    assert set(found) == {"self-training", "self-training-masked"}
    assert found["self-training"] != found["self-training-masked"]
    assert torch.equal(ready(model, weight=3.0)(model, batches(), 0, generators())["self-training"],
                       3 * one(ready(model), model))  # fmt: skip
    assert KIND.Settings().student == StudentViews()
    with pytest.raises(ValidationError, match="neither a share"):
        KIND.Settings(start=1.5)


class Source(objectives["supervised"]):  # type: ignore[misc]
    """The head's loss."""


def train(
    folder: Path,
    stop: int | None = None,
    given: dict[str, Any] | None = None,
    accumulate: int = 2,
    **settings: Any,
) -> tuple[Any, Any, list[Step]]:
    model, seen = Pixelwise(), []
    objective = KIND(KIND.Settings(**({"start": 0.4} | settings)))
    run = Run(folder=folder, seed=5, device="cpu", quiet=True)
    groups = [{"params": list(model.parameters()), "lr": 0.05}]
    loop = LoopSettings(steps=8, batch=4 // accumulate, accumulate=accumulate, checkpoint_every=1)
    steps = fit(
        model,
        groups,
        given or streams(),
        loop,
        run,
        objectives=[Source(), objective],
        checkpoints=folder / "c",
    )
    for step in recorded(steps, loop.steps, run, "pixels"):
        seen.append(step)
        if stop is not None and step.index == stop + 1:
            break
    return model, objective, seen


FULL = {"classmix": True, "align": True, "guard": True, "masked": {"mask": 0.5}}


def test_the_target_is_not_read_before_the_start_and_then_changes_nothing_before(tmp_path: Path) -> None:
    given = streams()
    _, objective, steps = train(tmp_path, given=given)
    assert objective.start == 3
    assert len(given["target"].fetched) == 5 * 4
    assert [step.losses["self-training"] > 0 for step in steps] == [False] * 4 + [True] * 4, (
        "the first step only gets to know the teacher"
    )
    assert [bool(step.facts) for step in steps] == [False] * 3 + [True] * 5
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    facts = lines[-1]["facts"]
    assert set(facts) == {"trusted", "agreement"} | {
        f"{side}/{name}" for side in ("teacher", "source") for name in LABELS.classes
    }
    assert sum(value for name, value in facts.items() if name.startswith("source/")) == pytest.approx(
        1, abs=1e-4
    )


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_resumed_run_ends_at_the_same_bits(tmp_path: Path, stop: int) -> None:
    model, objective, steps = train(tmp_path / "whole", **FULL)
    train(tmp_path / "cut", stop=stop, **FULL)
    resumed, again, rest = train(tmp_path / "cut", **FULL)
    assert [(s.loss, s.facts) for s in rest] == [(s.loss, s.facts) for s in steps[stop:]]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), resumed.parameters(), strict=True))
    states = objective.state_dict(), again.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_step_in_two_parts_is_the_step(tmp_path: Path) -> None:
    (model, whole, first), (other, parts, second) = (
        train(tmp_path / str(n), accumulate=n, student=STILL, align=True) for n in (1, 2)
    )
    assert [s.loss for s in second] == pytest.approx([s.loss for s in first], rel=1e-4)
    torch.testing.assert_close(parts.health.confidence.value, whole.health.confidence.value)
    torch.testing.assert_close(list(other.parameters()), list(model.parameters()))


def guarded(wrong: Sequence[int], guard: bool) -> tuple[Any, Any]:
    """A training in which the teacher predicts these classes from the eleventh step on."""
    model = Pixelwise()
    objective = ready(model, guard=guard, start=2)
    sane = batches()["target"]["pixels"].argmax(1)
    for step in range(60):
        labels = sane if step < 12 else torch.tensor(wrong)[sane % len(wrong)]
        says(objective, sure_of(labels))
        if step >= 2:
            objective(model, batches(), step, generators())
        if step != 1:  # the optimizer's step; at the last one without a target the teacher is all there is
            with torch.no_grad():
                model.layer.bias += 0.01
        objective.after_step(model, step)
    return model, objective


@pytest.mark.parametrize(
    ("wrong", "message"),
    [((1,), "of the teacher's labels are 'sky'"), ((0, 1), "class 'pole' vanishes")],
)
def test_a_collapse_is_warned_of_and_the_guard_goes_back(
    wrong: Sequence[int], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model, objective = guarded(wrong, guard=True)
    assert message in caplog.text
    assert "goes back to the source-only model" in caplog.text
    assert 12 < objective.facts()["fallback"] < 60
    assert objective.facts() == objective.facts() | {"fallback": float(objective.fallback)}
    assert set(objective.facts()) == {"fallback"}, "nothing of the teacher that was given up"
    kept, moved = objective.kept.average["layer.bias"], 0.01 * (60 - int(objective.fallback))
    torch.testing.assert_close(model.layer.bias.detach(), kept + moved)
    assert objective(model, batches(), 60, generators()) == {"self-training": 0}
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        _, free = guarded(wrong, guard=False)
    assert message in caplog.text
    assert "fallback" not in free.facts()
    assert caplog.text.count(message) == 1


def test_a_healthy_teacher_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, objective = guarded((0, 1, 2), guard=True)
    assert not caplog.records
    assert not objective.fallback


def test_alone_it_has_nothing_to_start_from(tmp_path: Path) -> None:
    run = Run(folder=tmp_path, device="cpu", quiet=True)
    groups = [{"params": list(Pixelwise().parameters()), "lr": 0.05}]
    alone = fit(Pixelwise(), groups, streams(), LoopSettings(steps=8, batch=2), run, objectives=[KIND()])
    with pytest.raises(UsageError, match="no objective has a loss at the first step"):
        next(alone)


def test_with_low_rank_layers_in_bf16_a_model_is_trained_and_a_figure_is_drawn(
    fresh_model: Any, labeled: Any, unlabeled: Any, quiet: Run
) -> None:
    from dataclasses import replace

    from adapt import Augmentation, FineTuning

    model, run = fresh_model(), replace(quiet, precision="bf16")
    start = copy.deepcopy(model.backbone.unet.state_dict())
    objective = KIND(KIND.Settings(start=1))
    tuning = FineTuning(steps=3, batch=2, target_batch=1, backbone="lora", warmup=0, augment=Augmentation())
    tuning(model, labeled, str, run, unlabeled=unlabeled, objectives=[objectives["supervised"](), objective])
    assert all(name.startswith("head.") or "lora" in name for name in objective.teacher.average)
    assert any(
        not torch.equal(value, start[name]) for name, value in model.backbone.unet.state_dict().items()
    )
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [set(line.get("facts", {})) >= {"trusted", "teacher/dark"} for line in lines] == [
        False,
        True,
        True,
    ]
    assert (run.folder / "health.png").read_bytes().startswith(b"\x89PNG")


def test_the_average_of_weights_forgets_those_that_the_guard_took_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Health, "step", lambda _: ({}, {"collapse": "everything is sky"}))
    model, objective = Pixelwise(), KIND(KIND.Settings(start=0.5, guard=True))
    loop = LoopSettings(steps=6, batch=2, ema=0.9)
    run = Run(folder=tmp_path, seed=5, device="cpu", quiet=True)
    groups = [{"params": list(model.parameters()), "lr": 0.05}]
    for step in fit(model, groups, streams(), loop, run, objectives=[Source(), objective]):
        if step.index == 4:  # the first of self-training
            assert objective.fallback
            break
    back = [p.detach().clone() for p in model.parameters()]
    short = LoopSettings(steps=4, batch=2, ema=0.9)
    model, objective = Pixelwise(), KIND(KIND.Settings(start=3, guard=True))
    groups = [{"params": list(model.parameters()), "lr": 0.05}]
    list(fit(model, groups, streams(), short, run, objectives=[Source(), objective]))
    for found, expected in zip(model.parameters(), back, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_start_after_the_end_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        train(tmp_path, start=500)
    assert "would start after 500 steps and never does in 8" in caplog.text
