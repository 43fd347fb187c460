"""Scores are those of the labels, at the labels' resolution, and a report comes back as it was saved."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from benchmarks.evaluate import OPACITY, EvaluationSettings, evaluate
from benchmarks.results import REPORT, Report
from tadp_da.errors import ArtifactError, DataError, UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.provenance import digests, refuse_overlap
from tadp_da.run import Run
from tadp_da.types import Labeled, LabelSpace, Unlabeled
from tadp_da.visualize import overlay
from tests.benchmarks.scored import CLASSES, COUNT, LABELS, SIZE, Predicts


def same(caption: str) -> str:
    return caption


def test_perfect_decisions_score_a_hundred_and_an_absent_class_is_absent(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    found = evaluate(Predicts(lambda i, *_: np.where(truths[i] == 255, 0, truths[i])), data, same, run)
    assert (found.main.value, found.main.name, found.images) == (100.0, "mIoU", COUNT)
    assert found.main.per_class == {"sky": 100.0, "road": 100.0, "car": 100.0, "tree": None}
    assert found.per_image == {f"{i}.png": 100.0 for i in range(COUNT)}


def test_wrong_decisions_score_nothing(data: Labeled, truths: list[np.ndarray], run: Run) -> None:
    found = evaluate(
        Predicts(lambda i, *_: np.where(truths[i] == 255, 0, 3).astype(np.uint8)), data, same, run
    )
    assert found.main.value == 0.0
    assert found.main.per_class["tree"] == 0.0, "decided, though it is nowhere"


def test_the_main_figure_counts_pixels_of_all_images_together(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    guesses = [np.random.default_rng(9 + i).integers(0, 3, SIZE, dtype=np.uint8) for i in range(COUNT)]
    found = evaluate(Predicts(lambda i, *_: guesses[i]), data, same, run)
    guess, truth = np.stack(guesses), np.stack(truths)
    seen = truth != 255
    iou = [
        ((guess == k) & (truth == k))[seen].sum() / ((guess == k) | (truth == k))[seen].sum()
        for k in range(3)
    ]
    assert found.main.value == pytest.approx(100 * np.mean(iou))
    assert found.main.value != pytest.approx(
        np.mean([v for v in found.per_image.values() if v is not None]), abs=1e-6
    )


def test_an_image_of_ignored_pixels_alone_has_no_score_of_its_own(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    real = data.label
    blind = dataclasses.replace(data, label=lambda i: np.full(SIZE, 255, np.uint8) if i == 2 else real(i))
    found = evaluate(Predicts(lambda i, *_: np.where(truths[i] == 255, 0, truths[i])), blind, same, run)
    assert found.per_image["2.png"] is None
    assert found.main.value == 100.0
    assert found.images == COUNT


def test_the_model_is_told_the_rewritten_caption(data: Labeled, run: Run) -> None:
    model = Predicts(lambda *_: np.zeros(SIZE, np.uint8))
    evaluate(model, data, lambda caption: f"a night photo of {caption}", run)
    assert model.prompts == [f"a night photo of a street with {i} cars" for i in range(COUNT)]


def test_mirror_images_and_scales_may_be_other_than_the_models(data: Labeled, run: Run) -> None:
    model = Predicts(lambda *_: np.zeros(SIZE, np.uint8))
    evaluate(model, data, same, run)
    assert model.asked == model.inference
    evaluate(model, data, same, run, EvaluationSettings(flip=True, scales=(1.0, 1.5)))
    assert model.asked == dataclasses.replace(model.inference, flip=True, scales=(1.0, 1.5))


def test_a_decision_of_another_size_is_no_decision(data: Labeled, run: Run) -> None:
    with pytest.raises(DataError, match="cannot be scored"):
        evaluate(Predicts(lambda *_: np.zeros((12, 18), np.uint8)), data, same, run)


def test_classes_that_only_one_side_has_are_left_out_and_named(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    known = dataclasses.replace(LABELS, classes=("sky", "road", "car", "fence"))
    found = evaluate(Predicts(lambda i, *_: np.where(truths[i] == 255, 0, truths[i]), known), data, same, run)
    assert (found.main.value, set(found.main.per_class)) == (100.0, {"sky", "road", "car"})
    assert found.notes == (
        "drawn is scored on 3 classes that labels and model share; only the labels have tree; only the model has fence",
    )
    with pytest.raises(UsageError, match="share no class") as caught:
        evaluate(Predicts(lambda *_: truths[0], LabelSpace("segmentation", ("a", "b"))), data, same, run)
    assert "in common" in caught.value.fix


def test_a_model_may_number_classes_otherwise_and_know_more(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    more = dataclasses.replace(LABELS, classes=("moon", *CLASSES[::-1]), palette=())
    table = np.full(256, 0, np.uint8)
    table[:4] = [more.classes.index(name) for name in CLASSES]
    found = evaluate(Predicts(lambda i, *_: table[truths[i]], more), data, same, run)
    assert (found.main.value, set(found.main.per_class)) == (100.0, set(CLASSES))
    moon = evaluate(Predicts(lambda *_: np.zeros(SIZE, np.uint8), more), data, same, run)
    assert moon.main.value == 0.0, "a class that the labels lack is wrong, and has no score of its own"
    assert dict(moon.main.per_class) == {"sky": 0.0, "road": 0.0, "car": 0.0, "tree": None}


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [0]), (3, [0, 3, 6]), (64, list(range(COUNT)))])
def test_saved_images_are_chosen_by_position_and_show_classes(
    data: Labeled, truths: list[np.ndarray], run: Run, tmp_path: Path, count: int, expected: list[int]
) -> None:
    settings = EvaluationSettings(save_images=count)
    model = Predicts(lambda i, *_: np.full(SIZE, i % 4, np.uint8))
    found = evaluate(model, data, same, run, settings, images=tmp_path / "out/target")
    assert [saved.key for saved in found.saved] == [f"{i}.png" for i in expected]
    Report(evaluations={"target": found}).save(tmp_path / "out")
    report = Report.load(tmp_path / "out")
    for saved, index in zip(found.saved, expected, strict=True):
        image = data[index].image
        with Image.open(report.image("target", saved, "image")) as stored:
            assert np.array_equal(np.asarray(stored), np.asarray(image))
        for what, mask in (("truth", truths[index]), ("prediction", np.full(SIZE, index % 4, np.uint8))):
            with Image.open(report.image("target", saved, what)) as stored:
                assert np.array_equal(np.asarray(stored), np.asarray(overlay(image, mask, LABELS, OPACITY)))
        assert {CLASSES[index % 4]} <= set(saved.classes) <= set(CLASSES)


def test_a_report_is_read_as_it_was_saved(data: Labeled, run: Run, tmp_path: Path) -> None:
    model = Predicts(lambda *_: np.zeros(SIZE, np.uint8))
    found = evaluate(model, data, same, run, images=tmp_path / "r/test")
    report = Report(evaluations={"test": found})
    assert report.primary == found
    with pytest.raises(UsageError, match="no images") as caught:
        report.image("test", found.saved[0], "image")
    assert "save it" in caught.value.fix
    report.save(tmp_path / "r")
    assert Report.load(tmp_path / "r") == report
    with pytest.raises(UsageError, match="'tests'"):
        Report(evaluations={"tests": found})


@pytest.mark.parametrize(
    "text", [None, "{", '{"format": 1}', '{"format": 2, "evaluations": {"target": {}}}', "[]"]
)
def test_other_files_are_not_read_as_reports(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / REPORT).write_text(text)
    with pytest.raises(ArtifactError, match="not a readable report") as caught:
        Report.load(tmp_path)
    assert "evaluate again" in caught.value.fix


def test_nonsense_is_refused_at_birth() -> None:
    for wrong in ({"save_images": -1}, {"save_images": 65}, {"batch": 0}, {"saved": 1}):
        with pytest.raises(ValidationError):
            EvaluationSettings(**wrong)


def test_a_test_image_that_is_learned_from_is_found_under_any_name(data: Labeled, tmp_path: Path) -> None:
    test = data.images
    (tmp_path / "u").mkdir()
    other = Image.new("RGB", (8, 8))
    other.save(tmp_path / "u/other.png")
    seen = Unlabeled(domain="drawn", root=tmp_path / "u", paths=(tmp_path / "u/other.png",))
    refuse_overlap(digests(seen), test)
    copy = Path(shutil.copy(test.paths[3], tmp_path / "u/holiday.png"))
    with pytest.raises(DataError, match=f"1 of {COUNT} test images") as caught:
        refuse_overlap(digests(dataclasses.replace(seen, paths=(*seen.paths, copy))), test)
    assert "holiday.png" in str(caught.value.where)
    assert "remove them" in caught.value.fix
    assert "--allow-overlap" in caught.value.fix


def test_a_stored_prediction_that_is_damaged_anywhere_is_made_again(
    data: Labeled, truths: list[np.ndarray], run: Run, tmp_path: Path
) -> None:
    model = Predicts(lambda *_: np.where(truths[0] == 255, 0, truths[0]))
    one = dataclasses.replace(data, images=data.images[:1])

    def again() -> None:
        assert evaluate(model, one, same, run, predictions=tmp_path / "p").main.value == 100.0

    again()
    again()
    assert len(model.prompts) == 1, "the second one was read"
    (file,) = (tmp_path / "p").iterdir()
    whole = file.read_bytes()
    for count, place in enumerate(range(0, len(whole), 7)):
        raw = bytearray(whole)
        raw[place] ^= 1 << (place % 8)
        file.write_bytes(raw)
        again()
        assert len(model.prompts) == count + 2


def test_batches_give_the_predictions_of_single_images(backbone: Any, data: Labeled, run: Run) -> None:
    model = PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, width=8)
    one, three = (evaluate(model, data, same, run, EvaluationSettings(batch=b)) for b in (1, 3))
    assert one.main.value == pytest.approx(three.main.value, abs=0.5)
    assert list(one.per_image) == list(three.per_image)


def test_a_real_model_is_scored_the_same_twice(backbone: Any, data: Labeled, run: Run) -> None:
    model = PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, width=8)
    first, second = (evaluate(model, data, same, run) for _ in range(2))
    assert first == second
    assert first.main.value is not None
    assert 0 <= first.main.value <= 100


def test_only_the_crop_is_scored_and_a_note_says_so(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    """Wrong outside of the crop, right inside."""
    right = [np.where(truth == 255, 0, truth) for truth in truths]
    for mask in right:
        mask[12:] = 3
    settings = EvaluationSettings(crop=(0, 12, 0, SIZE[1]))
    found = evaluate(Predicts(lambda i, *_: right[i]), data, same, run, settings)
    assert found.main.value == 100.0
    assert found.notes == (f"only rows 0 to 12 and columns 0 to {SIZE[1]} are scored",)
    assert evaluate(Predicts(lambda i, *_: right[i]), data, same, run).main.value != 100.0
    with pytest.raises(UsageError, match="has no pixels"):
        EvaluationSettings(crop=(9, 9, 0, 4))
