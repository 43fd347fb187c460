"""A teacher of boxes that is its student changes nothing, a perfect one is supervision, its doubts teach nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from adapt.objectives import objectives
from adapt.objectives.self_training_boxes import SelfTrainingBoxes, anchor_losses, region_losses
from adapt.student_views import StudentViews
from tadp_da.errors import UsageError
from tadp_da.heads.detection.regions import Anchors, Regions, Sampling
from tadp_da.run import Run
from tadp_da.training.loop import LoopSettings, Step, fit
from tests.adapt.objectives.boxwise import Boxwise, batches, streams
from tests.adapt.objectives.pixelwise import STILL, generators

SAMPLING = Sampling(8, 0.25)
RUN: Any = None  # the objective does not ask for it


def made(model: Boxwise, **settings: Any) -> SelfTrainingBoxes:
    objective = SelfTrainingBoxes(SelfTrainingBoxes.Settings(**({"start": 0, "student": STILL} | settings)))
    objective.setup(model, RUN)
    return objective


def loss_of(objective: SelfTrainingBoxes, model: Boxwise, step: int = 0) -> float:
    model.zero_grad()
    (loss,) = objective(model, batches(), step, generators()).values()
    if loss.requires_grad:
        loss.backward()
    return float(loss.detach())


def largest(model: Boxwise, part: str = "") -> float:
    """The largest gradient of the head's parameters whose name contains ``part``."""
    found = [p.grad.abs().max() for n, p in model.head.named_parameters() if part in n and p.grad is not None]
    return float(torch.stack(found).max()) if found else 0.0


def test_a_teacher_that_is_the_student_changes_nothing() -> None:
    model = Boxwise()
    assert abs(loss_of(made(model, low=0.5, high=0.5), model)) < 1e-6
    assert largest(model) < 1e-5
    changed = made(model, low=0.5, high=0.5, student=StudentViews(brightness=1.0))
    assert loss_of(changed, model) > 1e-3
    assert largest(model) > 1e-3


def sure_of(classes: list[int], k: int = 3) -> torch.Tensor:
    """Logits of a teacher that has no doubt."""
    return 60.0 * F.one_hot(torch.tensor(classes), k).float()


def test_a_perfect_teacher_gives_the_supervised_gradient_on_regions() -> None:
    classes = [0, 1, 2, 0, 0, 1]
    torch.manual_seed(0)
    student, moves = torch.randn(6, 3, requires_grad=True), torch.randn(6, 3, 4, requires_grad=True)
    goal = torch.randn(6, 3, 4)
    losses = region_losses(
        Regions(student, moves), Regions(sure_of(classes), goal), [6], Sampling(6, 1.0), 0.1, 0.5
    )
    found = torch.autograd.grad(losses["regions"] + losses["regions_box_reg"], (student, moves))
    at = [i for i, c in enumerate(classes) if c]
    supervised = F.cross_entropy(student, torch.tensor(classes)) + F.smooth_l1_loss(
        torch.stack([moves[i, classes[i]] for i in at]),
        torch.stack([goal[i, classes[i]] for i in at]),
        beta=1 / 9,
        reduction="sum",
    ) / len(classes)
    for mine, theirs in zip(found, torch.autograd.grad(supervised, (student, moves)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_perfect_teacher_gives_the_supervised_gradient_on_anchors() -> None:
    truth = torch.tensor([[1.0, 0, 0, 1]])
    torch.manual_seed(0)
    student = torch.randn(1, 4, requires_grad=True)
    moves = torch.zeros(1, 4, 4)
    losses = anchor_losses(
        Anchors(student, moves),
        Anchors(120 * truth - 60, moves + 1),
        Sampling(4, 1.0),
        0.1,
        0.5,
    )
    (found,) = torch.autograd.grad(losses["anchors"], student)
    (theirs,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(student, truth), student)
    torch.testing.assert_close(found, theirs)
    assert losses["anchors_box_reg"] == pytest.approx(2 * 4 * (1 - 1 / 18) / 4)


def test_what_the_teacher_doubts_has_no_gradient() -> None:
    teacher = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.95, 0.03, 0.02], [0.3, 0.35, 0.35]]))
    student, moves = torch.zeros(3, 3, requires_grad=True), torch.zeros(3, 3, 4, requires_grad=True)
    both = Regions(student, moves), Regions(teacher, torch.ones(3, 3, 4))
    losses = region_losses(*both, [2, 1], SAMPLING, 0.1, 0.5)
    sum(losses.values(), torch.zeros(())).backward()
    assert student.grad is not None
    assert moves.grad is not None
    assert student.grad.any(1).tolist() == [False, True, True]
    assert moves.grad.flatten(1).any(1).tolist() == [False, False, True]
    assert student.grad[1, 0] < 0, "background is taught where the teacher is sure of it"
    objectness = torch.zeros(1, 3, requires_grad=True)
    lean = Anchors(torch.tensor([[-0.5, -4.0, 3.0]]), torch.ones(1, 3, 4))
    losses = anchor_losses(Anchors(objectness, torch.zeros(1, 3, 4)), lean, SAMPLING, 0.1, 0.7)
    losses["anchors"].backward()
    assert objectness.grad is not None
    assert (objectness.grad != 0).tolist() == [[False, True, True]]


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_images_where_the_teacher_finds_nothing_or_nothing_surely(form: str) -> None:
    model = Boxwise()
    loss = loss_of(made(model, form=form, score=1.0, low=0.0, high=1.0), model)
    if form == "soft":
        assert loss == largest(model) == 0
    else:
        assert loss > 0
        assert largest(model, "cls") > 0


