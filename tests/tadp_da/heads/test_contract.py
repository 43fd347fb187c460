"""What every registered head must do. A new head is tested the moment its file exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tadp_da.errors import DataError, UsageError
from tadp_da.heads import heads
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace

SPEC = FeatureSpec(channels={4: 8, 8: 12, 16: 16, 32: 16}, attention={8: 7, 16: 7})
LABELS = LabelSpace("segmentation", ("sky", "road", "car"))
SIZES = [(64, 64), (64, 96), (37, 91), (5, 130)]


def pyramid(size: tuple[int, int], batch: int = 2, seed: int = 0) -> FeaturePyramid:
    """Random features as a backbone gives them: ceil(size / stride) cells, maps that sum to one over tokens."""
    generator = torch.Generator().manual_seed(seed)

    def cells(stride: int, channels: int) -> torch.Tensor:
        return torch.randn(batch, channels, -(-size[0] // stride), -(-size[1] // stride), generator=generator)

    return FeaturePyramid(
        features={s: cells(s, c) for s, c in SPEC.channels.items()},
        attention={s: cells(s, t).softmax(dim=1) for s, t in SPEC.attention.items()},
    )


def targets(size: tuple[int, int], batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 3, (batch, *size), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=list(heads))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def head(name: str) -> Any:
    torch.manual_seed(0)
    return heads[name](SPEC, LABELS, width=16).eval()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_outputs_and_decisions_have_the_size_of_the_image(head: Any, size: tuple[int, int]) -> None:
    outputs = head(pyramid(size), size)
    assert outputs.shape == (2, 3, *size)
    decisions = head.decide(outputs)
    assert [(d.shape, d.dtype) for d in decisions] == [(size, np.uint8)] * 2
    assert max(d.max() for d in decisions) < 3


def test_one_image_trains_every_parameter(head: Any) -> None:
    head.train()
    loss = head.loss(head(pyramid((64, 64), batch=1), (64, 64)), targets((64, 64), batch=1))
    loss.backward()
    assert loss.ndim == 0
    assert loss.isfinite()
    still = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_one_tiny_image_is_enough_to_train_on(head: Any) -> None:
    head.train()
    loss = head.loss(head(pyramid((32, 32), batch=1), (32, 32)), targets((32, 32), batch=1))
    loss.backward()
    assert loss.isfinite()


def test_ignored_pixels_are_inert(head: Any) -> None:
    size = (32, 32)
    outputs, truth = head(pyramid(size), size).detach(), targets(size)
    truth[:, :9] = LABELS.ignore
    changed = outputs.clone()
    changed[:, :, :9] = torch.randn_like(changed[:, :, :9]) * 100
    assert torch.equal(head.loss(outputs, truth), head.loss(changed, truth))
    changed[:, :, 9:] += torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert not torch.equal(head.loss(outputs, truth), head.loss(changed, truth))


def test_a_batch_without_labels_costs_nothing(head: Any) -> None:
    size = (32, 32)
    loss = head.loss(head(pyramid(size), size), torch.full((2, *size), LABELS.ignore))
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in head.parameters())


def test_weights_round_trip_through_safetensors(name: str, head: Any, tmp_path: Path) -> None:
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    torch.manual_seed(1)
    other = heads[name](SPEC, LABELS, width=16).eval()
    before = other(pyramid((48, 64)), (48, 64))
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    expected = head(pyramid((48, 64)), (48, 64))
    assert torch.equal(other(pyramid((48, 64)), (48, 64)), expected)
    assert not torch.equal(before, expected)


def test_maps_are_read_exactly_when_asked_for(name: str, head: Any) -> None:
    size = (64, 64)
    here, there = pyramid(size), pyramid(size)
    there.attention = {s: a.roll(1, dims=1) for s, a in there.attention.items()}
    assert not torch.equal(head(here, size), head(there, size))
    blind = heads[name](SPEC, LABELS, width=16, maps=False).eval()
    assert head.maps
    assert not blind.maps
    here.attention = {}
    assert torch.equal(blind(here, size), blind(there, size))


def test_a_head_scores_its_own_decisions(head: Any) -> None:
    score = head.score()
    for decision in head.decide(head(pyramid((64, 64)), (64, 64))):
        score.update(decision, decision)
    result = score.compute()
    assert result["main"] == 100
    assert result["images"] == 2


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'semantic-fpn'"):
        heads["semantic_fpm"]


def test_strange_ids_are_refused_by_the_score(head: Any) -> None:
    with pytest.raises(DataError, match="map the ids to the label space"):
        head.score().update(np.zeros((4, 4), np.uint8), np.full((4, 4), 9, np.uint8))
