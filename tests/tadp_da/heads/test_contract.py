"""What every registered head must do. A new head is tested the moment its file exists."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tadp_da.errors import DataError, UsageError
from tadp_da.heads import heads
from tadp_da.inference import InferenceSettings
from tadp_da.types import Boxes, Detections, FeaturePyramid, FeatureSpec, LabelSpace

SPEC = FeatureSpec(channels={4: 8, 8: 12, 16: 16, 32: 16}, attention={8: 7, 16: 7})
CLASSES = ("sky", "road", "car")
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


@dataclass(frozen=True)
class Kind:
    """One kind of label: how to make one and one with an id that is no class, for an image of (h, w); the label that a
    decision would be right for; and whether two decisions are the same."""

    label: Callable[[tuple[int, int]], Any]
    strange: Callable[[tuple[int, int]], Any]
    truth: Callable[[Any], Any]
    same: Callable[[Any, Any], bool]


def mask(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 3, size, dtype=np.uint8)


def boxes(size: tuple[int, int], label: int = 2) -> Boxes:
    """A small object and a large one."""
    height, width = size
    corners = [[0, 0, width / 3, height / 3], [width / 4, height / 4, width, height]]
    return Boxes(np.array(corners, np.float32), np.array([0, label]), np.zeros(2, bool))


def found_again(decision: Detections) -> Boxes:
    return Boxes(decision.xyxy, decision.labels, np.zeros(len(decision), bool))


KINDS = {
    "segmentation": Kind(
        mask, lambda size: np.full(size, 9, np.uint8), lambda decision: decision, np.array_equal
    ),
    "detection": Kind(
        boxes,
        lambda size: boxes(size, label=9),
        found_again,
        lambda a, b: np.allclose(a.xyxy, b.xyxy, atol=1e-3) and np.array_equal(a.labels, b.labels),
    ),
}


@pytest.fixture(params=list(heads))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kind(name: str) -> Kind:
    return KINDS[heads[name].task]


@pytest.fixture
def labels(name: str) -> LabelSpace:
    return LabelSpace(heads[name].task, CLASSES)


@pytest.fixture
def head(name: str, labels: LabelSpace) -> Any:
    torch.manual_seed(0)
    return heads[name](SPEC, labels, width=16).eval()


def batch(head: Any, labels: list[Any], size: tuple[int, int]) -> Any:
    """As a batch is made of annotations: tensors are stacked, anything else is listed."""
    tensors = [head.annotation(label, size, where="here").tensors() for label in labels]
    return torch.stack(tensors) if isinstance(tensors[0], torch.Tensor) else tensors


def loss(head: Any, outputs: Any, targets: Any) -> torch.Tensor:
    """With the same draws of the global generator every time."""
    torch.manual_seed(3)
    found: torch.Tensor = head.loss(outputs, targets)
    return found


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_there_is_a_decision_for_every_image(head: Any, kind: Kind, size: tuple[int, int]) -> None:
    decisions = head.decide(head(pyramid(size), size))
    assert len(decisions) == 2
    painted, _ = head.score().paint(decisions[0], kind.label(size), size)
    np.testing.assert_array_equal(painted, head.paint(decisions[0], size))
    json.dumps(head.tell(decisions[0]), allow_nan=False)
    assert (painted.shape, painted.dtype) == (size, np.uint8)
    assert set(np.unique(painted).tolist()) <= {0, 1, 2, 255}


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_image_is_decided_at_its_own_resolution(head: Any, kind: Kind, size: tuple[int, int]) -> None:
    def view(pixels: torch.Tensor) -> Any:
        shape = pixels.shape[-2], pixels.shape[-1]
        return head(pyramid(shape, batch=1), shape)

    pixels, own = torch.zeros(1, 3, *size), (2 * size[0], 3 * size[1])
    plain = head.look(view, pixels, InferenceSettings(), size)
    assert kind.same(plain, head.decide(view(pixels))[0])
    for viewing in (InferenceSettings(), InferenceSettings(window=(32, 32), flip=True)):
        painted, _ = head.score().paint(head.look(view, pixels, viewing, own), kind.label(own), own)
        assert painted.shape == own


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


def test_a_label_moves_with_its_image_and_back(head: Any, kind: Kind) -> None:
    size = (32, 48)
    label = head.annotation(kind.label(size), size, where="here")
    assert label.size == size
    assert label.nbytes > 0
    assert not label.blank
    for same in (label.flip().flip(), label.resize((64, 96)).resize(size), label.crop(0, 0, size), label.pad(size),
                 label.pad((50, 60)).crop(0, 0, size)):  # fmt: skip
        assert same.size == size
        torch.testing.assert_close(same.tensors(), label.tensors())
    assert label.crop(4, 6, (20, 10)).size == (20, 10)
    assert 0 <= label.dominance() <= 1


def test_labels_that_do_not_fit_are_refused_with_advice(head: Any, kind: Kind) -> None:
    with pytest.raises(DataError, match="map the ids to the label space") as caught:
        head.annotation(kind.strange((32, 32)), (32, 32), where="night/7.png")
    assert caught.value.where == "night/7.png"
    with pytest.raises(DataError):
        head.annotation(kind.label((90, 90)), (20, 20), where="night/7.png")


def equal(a: Any, b: Any) -> bool:
    """Whether raw outputs are the same: a tensor, or an object with levels of them."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return all(torch.equal(a.levels[k], b.levels[k]) for k in a.levels)


