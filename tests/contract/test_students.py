"""What ``adapt.students`` asks of every member."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from adapt.students import RANDOM, Student, students
from tadp_da.backbones import load_backbone
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.inference import InferenceSettings
from tadp_da.perception_model import PerceptionModel
from tests.contract.kinds import KINDS
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2

HEADS = {"segmentation": "semantic-fpn", "depth": "depth-fpn", "detection": "faster-rcnn"}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_backbone("dinov2", str(save_tiny_dinov2(tmp_path_factory.mktemp("tiny") / "dinov2")))


def teacher(backbone: Any, task: str) -> PerceptionModel:
    inference = InferenceSettings(long=96)
    labels = KINDS[task].labels
    return PerceptionModel.assemble(backbone, HEADS[task], labels, inference=inference, width=16)


@pytest.fixture(params=list(students))
def student(request: pytest.FixtureRequest) -> Student:
    return students[request.param]


def test_it_is_a_small_model_for_each_of_its_tasks(student: Student, backbone: Any) -> None:
    small = student.load(RANDOM, seed=0)
    assert not small.reads_text
    for task in student.heads:
        large = teacher(backbone, task)
        model = student.build(large, small, {}, seed=0)
        assert sum(p.numel() for p in model.parameters()) < 20e6
        assert (model.labels, model.inference) == (large.labels, large.inference)
        with torch.no_grad():
            raw = model(torch.zeros(1, 3, 70, 96), small.encode_text([""]))
        assert len(model.head.predict(raw)) == 1
    other = teacher(backbone, min(KINDS.keys() - student.heads.keys()))
    with pytest.raises(UsageError, match="cannot learn"):
        student.build(other, small, {}, seed=0)


def test_random_weights_are_a_function_of_the_seed(student: Student) -> None:
    first, again, other = (
        torch.cat([p.flatten() for p in student.load(RANDOM, seed).parameters()]) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_its_pretrained_weights_it_says_that_they_are_random(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(
        "TORCH_HOME", str(tmp_path)
    )  # nothing is cached there, and nobody reaches for a network

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with caplog.at_level(logging.WARNING):
        assert student.load("", seed=0).origin is None
    assert "starts from random weights" in caplog.text
    with pytest.raises(EnvironmentSetupError):
        student.load(str(tmp_path / "not-there"), seed=0)
