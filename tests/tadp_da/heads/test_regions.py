"""What each stage of Faster R-CNN says, for objectives that teach it without labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tadp_da.heads import heads
from tadp_da.heads.detection.regions import RegionHead, Sampling
from tadp_da.types import LabelSpace
from tests.tadp_da.heads.test_faster_rcnn import SPEC, head, pyramid

SIZE = (64, 64)


@pytest.fixture
def made() -> Any:
    return head()


def test_only_heads_that_propose_regions_are_region_heads(made: Any) -> None:
    assert isinstance(made, RegionHead)
    entry = heads["semantic-fpn"]
    assert not isinstance(
        entry(SPEC, LabelSpace(entry.task, ("a", "b")), entry.Settings(width=16)), RegionHead
    )


def test_stages_together_are_the_prediction(made: Any) -> None:
    raw = made(pyramid(SIZE, batch=2), SIZE)
    anchors = made.anchors(raw)
    proposals = made.proposals(raw, anchors)
    regions = made.classify(raw, proposals)
    assert anchors.moves.shape == (*anchors.objectness.shape, 4)
    assert len(anchors.objectness) == 2
    assert regions.moves.shape == (*regions.logits.shape, 4)
    assert not proposals[0].requires_grad
    found = made.regions.postprocess_detections(
        regions.logits, regions.moves.flatten(1), proposals, [SIZE] * 2
    )
    for boxes_, scores, prediction in zip(*found[:2], made.predict(raw), strict=True):
        order = scores.argsort(descending=True, stable=True)
        assert torch.equal(boxes_[order], torch.from_numpy(prediction.xyxy))


def test_reading_the_stages_leaves_modes_and_random_numbers_alone(made: Any) -> None:
    made.train()
    raw, before = made(pyramid(SIZE), SIZE), torch.random.get_rng_state()
    made.classify(raw, made.proposals(raw, made.anchors(raw)))
    assert all(part.training for part in made.modules())
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_region_is_no_region(made: Any) -> None:
    regions = made.classify(made(pyramid(SIZE), SIZE), [torch.zeros(0, 4)])
    assert regions.logits.shape == (0, 4)
    assert regions.moves.shape == (0, 4, 4)


def test_the_loss_is_the_sum_of_its_losses(made: Any) -> None:
    target = {
        "boxes": torch.tensor([[8.0, 8, 40, 40]]),
        "labels": torch.tensor([1]),
        "difficult": torch.tensor([False]),
        "visible": torch.tensor([1.0]),
    }
    raw = made(pyramid(SIZE), SIZE)
    torch.manual_seed(0)
    total = made.loss(raw, [target])
    torch.manual_seed(0)
    losses = made.losses(raw, [target])
    assert torch.equal(total, torch.stack([*losses.values()]).sum())
    assert sum("box_reg" in name for name in losses) == 2


@pytest.mark.parametrize(("objects", "rest"), [(0, 50), (2, 50), (20, 50), (3, 4), (0, 0)])
def test_expected_weights_are_the_mean_of_what_torchvision_draws(objects: int, rest: int) -> None:
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

    labels = torch.tensor([1] * objects + [0] * rest + [-1] * 5)
    weights = Sampling(16, 0.25).expected(labels == 1, labels == 0)
    torch.manual_seed(0)
    sampler, drawn = BalancedPositiveNegativeSampler(16, 0.25), torch.zeros(len(labels))
    for _ in range(400):
        chosen, other = sampler([labels])
        drawn += chosen[0] + other[0]
    torch.testing.assert_close(weights, drawn / 400, atol=0.1, rtol=0)
    torch.testing.assert_close(weights.sum(), drawn.sum() / 400)
    assert not weights[labels == -1].any()
