"""Semantic FPN: what its logits say, and where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tadp_da.errors import UsageError
from tadp_da.heads.semantic_fpn import SemanticFPN
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace

SPEC = FeatureSpec(channels={4: 4, 8: 4, 16: 4}, attention={})
FIVE = LabelSpace("segmentation", ("a", "b", "c", "d", "e"))


def small() -> tuple[SemanticFPN, torch.Tensor, torch.Tensor]:
    """A head, its logits for two images of random features, and ids."""
    torch.manual_seed(0)
    head = SemanticFPN(SPEC, FIVE, SemanticFPN.Settings(width=8)).eval()
    features = {s: torch.randn(2, 4, 32 // s, 32 // s) for s in SPEC.channels}
    return head, head(FeaturePyramid(features, {}), (32, 32)), torch.randint(0, 5, (2, 32, 32))


def test_logits_decide_by_the_likeliest_class() -> None:
    head, logits, _ = small()
    assert logits.shape == (2, 5, 32, 32)
    predictions = head.predict(logits)
    assert [(d.shape, d.dtype) for d in predictions] == [((32, 32), np.uint8)] * 2
    assert np.array_equal(predictions[1], logits[1].argmax(0).numpy())


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


def test_off_the_grid_the_image_does_not_move() -> None:
    """Logits of an image cut off within the last cells are those of the whole image, away from the cut."""
    torch.manual_seed(0)
    head = SemanticFPN(SPEC, FIVE, SemanticFPN.Settings(width=8)).eval()
    features = {s: torch.randn(1, 4, 64 // s, 64 // s) for s in SPEC.channels}
    whole = head(FeaturePyramid(features=features, attention={}), (64, 64))
    cut = head(FeaturePyramid(features=features, attention={}), (61, 50))
    torch.testing.assert_close(cut, whole[..., :61, :50])


def test_a_cell_decides_its_own_pixels() -> None:
    """A classifier that reads the finest level puts the boundary between two cells where they meet."""
    torch.manual_seed(0)
    head = SemanticFPN(SPEC, FIVE, SemanticFPN.Settings(width=8)).eval()
    coarse = {s: torch.zeros(1, 4, 64 // s, 64 // s) for s in SPEC.channels}
    bright = {s: f.clone() for s, f in coarse.items()}
    bright[4][..., 8] = 5.0
    change = head(FeaturePyramid(bright, {}), (64, 64)) - head(FeaturePyramid(coarse, {}), (64, 64))
    energy = change.square().sum((0, 1, 2))
    center = (energy * (torch.arange(64) + 0.5)).sum() / energy.sum()
    assert center.item() == pytest.approx(8 * 4 + 2, abs=2)


def test_dropout_rests_outside_training() -> None:
    head = SemanticFPN(SPEC, FIVE, SemanticFPN.Settings(width=8, dropout=0.5))
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
        SemanticFPN(SPEC, FIVE, SemanticFPN.Settings(widht=64))
