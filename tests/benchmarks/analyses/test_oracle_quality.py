"""Prompts that name an image's classes at some precision and recall."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.captions.captioner import CaptionerSettings
from tadp_da.captions.imperfect import imperfect
from tadp_da.captions.provider import CaptionProvider
from tadp_da.captions.rewrite import Rewrite
from tadp_da.custom_dataset import CustomDataset
from tadp_da.datasets import resolve
from tadp_da.domains.mini import LABELS
from tadp_da.run import Run

CLASSES = tuple(f"class{i}" for i in range(20))
PRESENT = CLASSES[::4] + CLASSES[1:4]


def test_a_perfect_list_is_the_true_one() -> None:
    assert imperfect("a", PRESENT, CLASSES, 1, 1) == [name for name in CLASSES if name in PRESENT]
    assert imperfect("a", [], CLASSES, 0.5, 0.5) == []


@pytest.mark.parametrize("recall", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("precision", [0.5, 0.75, 1.0])
def test_lists_have_the_precision_and_recall_that_was_asked_for(precision: float, recall: float) -> None:
    named = imperfect("a", PRESENT, CLASSES, precision, recall)
    right = {*named} & {*PRESENT}
    assert len(right) == recall * len(PRESENT) == 8 * recall
    assert len(named) == pytest.approx(len(right) / precision, abs=0.5), "rounded to whole names"
    assert right <= {*imperfect("a", PRESENT, CLASSES, precision, 1)}, "fewer names at a lower recall"
    assert {*named} >= {*imperfect("a", PRESENT, CLASSES, 1, recall)}, "more at a lower precision"
    assert named == imperfect("a", PRESENT, CLASSES, precision, recall), "a function of the image"


def test_errors_differ_between_images() -> None:
    assert len({tuple(imperfect(str(i), PRESENT, CLASSES, 0.5, 0.5)) for i in range(9)}) == 9


def test_strategies_read_lists_with_errors(drawn: Path, tmp_path: Path) -> None:
    own = CustomDataset(name="drawn", images=drawn / "images", masks=drawn / "masks", classes=LABELS.classes)
    source, run = resolve(own, tmp_path), Run(folder=tmp_path)
    provider = CaptionProvider(settings=CaptionerSettings())
    read = {
        name: source.captions("train", provider, run, from_labels=Rewrite(strategy=name).label_quality)
        for name in ("oracle", "oracle-p100-r50")
    }
    for key, text in read["oracle"].items():
        mask = np.asarray(Image.open(drawn / "masks" / Path(key).name))
        assert text.split(", ") == [LABELS.classes[i] for i in np.unique(mask)]
        fewer = read["oracle-p100-r50"][key].split(", ")
        assert {*fewer} < {*text.split(", ")}
    assert Rewrite(strategy="null").label_quality is None


def test_a_model_is_scored_at_every_level(
    command: Callable[..., int], given_words: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sets = ("precisions=[0.5,1.0]", "recalls=[1.0]", "limit=2")
    assert (
        command("analyze", "oracle-quality", *given_words, "--out", out, *(f"--set={s}" for s in sets)) == 0
    )
    first, best = json.loads((out / "findings.json").read_text())["tables"]["levels"]
    assert (best["precision reached"], best["recall reached"]) == (1, 1)
    assert first["precision reached"] < 1 == first["recall reached"]
    assert 0 <= best["mIoU"] <= 100
    assert best["per image, minus the most exact list"] == "none"
    assert Image.open(out / "levels.png").width > 600