def test_pseudo_boxes_are_those_above_the_score_and_train_no_boxes_if_told_so(monkeypatch: Any) -> None:
    model, seen = Boxwise(), []
    losses = model.head.losses
    monkeypatch.setattr(
        model.head, "losses", lambda raw, targets: seen.extend(targets) or losses(raw, targets)
    )
    found = model.head.predict(model(batches()["target"]["pixels"], torch.zeros(0)))
    score = float(found[0].scores[2])
    loss_of(made(model, form="hard", score=score, regression=False), model)
    assert len(seen[0]["boxes"]) >= 3
    for target, prediction in zip(seen, found, strict=True):
        expected = torch.from_numpy(prediction.xyxy[prediction.scores >= score])
        torch.testing.assert_close(target["boxes"], expected)
    assert largest(model, "bbox_pred") == 0
    assert largest(model, "cls") > 0
    loss_of(made(model, form="hard", score=score), model)
    assert largest(model, "bbox_pred") > 0


def train(folder: Path, stop: int = 9, **settings: Any) -> tuple[Any, Any, list[Step]]:
    """Four steps, or as many as ``stop``."""
    model, seen = Boxwise(), []
    objective = SelfTrainingBoxes(SelfTrainingBoxes.Settings(**({"start": 2, "decay": 0.5} | settings)))
    groups = [{"params": list(model.parameters()), "lr": 0.01}]
    loop = LoopSettings(steps=4, batch=4, checkpoint_every=1)
    both = [objectives["supervised"](), objective]
    run = Run(folder=folder, seed=5, device="cpu", quiet=True)
    for step in fit(model, groups, streams(), loop, run, objectives=both, checkpoints=folder / "c"):
        seen.append(step)
        if step.index == stop + 1:
            break
    return model, objective, seen


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_a_resumed_run_ends_at_the_same_bits(tmp_path: Path, form: str) -> None:
    model, objective, steps = train(tmp_path / "whole", form=form, score=0.4, guard=True)
    assert [step.losses["self-training-boxes"] > 0 for step in steps] == [False, False, True, True]
    for stop in (1, 3):  # before the teacher has a say, and after it had
        train(tmp_path / "cut", stop, form=form, score=0.4, guard=True)
    resumed, again, rest = train(tmp_path / "cut", form=form, score=0.4, guard=True)
    assert [(step.loss, step.facts) for step in rest] == [(step.loss, step.facts) for step in steps[3:]]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), resumed.parameters(), strict=True))
    states = objective.state_dict(), again.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_batch_in_two_parts_teaches_the_same() -> None:
    model = Boxwise()
    objective, four = made(model, student=StudentViews(mask=0.3), low=0.4, high=0.6), batches(4)
    noise = {name: generators(4)[name] for name in four}
    names = "self-training-boxes", "pixels", "text"
    whole = objective(model, four, 0, noise)[names[0]]
    parts = []
    for at in (slice(0, 2), slice(2, 4)):
        half = {n: b | {k: b[k][at] for k in (*names[1:], "target") if k in b} for n, b in four.items()}
        parts.append(objective(model, half, 0, {name: generators(4)[name][at] for name in four})[names[0]])
    assert whole > 0
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
    assert objective.health.source.new.sum() == 8


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_what_the_teacher_sees_is_reported(form: str) -> None:
    model = Boxwise()
    objective = made(model, form=form, score=0.5, low=0.3, high=0.6)
    loss_of(objective, model)
    objective.after_step(model, 0)
    facts = dict(objective.facts())
    assert facts["agreement"] == 1, "the student is its teacher"
    assert 0 < facts["trusted"] < 1
    assert facts["teacher/car"] + facts["teacher/person"] == pytest.approx(1, abs=1e-4)
    assert facts["source/car"] == facts["source/person"] == 0.5


def test_a_head_without_regions_is_refused(fresh_model: Any) -> None:
    with pytest.raises(UsageError, match="needs a head that proposes regions") as caught:
        SelfTrainingBoxes().setup(fresh_model(), RUN)
    assert "faster-rcnn" in caught.value.fix


@pytest.mark.parametrize("wrong", [{"low": 0.6, "high": 0.5}, {"form": "softer"}, {"weight": 0}], ids=str)
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SelfTrainingBoxes.Settings(**wrong)
