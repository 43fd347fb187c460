"""Semantic FPN and its score against small references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tadp_da.errors import DataError, UsageError
from tadp_da.heads._confusion import ConfusionScore
from tadp_da.heads.semantic_fpn import SemanticFPN
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace

SPEC = FeatureSpec(channels={4: 4, 8: 4, 16: 4}, attention={})
FIVE = LabelSpace("segmentation", ("a", "b", "c", "d", "e"))


def reference(
    decisions: list[np.ndarray], truths: list[np.ndarray], ignore: int = 255
) -> tuple[float, dict[int, float]]:
    """Mean IoU and IoU per class in %, the short way."""
    decision, truth = (
        np.concatenate([d.ravel() for d in decisions]),
        np.concatenate([t.ravel() for t in truths]),
    )
    decision, truth = decision[truth != ignore], truth[truth != ignore]
    iou = {}
    for k in range(5):
        union = ((decision == k) | (truth == k)).sum()
        if union:
            iou[k] = 100 * ((decision == k) & (truth == k)).sum() / union
    return float(np.mean(list(iou.values()))), iou


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), used=st.integers(1, 5), images=st.integers(1, 4))
def test_score_agrees_with_the_reference(seed: int, used: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    decisions, truths, score = [], [], ConfusionScore(FIVE)
    for _ in range(images):
        size = tuple(rng.integers(2, 12, 2))
        decisions.append(rng.integers(0, used, size).astype(np.uint8))
        truths.append(rng.integers(0, used, size).astype(np.uint8))
        truths[-1][rng.random(size) < 0.3] = 255
        truths[-1][0, 0] = 0
        score.update(decisions[-1], truths[-1])
    result, (mean, iou) = score.compute(), reference(decisions, truths)
    assert result["main"] == pytest.approx(mean)
    assert result["images"] == images
    assert result["counted"] == len(iou)
    assert result["classes"] == {
        n: pytest.approx(iou[k]) if k in iou else None for k, n in enumerate("abcde")
    }


def test_absent_classes_are_none_and_do_not_count() -> None:
    score = ConfusionScore(FIVE)
    score.update(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 0]]))
    result = score.compute()
    assert result["classes"] == {"a": pytest.approx(200 / 3), "b": 50, "c": None, "d": None, "e": None}
    assert result["main"] == pytest.approx((200 / 3 + 50) / 2)
    assert result["pixel_accuracy"] == 75
    assert result["confusion"][0][:2] == [2, 1]


def test_shuffled_decisions_score_chance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (300, 300))
    score = ConfusionScore(FIVE)
    score.update(rng.permutation(truth.ravel()).reshape(truth.shape), truth)
    # five classes of equal share p: intersection p^2, union 2p - p^2
    assert score.compute()["main"] == pytest.approx(100 * 0.2 / 1.8, abs=0.5)


def test_nothing_labelled_is_an_error_that_says_so() -> None:
    score = ConfusionScore(FIVE)
    score.update(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8))
    with pytest.raises(DataError, match="give labels that use other ids than ignore"):
        score.compute()


def test_other_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="predict at the label's own resolution"):
        ConfusionScore(FIVE).update(np.zeros((4, 4), np.uint8), np.zeros((8, 8), np.uint8))


def small() -> tuple[SemanticFPN, torch.Tensor, torch.Tensor]:
    """A head, its logits for two images of random features, and ids."""
    torch.manual_seed(0)
    head = SemanticFPN(SPEC, FIVE, width=8).eval()
    features = {s: torch.randn(2, 4, 32 // s, 32 // s) for s in SPEC.channels}
    return head, head(FeaturePyramid(features, {}), (32, 32)), torch.randint(0, 5, (2, 32, 32))


def test_logits_decide_by_the_likeliest_class() -> None:
    head, logits, _ = small()
    assert logits.shape == (2, 5, 32, 32)
    decisions = head.decide(logits)
    assert [(d.shape, d.dtype) for d in decisions] == [((32, 32), np.uint8)] * 2
    assert np.array_equal(decisions[1], logits[1].argmax(0).numpy())


def test_ignored_pixels_are_inert() -> None:
    head, outputs, truth = small()
    outputs = outputs.detach()
    truth[:, :9] = FIVE.ignore
    changed = outputs.clone()
    changed[:, :, :9] = torch.randn_like(changed[:, :, :9]) * 100
    assert torch.equal(head.loss(outputs, truth), head.loss(changed, truth))
    changed[:, 0, 9:] += 1
    assert not torch.equal(head.loss(outputs, truth), head.loss(changed, truth))


def test_a_batch_without_labels_costs_nothing() -> None:
    head, outputs, truth = small()
    loss = head.loss(outputs, torch.full_like(truth, FIVE.ignore))
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in head.parameters() if p.grad is not None)
    assert head.annotation(np.full((4, 4), 255, np.uint8), (4, 4), where="x").blank


def test_off_the_grid_the_picture_does_not_move() -> None:
    """Logits of an image cut off within the last cells are those of the whole image, away from the cut."""
    torch.manual_seed(0)
    head = SemanticFPN(SPEC, FIVE, width=8).eval()
    features = {s: torch.randn(1, 4, 64 // s, 64 // s) for s in SPEC.channels}
    whole = head(FeaturePyramid(features=features, attention={}), (64, 64))
    cut = head(FeaturePyramid(features=features, attention={}), (61, 50))
    torch.testing.assert_close(cut, whole[..., :61, :50])


def test_a_cell_decides_its_own_pixels() -> None:
    """A classifier that reads the finest level puts the boundary between two cells where they meet."""
    torch.manual_seed(0)
    head = SemanticFPN(SPEC, FIVE, width=8).eval()
    coarse = {s: torch.zeros(1, 4, 64 // s, 64 // s) for s in SPEC.channels}
    bright = {s: f.clone() for s, f in coarse.items()}
    bright[4][..., 8] = 5.0
    change = head(FeaturePyramid(bright, {}), (64, 64)) - head(FeaturePyramid(coarse, {}), (64, 64))
    energy = change.square().sum((0, 1, 2))
    center = (energy * (torch.arange(64) + 0.5)).sum() / energy.sum()
    assert center.item() == pytest.approx(8 * 4 + 2, abs=2)


def test_dropout_rests_outside_training() -> None:
    head = SemanticFPN(SPEC, FIVE, width=8, dropout=0.5)
    pyramid = FeaturePyramid({s: torch.randn(1, 4, 64 // s, 64 // s) for s in SPEC.channels}, {})
    head.train()
    assert not torch.equal(head(pyramid, (64, 64)), head(pyramid, (64, 64)))
    head.eval()
    assert torch.equal(head(pyramid, (64, 64)), head(pyramid, (64, 64)))


@pytest.mark.parametrize(
    "labels",
    [
        LabelSpace("depth", ("near", "far")),
        LabelSpace("segmentation", ("alone",)),
        LabelSpace("segmentation", ("a", "b"), ignore=1),
    ],
    ids=str,
)
def test_label_spaces_it_cannot_hold_are_refused(labels: LabelSpace) -> None:
    with pytest.raises(UsageError, match="give segmentation labels"):
        SemanticFPN(SPEC, labels)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="widht"):
        SemanticFPN(SPEC, FIVE, widht=64)
