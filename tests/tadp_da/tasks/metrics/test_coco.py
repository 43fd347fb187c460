"""COCO's average precision is that of pycocotools."""

from __future__ import annotations

import contextlib
import importlib.util
import io

import numpy as np
import pytest

from tadp_da.tasks.metrics.average_precision import NO_COCO
from tadp_da.types import Boxes, Detections
from tests.tadp_da.tasks.metrics.scored import BOX, found, metric_of, random_pairs, scored, truth


def test_nothing_found_is_zero_and_perfect_is_a_hundred_in_all_three() -> None:
    pairs = random_pairs(5)
    assert set(scored([(found(), t) for _, t in pairs], coco=True).values()) == {0.0}
    perfect = [(Detections(t.xyxy, t.labels, np.ones(len(t), np.float32)), t) for _, t in pairs]
    assert list(scored(perfect, coco=True).values()) == pytest.approx([100.0] * 6)
    shuffled = [(d, t) for (d, _), (_, t) in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    assert all(v is not None and v < 25 for v in scored(shuffled, coco=True).values())


def pycocotools(pairs: list[tuple[Detections, Boxes]]) -> tuple[float, float]:
    """AP and AP50 by COCO's own code."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def sides(box: list[float]) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations, results = [], []
    for number, (decision, label) in enumerate(pairs):
        for box, k, d in zip(
            label.xyxy.tolist(), label.labels.tolist(), label.difficult.tolist(), strict=True
        ):
            x, y, w, h = sides(box)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": k, "bbox": [x, y, w, h]}
                | {"area": w * h, "iscrowd": int(d)}
            )
        results += [
            {"image_id": number, "category_id": k, "bbox": sides(box), "score": score}
            for box, k, score in zip(
                decision.xyxy.tolist(), decision.labels.tolist(), decision.scores.tolist(), strict=True
            )
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(pairs))],
            "categories": [{"id": 0}, {"id": 1}],
            "annotations": annotations,
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return 100 * judge.stats[0], 100 * judge.stats[1]


def simulated(seed: int) -> list[tuple[Detections, Boxes]]:
    """A detector on a hundred objects of each class, twenty pixels wide: most are found, the sure ones more exactly,
    false alarms score low. Overlaps (k of 20) and recalls (k of 100) fall on COCO's thresholds."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(25):
        corners = rng.integers(0, 400, (8, 2))
        boxes = np.concatenate([corners, corners + np.array([20, 30])], axis=1)
        labels = np.arange(8) % 2
        seen, sure = rng.random(8) < 0.9, rng.beta(4, 2, 8)
        near = boxes - np.outer(rng.integers(0, 11, 8) * (sure < 0.9), [0, 0, 1, 0])
        start = rng.integers(0, 400, (int(rng.poisson(2)), 2))
        alarms = np.concatenate([start, start + 40], axis=1)
        guesses = np.where(rng.random(8) < 0.9, labels, 1 - labels)
        scores = np.concatenate([sure[seen], rng.beta(2, 5, len(alarms))]).astype(np.float32)
        finds = np.concatenate([near[seen], alarms]).astype(np.float32)
        ids = np.concatenate([guesses[seen], rng.integers(0, 2, len(alarms))]).astype(np.int64)
        pairs.append(
            (Detections(finds, ids, scores), Boxes(boxes.astype(np.float32), labels, np.zeros(8, bool)))
        )
    return pairs


@pytest.mark.parametrize("pairs", [random_pairs(3, 40, ties=False), simulated(0), simulated(1), simulated(2)])
def test_coco_numbers_are_cocos_own(pairs: list[tuple[Detections, Boxes]]) -> None:
    """Thresholds of 32 bits, where 0.6 is 0.60000002, gave up to half a point less."""
    result = scored(pairs, coco=True)
    assert (result["AP (COCO)"], result["AP50 (COCO)"]) == pytest.approx(pycocotools(pairs), abs=1e-9)


def test_without_the_package_coco_is_absent_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "faster_coco_eval" else real(name, *a)
    )
    metric = metric_of([(found((BOX, 0, 0.5)), truth((BOX, 0)))], coco=True)
    values = {m.name: m.value for m in metric.compute()}
    assert (values["AP50 (VOC07)"], values["AP50 (COCO)"], values["AP (COCO)"]) == (100, None, None)
    assert metric.notes() == (NO_COCO,)
    assert "tadp-da[det]" in NO_COCO
