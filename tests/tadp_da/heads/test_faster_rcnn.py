"""Faster R-CNN on a pyramid: anchors and pooling where the pixels are, finite losses, boxes that come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tadp_da.errors import UsageError
from tadp_da.heads.detection.anchors import roi_align
from tadp_da.heads.faster_rcnn import FasterRCNN, FasterRCNNSettings
from tadp_da.tasks import tasks
from tadp_da.tasks.labels.boxes import BoxLabel
from tadp_da.types import Boxes, FeaturePyramid, FeatureSpec, LabelSpace

SPEC = FeatureSpec(channels={4: 4, 8: 4, 16: 4, 32: 4}, attention={})
LABELS = LabelSpace("detection", ("car", "person", "tree"))
SMALL: dict[str, Any] = {"width": 8, "hidden": 16, "pool": 3}


def head(spec: FeatureSpec = SPEC, **changes: Any) -> FasterRCNN:
    torch.manual_seed(0)
    return FasterRCNN(spec, LABELS, FasterRCNNSettings(**(SMALL | changes)))


def pyramid(size: tuple[int, int], batch: int = 1, seed: int = 0, spec: FeatureSpec = SPEC) -> FeaturePyramid:
    generator = torch.Generator().manual_seed(seed)
    return FeaturePyramid(
        {
            s: torch.randn(batch, c, -(-size[0] // s), -(-size[1] // s), generator=generator)
            for s, c in spec.channels.items()
        },
        {},
    )


def boxes(*rows: tuple[float, ...], labels: tuple[int, ...] = (), difficult: tuple[bool, ...] = ()) -> Boxes:
    return Boxes(
        np.array(rows, np.float32).reshape(-1, 4),
        np.array(labels or (0,) * len(rows), np.int64),
        np.array(difficult or (False,) * len(rows), bool),
    )


def annotation(label: Boxes, size: tuple[int, int] = (64, 64)) -> BoxLabel:
    return BoxLabel.checked(label, size, LABELS, "here")


# -- settings


def test_the_defaults_are_the_papers() -> None:
    made = FasterRCNN(FeatureSpec({8: 4, 16: 4, 32: 4, 64: 4}, {}), LABELS)
    assert [s for (s,) in made.rpn.anchor_generator.sizes] == [32, 64, 128, 256]
    assert set(made.rpn.anchor_generator.aspect_ratios) == {(0.5, 1.0, 2.0)}
    rpn, regions = made.rpn, made.regions
    assert (rpn._pre_nms_top_n, rpn._post_nms_top_n) == ({"training": 2000, "testing": 1000},) * 2
    assert (rpn.nms_thresh, rpn.proposal_matcher.low_threshold, rpn.proposal_matcher.high_threshold) == (
        0.7,
        0.3,
        0.7,
    )
    assert (rpn.fg_bg_sampler.batch_size_per_image, rpn.fg_bg_sampler.positive_fraction) == (256, 0.5)
    assert (regions.fg_bg_sampler.batch_size_per_image, regions.fg_bg_sampler.positive_fraction) == (
        512,
        0.25,
    )
    assert regions.proposal_matcher.high_threshold == regions.proposal_matcher.low_threshold == 0.5
    assert (regions.score_thresh, regions.nms_thresh, regions.detections_per_img) == (0.05, 0.5, 100)
    assert (regions.box_roi_pool.output_size, regions.box_roi_pool.sampling_ratio) == ((7, 7), 2)
    assert regions.box_predictor.cls_score.out_features == len(LABELS.classes) + 1
    assert made.neck.layer_blocks[0][0].out_channels == 256


@pytest.mark.parametrize(
    "wrong",
    [{"width": 12}, {"ratios": ()}, {"rpn_match": (0.7, 0.3)}, {"nms": 1.5}, {"most": 0}, {"widht": 8}],
)
def test_nonsense_is_refused_at_birth(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FasterRCNNSettings(**wrong)


@pytest.mark.parametrize("strides", [(4, 8, 32), (3, 6, 12)])
def test_strides_that_do_not_double_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="powers of two") as caught:
        head(FeatureSpec(dict.fromkeys(strides, 4), {}))
    assert "choose a backbone" in caught.value.fix


# -- anchors and pooling


@pytest.mark.parametrize("size", [(64, 64), (37, 91), (5, 130)], ids=str)
def test_anchors_lie_where_their_cells_are_also_off_the_grid(size: tuple[int, int]) -> None:
    from torchvision.models.detection.image_list import ImageList

    made = head()
    levels = list(made(pyramid(size), size).levels.values())
    (anchors,) = made.rpn.anchor_generator(ImageList(levels[0], [size]), levels)
    expected = [
        (x * s, y * s)
        for s in made.strides
        for y in range(-(-size[0] // s))
        for x in range(-(-size[1] // s))
        for _ in range(3)
    ]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert torch.equal(centres, torch.tensor(expected, dtype=torch.float32))
    sides = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1).sqrt()
    finest = torch.tensor([s for s in made.strides for _ in range(3 * -(-size[0] // s) * -(-size[1] // s))])
    torch.testing.assert_close(sides, 4.0 * finest, rtol=0.1, atol=1)


@pytest.mark.parametrize("size", [(64, 64), (37, 91)], ids=str)
def test_regions_are_pooled_from_the_pixels_that_they_cover(size: tuple[int, int]) -> None:
    """Levels that hold each cell's own place give the middle of a region when it is pooled to one cell, half a cell of
    the level off to the right and below, as torchvision pools."""
    strides = (4, 8, 16)
    levels = {}
    for s in strides:
        y, x = torch.meshgrid(
            (torch.arange(-(-size[0] // s)) + 0.5) * s,
            (torch.arange(-(-size[1] // s)) + 0.5) * s,
            indexing="ij",
        )
        levels[str(s)] = torch.stack([x, y])[None]
    region = torch.tensor([[2.0, 1.0, 28.0, 21.0]])
    for stride, canonical in ((16, 20), (8, 40), (4, 1000)):
        pooled = roi_align(strides, 1, 2, canonical)(levels, [region], [size])
        torch.testing.assert_close(pooled.flatten(), torch.tensor([15.0, 11.0]) + stride / 2)


def test_large_regions_are_pooled_from_coarse_levels() -> None:
    pool = roi_align((8, 16, 32, 64), 7, 2, 224)
    sizes = [20, 111, 113, 223, 225, 447, 449, 900]
    regions = torch.tensor([[0.0, 0.0, s, s] for s in sizes])
    assert pool.map_levels([regions]).tolist() == [0, 0, 0, 0, 1, 1, 2, 3]


# -- loss


def targets(*labels: Boxes, size: tuple[int, int] = (64, 64)) -> list[dict[str, torch.Tensor]]:
    return [annotation(label, size).tensors() for label in labels]


def test_images_without_objects_give_a_finite_loss() -> None:
    made = head().train()
    outputs = made(pyramid((64, 64), batch=2), (64, 64))
    for batch in (targets(boxes(), boxes()), targets(boxes(), boxes((5, 5, 40, 40)))):
        made.zero_grad()
        loss = made.loss(outputs, batch)
        loss.backward(retain_graph=True)
        assert loss.isfinite()
        assert loss > 0
        assert all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)


def test_the_loss_draws_from_the_global_generator_alone_and_leaves_the_mode() -> None:
    made = head(rpn_batch=8, roi_batch=8).eval()
    outputs, batch = made(pyramid((64, 64)), (64, 64)), targets(boxes((5, 5, 40, 40)))

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return float(made.loss(outputs, batch).detach())

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)
    assert not any(module.training for module in made.modules())
    made.train()
    made.predict(outputs)
    assert all(module.training for module in made.modules())


def test_difficult_and_hidden_objects_are_trained_on_only_where_settings_say_so() -> None:
    label = annotation(boxes((0, 0, 20, 20), (30, 30, 60, 60), labels=(0, 1), difficult=(False, True)))
    cut = label.crop(0, 16, (64, 48))  # a fifth of the first object is left
    for changes, whole, left in (
        ({}, [0], []),
        ({"difficult": True}, [0, 1], [1]),
        ({"min_visible": 0.2}, [0], [0]),
    ):
        made = head(**changes)
        assert (made._trained_on(label.tensors())["labels"] - 1).tolist() == whole
        assert (made._trained_on(cut.tensors())["labels"] - 1).tolist() == left


def test_half_precision_levels_are_read_in_full() -> None:
    made = head()
    features = pyramid((64, 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = made(features, (64, 64))
        loss = made.loss(outputs, targets(boxes((5, 5, 40, 40))))
        found = made.predict(outputs)[0]
    assert {x.dtype for x in outputs.levels.values()} == {torch.float32}
    assert loss.dtype == torch.float32
    assert found.xyxy.dtype == np.float32


def test_it_learns_to_find_squares() -> None:
    """Features that light up where an object is: after a few steps the object is found, in its class and place."""
    size, spec = (64, 64), FeatureSpec({4: 3, 8: 3}, {})
    few = {"rpn_candidates": (60, 60), "rpn_proposals": (30, 30), "rpn_batch": 64, "roi_batch": 32}
    made = head(spec, width=16, hidden=32, pool=5, **few)

    def scene(seed: int) -> tuple[FeaturePyramid, Boxes]:
        rng = np.random.default_rng(seed)
        x, y, k = int(rng.integers(0, 10)) * 4, int(rng.integers(0, 10)) * 4, int(rng.integers(2))
        fine = torch.zeros(1, 3, 16, 16)
        fine[0, k, y // 4 : y // 4 + 6, x // 4 : x // 4 + 6] = 2.0
        coarse = torch.nn.functional.avg_pool2d(fine, 2)
        return FeaturePyramid({4: fine, 8: coarse}, {}), boxes((x, y, x + 24, y + 24), labels=(k,))

    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    made.train()
    for step in range(45):
        parts = [scene(1000 + 8 * step + i) for i in range(8)]
        joined = {s: torch.cat([p.features[s] for p, _ in parts]) for s in (4, 8)}
        optimizer.zero_grad()
        made.loss(made(FeaturePyramid(joined, {}), size), targets(*(b for _, b in parts))).backward()
        optimizer.step()
    made.eval()
    score = tasks["detection"].metric(LABELS, LABELS)
    for seed in range(12):
        features, label = scene(seed)
        score.update(made.predict(made(features, size))[0], label)
    assert (score.compute()[0].value or 0) > 80


def test_boxes_below_a_pixel_never_reach_the_loss() -> None:
    label = annotation(boxes((4, 4, 6, 60), (8, 8, 40, 40), labels=(0, 1)))
    assert label.resize((16, 16)).tensors()["labels"].tolist() == [1]
    made = head()
    assert made.loss(made(pyramid((16, 16)), (16, 16)), [label.resize((16, 16)).tensors()]).isfinite()