def test_weights_round_trip_through_safetensors(
    name: str, head: Any, labels: LabelSpace, kind: Kind, tmp_path: Path
) -> None:
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    torch.manual_seed(1)
    other = heads[name](SPEC, labels, width=16).eval()
    size = (48, 64)
    before = other(pyramid(size), size)
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    expected, found = head(pyramid(size), size), other(pyramid(size), size)
    assert equal(found, expected)
    assert not equal(before, expected)
    assert all(kind.same(a, b) for a, b in zip(head.decide(expected), other.decide(found), strict=True))


def test_maps_are_read_exactly_when_asked_for(name: str, head: Any, labels: LabelSpace) -> None:
    size = (64, 64)
    here, there = pyramid(size), pyramid(size)
    there.attention = {s: a.roll(1, dims=1) for s, a in there.attention.items()}
    assert not equal(head(here, size), head(there, size))
    blind = heads[name](SPEC, labels, width=16, maps=False).eval()
    assert head.maps
    assert not blind.maps
    here.attention = {}
    assert equal(blind(here, size), blind(there, size))


def test_a_head_scores_its_own_decisions(head: Any, kind: Kind) -> None:
    score = head.score()
    for decision in head.decide(head(pyramid((64, 64)), (64, 64))):
        score.update(decision, kind.truth(decision))
        assert score.alone(decision, kind.truth(decision)) == pytest.approx(100)
    result = score.compute()
    assert result["main"] == pytest.approx(100)
    assert result["images"] == 2
    assert result["metric"]
    assert list(result["classes"]) == list(CLASSES)


def test_labels_of_unknown_classes_are_refused(name: str, head: Any) -> None:
    with pytest.raises(UsageError, match="fence"):
        head.score(LabelSpace(heads[name].task, ("sky", "fence")))


def test_labels_of_another_task_are_refused(name: str) -> None:
    other = next(task for task in ("segmentation", "detection") if task != heads[name].task)
    with pytest.raises(UsageError, match=f"cannot read {other} labels"):
        heads[name](SPEC, LabelSpace(other, CLASSES))  # type: ignore[arg-type]


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'semantic-fpn'"):
        heads["semantic_fpm"]


def test_strange_ids_are_refused_by_the_score(head: Any, kind: Kind) -> None:
    size = (32, 32)
    decision = head.decide(head(pyramid(size), size))[0]
    with pytest.raises(DataError, match="map the ids to the label space"):
        head.score().update(decision, kind.strange(size))
