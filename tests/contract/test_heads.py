"""What every registered head must do. A new head is tested the moment its file exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.tasks import tasks
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace
from tests.contract.kinds import CLASSES, KINDS, Kind

SPEC = FeatureSpec(channels={4: 8, 8: 12, 16: 16, 32: 16}, attention={8: 7, 16: 7})
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


def build(name: str, **settings: Any) -> Any:
    entry = heads[name]
    return entry(SPEC, KINDS[entry.task].labels, entry.Settings(**({"width": 16} | settings))).eval()


@pytest.fixture(params=list(heads))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kind(name: str) -> Kind:
    return KINDS[heads[name].task]


@pytest.fixture
def head(name: str) -> Any:
    torch.manual_seed(0)
    return build(name)


def batch(head: Any, raw: list[Any], size: tuple[int, int]) -> Any:
    """As a batch is made of labels: tensors are stacked, anything else is listed."""
    tensors = [tasks[head.task].label(x, size, head.labels, where="here").tensors() for x in raw]
    return torch.stack(tensors) if isinstance(tensors[0], torch.Tensor) else tensors


def loss(head: Any, outputs: Any, targets: Any) -> torch.Tensor:
    """With the same draws of the global generator every time."""
    torch.manual_seed(3)
    found: torch.Tensor = head.loss(outputs, targets)
    return found


def equal(a: Any, b: Any) -> bool:
    """Whether raw outputs are the same: a tensor, or an object with levels of them."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return all(torch.equal(a.levels[k], b.levels[k]) for k in a.levels)


def test_its_task_is_known_and_its_settings_are_checked(name: str) -> None:
    assert heads[name].task in tasks
    with pytest.raises(ValidationError, match="widht"):
        heads[name].Settings(widht=8)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_there_is_a_prediction_for_every_image(head: Any, size: tuple[int, int]) -> None:
    assert len(head.predict(head(pyramid(size), size))) == 2


def test_one_image_trains_every_parameter(head: Any, kind: Kind) -> None:
    head.train()
    size = (64, 64)
    total = loss(head, head(pyramid(size, batch=1), size), batch(head, [kind.label(size)], size))
    total.backward()
    assert total.ndim == 0
    assert total.isfinite()
    still = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_one_tiny_image_is_enough_to_train_on(head: Any, kind: Kind) -> None:
    head.train()
    size = (32, 32)
    total = loss(head, head(pyramid(size, batch=1), size), batch(head, [kind.label(size)], size))
    total.backward()
    assert total.isfinite()


def test_weights_round_trip_through_safetensors(name: str, head: Any, kind: Kind, tmp_path: Path) -> None:
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    torch.manual_seed(1)
    other = build(name)
    size = (48, 64)
    before = other(pyramid(size), size)
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    expected, found = head(pyramid(size), size), other(pyramid(size), size)
    assert equal(found, expected)
    assert not equal(before, expected)
    assert all(kind.same(a, b) for a, b in zip(head.predict(expected), other.predict(found), strict=True))


def test_attention_is_read_exactly_when_asked_for(name: str) -> None:
    size = (64, 64)
    here, there = pyramid(size), pyramid(size)
    there.attention = {s: a.roll(1, dims=1) for s, a in there.attention.items()}
    head = build(name, use_attention=True)
    assert not equal(head(here, size), head(there, size))
    blind = build(name, use_attention=False)
    assert head.use_attention
    assert not blind.use_attention
    here.attention = {}
    assert equal(blind(here, size), blind(there, size))


def test_labels_of_another_task_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot read other labels"):
        heads[name](SPEC, LabelSpace("other", CLASSES))


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'semantic-fpn'"):
        heads["semantic_fpm"]
