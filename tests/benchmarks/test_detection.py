"""Detection from end to end: boxes through training, a saved model, scores, pictures; and a table with its panels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapt import Augmentation, FineTuning
from benchmarks.evaluate import EvaluationSettings, evaluate
from benchmarks.reports.plots import plot_panels
from benchmarks.reports.statistics import compare
from benchmarks.reports.tables import markdown
from benchmarks.results import Report
from tadp_da import api
from tadp_da.datasets import resolve
from tadp_da.domains import domains, mini
from tadp_da.errors import DataError
from tadp_da.inference import InferenceSettings
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.tasks.metrics.average_precision import NO_COCO
from tadp_da.types import Boxes, Detections, Example, Labeled, LabelSpace
from tests.benchmarks.scored import Predicts

SMALL = {"width": 8, "hidden": 16, "pool": 3, "rpn_candidates": (50, 50), "rpn_proposals": (20, 20)}
SMALL |= {"rpn_batch": 32, "roi_batch": 16}
TUNING = FineTuning(
    steps=2, batch=2, backbone_lr=1e-4, head_lr=1e-3, warmup=0, augment=Augmentation(flip=0.5)
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "run", quiet=True, device="cpu")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labeled:
    """Three drawn street scenes in a comic look, with boxes."""
    monkeypatch.setattr(mini, "COUNTS", dict.fromkeys(mini.COUNTS, 3))
    domain = domains["mini-manga-boxes"]
    keys = [domain.unlabeled(tmp_path, "train").key(i) for i in range(3)]
    return domain.labeled(tmp_path, "train", dict.fromkeys(keys, "a street with cars"))


def same(caption: str) -> str:
    return caption


def model_of(backbone: Any, labels: LabelSpace = mini.THINGS, **changes: Any) -> PerceptionModel:
    return PerceptionModel.assemble(backbone, "faster-rcnn", labels, **(SMALL | changes))


AUGMENTS = {
    "latents": Augmentation(flip=0.5),
    "letterbox": Augmentation(scale=(0.5, 1.5), crop=(96, 160), photometric=True),
    "crop": Augmentation(crop=(64, 64)),
}


@pytest.mark.parametrize("name", AUGMENTS)
def test_a_detector_is_trained_saved_and_predicts(
    backbone: Any, data: Labeled, run: Run, tmp_path: Path, name: str
) -> None:
    model = model_of(backbone, inference=InferenceSettings(long=64))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    FineTuning(**{f: getattr(TUNING, f) for f in TUNING.__dataclass_fields__} | {"augment": AUGMENTS[name]})(
        model, data, same, run
    )
    moved = {
        k.split(".")[1]
        for k, v in model.head.state_dict(prefix="head.").items()
        if not torch.equal(v, before[k])
    }
    assert moved == {"neck", "rpn", "regions"}
    losses = [json.loads(line)["loss"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    image = data[0].image.resize((150, 90))
    found = model.predict(image, "a street")
    assert isinstance(found, Detections)
    assert len(found) > 0
    assert (found.xyxy >= 0).all()
    assert (found.xyxy <= [150, 90, 150, 90]).all()
    assert found.xyxy[:, 2].max() > 64, "boxes are in the image's own pixels"
    model.save(tmp_path / "model")
    again = PerceptionModel.load(tmp_path / "model").predict(image, "a street")
    np.testing.assert_array_equal(found.xyxy, again.xyxy)
    np.testing.assert_array_equal(found.scores, again.scores)


def test_objects_of_your_own_images_are_kept_as_json_beside_pictures(
    backbone: Any, data: Labeled, run: Run, tmp_path: Path
) -> None:
    model = model_of(backbone, inference=InferenceSettings(long=64), min_score=0.1)
    model.save(tmp_path / "model")
    image = data.images.paths[0]
    assert api.predict(tmp_path / "model", image, out=run.folder, caption="a street", device="cpu") == 1
    told = json.loads((run.folder / "objects/00000.json").read_text())
    found = PerceptionModel.load(tmp_path / "model").predict(data[0].image, caption="a street")
    assert (
        [thing["score"] for thing in told]
        == found.scores.tolist()
        == sorted(found.scores.tolist(), reverse=True)
    )
    assert {thing["class"] for thing in told} <= set(mini.THINGS.classes)
    assert [len(thing["xyxy"]) for thing in told] == [4] * len(found)
    with Image.open(run.folder / "overlays/00000.png") as picture:
        assert picture.size == data[0].image.size
    assert not (run.folder / "masks").exists()


def test_a_squashed_image_gives_boxes_of_its_own_shape(backbone: Any) -> None:
    """The network sees a square; its boxes are stretched back. Rows of one colour are the same at any width."""
    rows = np.random.default_rng(0).integers(0, 256, (64, 1, 3), np.uint8)
    square, wide = (Image.fromarray(rows.repeat(width, axis=1)) for width in (64, 192))
    whole = model_of(backbone)
    expected = whole.predict(square, "a street")
    whole.inference = InferenceSettings(squash=(64, 64))
    assert whole.inference.size(64, 192) == (64, 64)
    found = whole.predict(wide, "a street")
    assert len(found) > 0
    np.testing.assert_allclose(found.xyxy, expected.xyxy * [3, 1, 3, 1], rtol=1e-5)
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("sizes", [{"long": 64}, {"short": 64}])
def test_squash_and_a_kept_shape_exclude_each_other(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="leave out short and long"):
        InferenceSettings(squash=(64, 64), **sizes)


def knows(answers: list[Detections], labels: LabelSpace = mini.THINGS) -> Predicts:
    """A model that finds what it is told to."""
    return Predicts(lambda i, *_: answers[i], labels)


def perfect(label: Boxes) -> Detections:
    return Detections(label.xyxy, label.labels, np.full(len(label), 0.9, np.float32))


def test_measures_and_saved_images_of_a_perfect_detector(data: Labeled, run: Run, tmp_path: Path) -> None:
    answers = [perfect(data[i].target) for i in range(3)]
    settings = EvaluationSettings(save_images=2)
    found = evaluate(knows(answers), data, same, run, settings, images=tmp_path / "r/target")
    assert (found.main.value, found.main.name, found.images) == (100.0, "AP50 (VOC07)", 3)
    assert set(found.per_image.values()) <= {100.0, None}
    assert [m.value for m in found.further] == pytest.approx([100.0] * 5)
    Report(evaluations={"target": found}).save(tmp_path / "r")
    report = Report.load(tmp_path / "r")
    assert report.evaluations["target"] == found
    for saved in found.saved:
        with (
            Image.open(report.image("target", saved, "truth")) as truth,
            Image.open(report.image("target", saved, "prediction")) as prediction,
        ):
            assert np.array_equal(np.asarray(truth), np.asarray(prediction))
            assert truth.size == data[0].image.size
        assert saved.classes
    assert plot_panels({"null": report, "perfect": report}, tmp_path / "panels.png")
    with Image.open(tmp_path / "panels.png") as panels:
        assert panels.width > 400


def test_stored_detections_are_those_that_were_predicted(data: Labeled, run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = []
    for i in range(3):
        label = data[i].target
        scores = np.sort(rng.random(len(label), np.float32))[::-1]
        noisy.append(Detections(label.xyxy + rng.random((len(label), 4), np.float32), label.labels, scores))
    model = knows(noisy)
    first, second = (evaluate(model, data, same, run, predictions=tmp_path / "p") for _ in range(2))
    assert first == second
    assert len(model.prompts) == 3


def test_all_measures_are_side_by_side_in_the_report(data: Labeled, run: Run) -> None:
    reports = {}
    for row, sure in (("null", 0.9), ("half", 0.4)):
        answers = [perfect(data[i].target) for i in range(3)]
        if row == "half":
            answers = [Detections(a.xyxy[::2], a.labels[::2], a.scores[::2] * sure) for a in answers]
        found = evaluate(knows(answers), data, same, run)
        if row == "half":
            coco = tuple(dataclasses.replace(m, value=None) for m in found.further[3:])
            found = dataclasses.replace(found, further=(*found.further[:3], *coco), notes=(NO_COCO,))
        reports[row] = {0: Report(evaluations={"target": found})}
    comparison = compare(reports, title="boxes")
    assert comparison.metric == "AP50 (VOC07)"
    text = markdown(comparison)
    lines = [
        line for line in text.splitlines() if line.startswith(("| row | AP (VOC07)", "| null", "| half"))
    ][-3:]
    assert lines[0] == "| row | AP (VOC07) | AP50 (VOC10) | AP (VOC10) | AP50 (COCO) | AP (COCO) |"
    assert lines[1] == "| null |" + " 100.0 |" * 5
    assert lines[2].endswith("| - | - |")
    assert "pip install 'tadp-da" in text


def test_detections_of_classes_that_the_labels_lack_are_dropped(data: Labeled, run: Run) -> None:
    more = LabelSpace("detection", ("dog", *mini.THINGS.classes[::-1]))
    ids = np.array([more.classes.index(name) for name in mini.THINGS.classes])
    answers = []
    for i in range(3):
        label = data[i].target
        dog = np.array([[0, 0, 50, 50]], np.float32)
        answers.append(
            Detections(
                np.concatenate([dog, label.xyxy]),
                np.concatenate([[0], ids[label.labels]]),
                np.linspace(1, 0.5, len(label) + 1, dtype=np.float32),
            )
        )
    found = evaluate(knows(answers, more), data, same, run)
    assert found.main.value == 100.0
    assert "only the model has dog" in found.notes[0]


def test_a_box_off_its_image_is_refused_before_training(
    backbone: Any, data: Labeled, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Boxes(np.array([[500, 5, 600, 9]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool))
    broken = Labeled(data.domain, data.labels, data.images, lambda i: bad, data.captions)
    with pytest.raises(DataError, match="drop such boxes") as caught:
        TUNING(model_of(backbone), broken, same, run)
    assert "train/images" in str(caught.value.where)


def test_a_set_without_any_object_still_trains(backbone: Any, data: Labeled, run: Run) -> None:
    empty = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    nothing = Labeled(data.domain, data.labels, data.images, lambda i: empty, data.captions)
    model = TUNING(model_of(backbone, inference=InferenceSettings(long=64)), nothing, same, run)
    assert isinstance(model.predict(nothing[0].image, "a street"), Detections)
    assert isinstance(nothing[0], Example)


def test_artifacts_distinguish_boxes(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini, "COUNTS", dict.fromkeys(mini.COUNTS, 2))
    source = resolve("mini-day-boxes", tmp_path)
    path = source.images("test").paths[0]
    first = source.digest("test")
    assert source.has("test")
    label = path.parent.parent / "boxes.json"
    things = json.loads(label.read_text())
    things[path.stem][0]["xyxy"][2] += 1
    label.write_text(json.dumps(things))
    # what the process knows of files whose images have not changed
    monkeypatch.setattr("tadp_da.datasets._KNOWN", {})
    mini._boxes_of.cache_clear()
    assert resolve("mini-day-boxes", tmp_path).digest("test") != first
