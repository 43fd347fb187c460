"""A student is measured beside its teacher."""

from __future__ import annotations

from typing import Any

from PIL import Image

from adapt.students import RANDOM, students
from benchmarks.profiling import student
from tadp_da.perception_model import PerceptionModel
from tadp_da.tasks import Measure
from tests.contract.kinds import KINDS


def test_speeds_are_measured_and_the_table_holds_means_over_seeds(backbone: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(student, "REPEATS", 1)
    teacher = PerceptionModel.assemble(backbone, "semantic-fpn", KINDS["segmentation"].labels, width=16)
    small = students["lraspp-mobilenet-v3"]
    taught = small.build(teacher, small.load(RANDOM, 0), {}, seed=0)
    found = student.rates([teacher, taught], [Image.new("RGB", (64, 64))], 2)
    assert len(found) == 2
    assert min(found) > 0

    def seed(*scores: float) -> list[student.Measured]:
        return [
            student.Measured(
                name=name,
                measure=Measure(name="mIoU", value=score),
                parameters=student.parameters(model),
                rates={1: found[0], 8: found[1]},
            )
            for name, score, model in zip(("teacher", "small"), scores, (teacher, taught), strict=True)
        ]

    text = student.table([seed(50, 40), seed(60, 44)])
    assert "target mIoU, %" in text
    assert "55.0 ± 7.1" in text
    assert "42.0 ± 2.8" in text
