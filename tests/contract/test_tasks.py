"""What every registered task must do, through the heads that name it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tadp_da.errors import DataError, UsageError
from tadp_da.heads import heads
from tadp_da.tasks import Task, View, tasks
from tadp_da.types import LabelSpace
from tests.contract.kinds import KINDS, Kind
from tests.contract.test_heads import SIZES, build, pyramid


@pytest.fixture(params=list(heads))
def head(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return build(str(request.param))


@pytest.fixture
def task(head: Any) -> Task:
    return tasks[head.task]


@pytest.fixture
def kind(head: Any) -> Kind:
    return KINDS[head.task]


def predictions(head: Any, size: tuple[int, int] = (64, 64)) -> list[Any]:
    found: list[Any] = head.predict(head(pyramid(size), size))
    return found


def test_every_task_has_a_head() -> None:
    assert {heads[name].task for name in heads} == set(tasks)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_view_of_an_image_is_the_heads_own_prediction(
    head: Any, task: Task, kind: Kind, size: tuple[int, int]
) -> None:
    raw = head(pyramid(size), size)
    outputs, whole = task.outputs(head, raw), [View(slice(0, size[0]), slice(0, size[1]), size)]
    assert len(outputs) == 2
    for output, expected in zip(outputs, head.predict(raw), strict=True):
        assert kind.same(task.merge(head, [output], whole, size), expected)


def test_a_prediction_is_drawn_at_the_size_of_its_image(head: Any, task: Task) -> None:
    size, own = (64, 48), (96, 96)
    views = [View(slice(0, 64), slice(0, 48), size, mirrored=side) for side in (False, True)]
    found = task.merge(head, task.outputs(head, head(pyramid(size), size)), views, own)
    image = Image.new("RGB", (96, 96))
    shown = task.render(image, found, head.labels)
    assert (shown.size, shown.mode) == ((96, 96), "RGB")
    assert set(task.present(found, head.labels)) <= set(head.labels.classes)
    assert np.array_equal(np.asarray(task.render(image, found, head.labels, 0.0)), np.asarray(image))


def test_a_label_is_drawn_too(head: Any, task: Task, kind: Kind) -> None:
    label, image = kind.label((60, 80)), Image.new("RGB", (80, 60))
    assert np.asarray(task.render(image, label, head.labels, 1.0)).any()
    assert bool(task.present(label, head.labels)) == bool(head.labels.classes)


def test_a_written_prediction_is_read_back_bit_for_bit(head: Any, task: Task, tmp_path: Path) -> None:
    for number, found in enumerate(predictions(head)):
        path = tmp_path / f"{number}{task.suffix}"
        task.write(found, path, head.labels)
        again = task.read(path, head.labels)
        values = (vars(x) if hasattr(x, "__dict__") else {"": x} for x in (found, again))
        first, second = values
        assert first.keys() == second.keys()
        for key, value in first.items():
            np.testing.assert_array_equal(value, second[key])
            assert np.asarray(value).dtype == np.asarray(second[key]).dtype
    with pytest.raises(DataError):
        task.read(tmp_path / f"missing{task.suffix}", head.labels)


def test_a_label_moves_with_its_image_and_back(head: Any, task: Task, kind: Kind) -> None:
    size = (32, 48)
    label = task.label(kind.label(size), size, head.labels, where="here")
    assert label.size == size
    assert label.nbytes > 0
    assert not label.blank
    for same in (label.flip().flip(), label.resize((64, 96)).resize(size), label.crop(0, 0, size), label.pad(size),
                 label.pad((50, 60)).crop(0, 0, size)):  # fmt: skip
        assert same.size == size
        torch.testing.assert_close(same.tensors(), label.tensors())
    assert label.crop(4, 6, (20, 10)).size == (20, 10)
    assert 0 <= label.dominance() <= 1


def test_labels_that_do_not_fit_are_refused_with_advice(head: Any, task: Task, kind: Kind) -> None:
    with pytest.raises(DataError, match=kind.advice) as caught:
        task.label(kind.strange((32, 32)), (32, 32), head.labels, where="night/7.png")
    assert caught.value.where == "night/7.png"
    with pytest.raises(DataError):
        task.label(kind.label((90, 90)), (20, 20), head.labels, where="night/7.png")


def test_predictions_that_are_right_have_the_best_measures(head: Any, task: Task, kind: Kind) -> None:
    metric = task.metric(head.labels, head.labels)
    for found in predictions(head):
        metric.update(found, kind.truth(found))
        assert metric.per_image(found, kind.truth(found)) == pytest.approx(kind.best)
    main, *further = metric.compute()
    assert main.value == pytest.approx(kind.best)
    assert main.name
    assert tuple(main.per_class) == head.labels.classes
    assert len({m.name for m in (main, *further)}) == 1 + len(further)
    json.dumps(metric.details(), allow_nan=False)
    with pytest.raises(DataError, match=kind.advice):
        metric.update(predictions(head)[0], kind.strange((64, 64)))


def test_only_what_is_inside_an_area_is_scored(head: Any, task: Task, kind: Kind) -> None:
    found, size = predictions(head)[0], (64, 64)
    if not isinstance(found, np.ndarray):
        with pytest.raises(UsageError, match="whole images"):
            task.inside(kind.truth(found), (8, 32, 16, 64), head.labels)
        return
    truth = task.inside(kind.truth(found), (8, 32, 16, 64), head.labels)
    wrong = np.array(found)
    wrong[32:] = found.max() - found[32:]
    metric = task.metric(head.labels, head.labels)
    assert metric.per_image(wrong, truth) == pytest.approx(kind.best)
    assert metric.per_image(wrong, kind.truth(found)) != pytest.approx(kind.best)
    with pytest.raises(DataError, match="columns 0 to 65 are to be scored"):
        task.inside(kind.label(size), (0, 64, 0, 65), head.labels)


def test_exports_hold_the_prediction_rounded(head: Any, task: Task, tmp_path: Path) -> None:
    found = predictions(head)[0]
    for suffix in task.exports:
        task.write(found, tmp_path / f"x{suffix}", head.labels)
        assert np.allclose(task.read(tmp_path / f"x{suffix}", head.labels), found, atol=5e-4)


def test_classes_that_cannot_be_predicted_are_refused(head: Any, task: Task) -> None:
    if not head.labels.classes:
        pytest.skip("it predicts a quantity")
    with pytest.raises(UsageError, match="fence"):
        task.metric(LabelSpace(head.task, ("sky", "fence")), head.labels)


def test_labels_are_converted_to_the_classes_that_a_model_knows(head: Any, task: Task, kind: Kind) -> None:
    if not head.labels.classes:
        pytest.skip("it predicts a quantity")
    theirs = LabelSpace(head.task, ("Car", "fence", "sky"))
    shared = task.shared(theirs, head.labels)
    assert shared.labels.classes == ("car", "sky")
    assert "fence" in shared.left_out
    assert "road" in shared.left_out
    converted = shared.convert(kind.label((32, 32)))
    task.label(converted, (32, 32), shared.labels, where="here")
    task.metric(shared.labels, head.labels)
    same = task.shared(head.labels, head.labels)
    assert (same.labels, same.left_out) == (head.labels, "")
    with pytest.raises(UsageError, match="share no class"):
        task.shared(theirs, LabelSpace(head.task, ("moon",)))
