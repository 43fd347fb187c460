"""A teacher of boxes that is its student changes nothing, a perfect one is supervision, its doubts teach nothing."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from adapt import Augmentation, FineTuning
from adapt.objectives import objectives
from adapt.objectives.self_training_boxes import SelfTrainingBoxes, anchor_losses, region_losses
from adapt.student_views import StudentViews
from adapt.training_data import CaptionedImages, TargetDataset
from tadp_da.errors import InterruptedRunError, UsageError
from tadp_da.heads.detection.regions import Anchors, Regions, Sampling
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.training.signals import attended
from tadp_da.types import Boxes, Labeled
from tests.adapt.conftest import THINGS

STILL = StudentViews(brightness=0, contrast=0, saturation=0, hue=0, blur=0)
SAMPLING = Sampling(8, 0.25)


@pytest.fixture
def boxed(labeled: Labeled) -> Labeled:
    """The labelled images, with a box on each."""
    box = Boxes(np.array([[8, 8, 40, 40]], np.float32), np.array([1]), np.array([False]))
    return dataclasses.replace(labeled, labels=THINGS, label=lambda _: box)


def made(model: PerceptionModel, run: Run, **settings: Any) -> SelfTrainingBoxes:
    model.requires_grad_(False)
    model.head.requires_grad_(True).train()
    objective = SelfTrainingBoxes(SelfTrainingBoxes.Settings(**({"start": 0, "student": STILL} | settings)))
    objective.setup(model, run)
    return objective


def loss_of(objective: SelfTrainingBoxes, model: PerceptionModel, step: int = 0) -> torch.Tensor:
    noise = torch.Generator().manual_seed(1)
    batch = {
        "pixels": torch.rand(2, 3, 64, 64, generator=noise) * 2 - 1,
        "text": model.backbone.encode_text(["a car", "a street"]),
        "size": (64, 64),
    }
    generators = {"target": [torch.Generator().manual_seed(i) for i in range(2)]}
    model.zero_grad()
    losses: Mapping[str, torch.Tensor] = objective(model, {"target": batch}, step, generators)
    (loss,) = losses.values()
    if loss.requires_grad:
        loss.backward()
    return loss.detach()


def largest(model: PerceptionModel, part: str = "") -> float:
    """The largest gradient of the head's parameters whose name contains ``part``."""
    found = [p.grad.abs().max() for n, p in model.head.named_parameters() if part in n and p.grad is not None]
    return float(torch.stack(found).max()) if found else 0.0


def test_a_teacher_that_is_the_student_changes_nothing(detector: Any, quiet: Run) -> None:
    model = detector()
    still = made(model, quiet, low=0.5, high=0.5)
    assert abs(float(loss_of(still, model))) < 1e-6
    assert largest(model) < 1e-5
    changed = made(model, quiet, low=0.5, high=0.5, student=StudentViews(brightness=1.0))
    assert float(loss_of(changed, model)) > 1e-5
    assert largest(model) > 1e-4


def test_it_is_silent_before_its_start_and_the_teacher_follows(detector: Any, quiet: Run) -> None:
    model = detector()
    objective = made(model, quiet, start=5, decay=0.5)
    assert float(loss_of(objective, model, step=4)) == 0
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(1)
    objective.after_step(model, 9)
    for key, value in objective.state_dict().items():
        torch.testing.assert_close(value, before[key] + 0.5, msg=key)
    assert float(loss_of(objective, model, step=5)) > 0


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
def test_images_where_the_teacher_finds_nothing_or_nothing_surely(
    detector: Any, quiet: Run, form: str
) -> None:
    model = detector()
    assert torch.isfinite(loss_of(made(model, quiet, form=form, score=1.0, low=0.0, high=1.0), model))
    if form == "soft":
        assert largest(model) == 0
    else:
        assert largest(model, "cls") > 0


def test_pseudo_boxes_are_those_above_the_score_and_train_no_boxes_if_told_so(
    detector: Any, quiet: Run, monkeypatch: Any
) -> None:
    model, seen = detector(), []
    losses = model.head.losses

    def spy(raw: Any, targets: Any) -> Any:
        seen.extend(targets)
        return losses(raw, targets)

    monkeypatch.setattr(model.head, "losses", spy)
    loss_of(made(model, quiet, form="hard", score=0.3, regression=False), model)
    with torch.no_grad():
        found = model.eval()(
            torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1,
            model.backbone.encode_text(["a car", "a street"]),
        )
    for target, prediction in zip(seen, model.head.predict(found), strict=True):
        expected = prediction.xyxy[prediction.scores >= 0.3]
        torch.testing.assert_close(target["boxes"], torch.from_numpy(expected), atol=1e-3, rtol=0)
    assert largest(model, "bbox_pred") == 0
    assert largest(model, "cls") > 0
    loss_of(made(model, quiet, form="hard", score=0.3), model)
    assert largest(model, "bbox_pred") > 0


def test_a_resumed_run_ends_at_the_same_bits(
    detector: Any, boxed: Labeled, unlabeled: CaptionedImages, quiet: Run, monkeypatch: Any
) -> None:
    tuning = FineTuning(
        steps=3, batch=2, backbone="frozen", head_lr=1e-2, warmup=0, augment=Augmentation(flip=0.5)
    )
    fetch, at = TargetDataset.fetch, quiet.folder

    def trained(folder: str) -> dict[str, torch.Tensor]:
        settings = SelfTrainingBoxes.Settings(start=1, decay=0.5)
        both = [objectives["supervised"](), SelfTrainingBoxes(settings)]
        model: Any = tuning(
            detector(), boxed, str, quiet.inside(at / folder), unlabeled=unlabeled, objectives=both
        )
        return dict(model.state_dict())

    def told_to_stop(dataset: Any, *arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return fetch(dataset, *arguments)

    whole = trained("whole")
    for _ in range(2):  # before the teacher has a say, and after it had
        monkeypatch.setattr(TargetDataset, "fetch", told_to_stop)
        with attended(), pytest.raises(InterruptedRunError):
            trained("parts")
        monkeypatch.undo()
    parts = trained("parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert (at / "whole/metrics.jsonl").read_text() == (at / "parts/metrics.jsonl").read_text()


def test_a_head_without_regions_is_refused(fresh_model: Any, quiet: Run) -> None:
    with pytest.raises(UsageError, match="needs a head that proposes regions") as caught:
        SelfTrainingBoxes().setup(fresh_model(), quiet)
    assert "faster-rcnn" in caught.value.fix


@pytest.mark.parametrize("wrong", [{"low": 0.6, "high": 0.5}, {"form": "softer"}, {"weight": 0}], ids=str)
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SelfTrainingBoxes.Settings(**wrong)
