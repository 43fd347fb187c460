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

from benchmarks.evaluate import REPORT, EvaluationSettings, Report, _decide, evaluate
from tadp_da.errors import ArtifactError, DataError, UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.provenance import digests, refuse_overlap
from tadp_da.run import Run
from tadp_da.types import Labeled, Unlabeled
from tests.benchmarks.scored import CLASSES, COUNT, LABELS, SIZE, Decides


def same(caption: str) -> str:
    return caption


def test_perfect_decisions_score_a_hundred_and_an_absent_class_is_absent(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    found = evaluate(Decides(lambda i, *_: np.where(truths[i] == 255, 0, truths[i])), data, same, run)
    assert (found.main, found.metric, found.images) == (100.0, "mIoU", COUNT)
    assert found.classes == {"sky": 100.0, "road": 100.0, "car": 100.0, "tree": None}
    assert found.per_image == {f"{i}.png": 100.0 for i in range(COUNT)}


def test_wrong_decisions_score_nothing(data: Labeled, truths: list[np.ndarray], run: Run) -> None:
    found = evaluate(
        Decides(lambda i, *_: np.where(truths[i] == 255, 0, 3).astype(np.uint8)), data, same, run
    )
    assert found.main == 0.0
    assert found.classes["tree"] == 0.0, "decided, though it is nowhere"


def test_the_main_figure_counts_pixels_of_all_images_together(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    guesses = [np.random.default_rng(9 + i).integers(0, 3, SIZE, dtype=np.uint8) for i in range(COUNT)]
    found = evaluate(Decides(lambda i, *_: guesses[i]), data, same, run)
    guess, truth = np.stack(guesses), np.stack(truths)
    seen = truth != 255
    iou = [
        ((guess == k) & (truth == k))[seen].sum() / ((guess == k) | (truth == k))[seen].sum()
        for k in range(3)
    ]
    assert found.main == pytest.approx(100 * np.mean(iou))
    assert found.main != pytest.approx(
        np.mean([v for v in found.per_image.values() if v is not None]), abs=1e-6
    )


def test_an_image_of_ignored_pixels_alone_has_no_score_of_its_own(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    real = data.label
    blind = dataclasses.replace(data, label=lambda i: np.full(SIZE, 255, np.uint8) if i == 2 else real(i))
    found = evaluate(Decides(lambda i, *_: np.where(truths[i] == 255, 0, truths[i])), blind, same, run)
    assert found.per_image["2.png"] is None
    assert found.main == 100.0
    assert found.images == COUNT


def test_the_model_is_told_the_rewritten_caption(data: Labeled, run: Run) -> None:
    model = Decides(lambda *_: np.zeros(SIZE, np.uint8))
    evaluate(model, data, lambda caption: f"a night photo of {caption}", run)
    assert model.prompts == [f"a night photo of a street with {i} cars" for i in range(COUNT)]


def test_a_decision_of_another_size_is_no_decision(data: Labeled, run: Run) -> None:
    with pytest.raises(DataError, match="cannot be scored"):
        evaluate(Decides(lambda *_: np.zeros((12, 18), np.uint8)), data, same, run)


def test_other_classes_are_refused_and_named(data: Labeled, run: Run) -> None:
    known = dataclasses.replace(LABELS, classes=("sky", "road", "car", "fence"))
    with pytest.raises(UsageError, match="only the labels have tree; only the model has fence") as caught:
        evaluate(Decides(lambda *_: np.zeros(SIZE, np.uint8), known), data, same, run)
    assert "classes that the model knows" in caught.value.fix


def test_a_model_may_number_classes_otherwise_and_know_more(
    data: Labeled, truths: list[np.ndarray], run: Run
) -> None:
    more = dataclasses.replace(LABELS, classes=("moon", *CLASSES[::-1]), palette=())
    table = np.full(256, 0, np.uint8)
    table[:4] = [more.classes.index(name) for name in CLASSES]
    found = evaluate(Decides(lambda i, *_: table[truths[i]], more), data, same, run)
    assert (found.main, set(found.classes)) == (100.0, set(CLASSES))
    moon = evaluate(Decides(lambda *_: np.zeros(SIZE, np.uint8), more), data, same, run)
    assert moon.main == 0.0, "a class that the labels lack is wrong, and has no score of its own"
    assert dict(moon.classes) == {"sky": 0.0, "road": 0.0, "car": 0.0, "tree": None}


@pytest.mark.parametrize(("keep", "expected"), [(0, []), (1, [0]), (3, [0, 3, 6]), (64, list(range(COUNT)))])
def test_kept_pictures_are_chosen_by_place_and_hold_ids(
    data: Labeled, truths: list[np.ndarray], run: Run, tmp_path: Path, keep: int, expected: list[int]
) -> None:
    settings = EvaluationSettings(keep=keep)
    model = Decides(lambda i, *_: np.full(SIZE, i % 4, np.uint8))
    found = evaluate(model, data, same, run, settings, pictures=tmp_path / "out/target")
    assert [kept.key for kept in found.kept] == [f"{i}.png" for i in expected]
    Report(source=None, target=found).save(tmp_path / "out")
    report = Report.load(tmp_path / "out")
    for kept, index in zip(found.kept, expected, strict=True):
        with Image.open(report.picture("target", kept, "truth")) as truth:
            assert np.array_equal(np.asarray(truth), truths[index])
        with Image.open(report.picture("target", kept, "decision")) as decision:
            assert (np.asarray(decision) == index % 4).all()
        with Image.open(report.picture("target", kept, "image")) as image:
            assert np.array_equal(np.asarray(image), np.asarray(data[index].image))


def test_a_report_comes_back_as_it_was_saved(data: Labeled, run: Run, tmp_path: Path) -> None:
    found = evaluate(
        Decides(lambda *_: np.zeros(SIZE, np.uint8)), data, same, run, pictures=tmp_path / "r/target"
    )
    report = Report(source=None, target=found)
    with pytest.raises(UsageError, match="no pictures") as caught:
        report.picture("target", found.kept[0], "image")
    assert "save it" in caught.value.fix
    report.save(tmp_path / "r")
    assert Report.load(tmp_path / "r") == report


@pytest.mark.parametrize("text", [None, "{", '{"target": null}', '{"source": {"main": "x"}, "target": null}'])
def test_what_is_no_report_is_refused_with_advice(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / REPORT).write_text(text)
    with pytest.raises(ArtifactError, match="not a readable report") as caught:
        Report.load(tmp_path)
    assert "score again" in caught.value.fix


def test_nonsense_is_refused_at_birth() -> None:
    for wrong in ({"keep": -1}, {"keep": 65}, {"kept": 1}):
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
    assert "take them out" in caught.value.fix
    assert "--allow-overlap" in caught.value.fix


def test_a_kept_decision_that_is_damaged_anywhere_is_made_again(
    data: Labeled, truths: list[np.ndarray], tmp_path: Path
) -> None:
    model, file, example = Decides(lambda *_: truths[0]), tmp_path / "0.npz", data[0]
    _decide(model, example, "a street", file)
    assert np.array_equal(_decide(model, example, "a street", file), truths[0])
    assert len(model.prompts) == 1, "the second one was read"
    whole = file.read_bytes()
    for place in range(len(whole)):
        raw = bytearray(whole)
        raw[place] ^= 1 << (place % 8)
        file.write_bytes(raw)
        assert np.array_equal(_decide(model, example, "a street", file), truths[0])
    assert len(model.prompts) > len(whole) / 2, "few of a file's bytes say nothing"


def test_a_real_model_is_scored_the_same_twice(backbone: Any, data: Labeled, run: Run) -> None:
    model = PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, width=8)
    first, second = (evaluate(model, data, same, run) for _ in range(2))
    assert first == second
    assert first.main is not None
    assert 0 <= first.main <= 100
