"""A small student learns what a large model predicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import adapt.distillation
import tadp_da
from adapt import teaching
from adapt.teaching import Probabilities, divergence
from tadp_da.backbones import load_backbone
from tadp_da.errors import UsageError
from tadp_da.inference import InferenceSettings
from tadp_da.perception_model import PerceptionModel
from tests.contract.kinds import CLASSES, KINDS
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2

STUDENTS = {
    "segmentation": ("semantic-fpn", "lraspp-mobilenet-v3", {}),
    "depth": ("depth-fpn", "segformer-b0", {}),
    "detection": ("faster-rcnn", "fasterrcnn-mobilenet-v3", {"hidden": 32}),
}
SMALL = ("batch=2", "checkpoint_every=1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, their masks, and a teacher for each task."""
    root = tmp_path_factory.mktemp("world")
    backbone = load_backbone("dinov2", str(save_tiny_dinov2(root / "dinov2")))
    for task, (head, _, more) in STUDENTS.items():
        model = PerceptionModel.assemble(
            backbone, head, KINDS[task].labels, width=16, inference=InferenceSettings(long=64), **more
        )
        model.save(root / task)
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(root / f"images/{index}.png")
        Image.fromarray(rng.integers(0, 3, (48, 64), np.uint8)).save(root / f"masks/{index}.png")
    return root


def distill(world: Path, out: Path, task: str = "segmentation", *sets: str, **more: Any) -> PerceptionModel:
    options = {"quiet": True, "device": "cpu", "weights": "random", "student": STUDENTS[task][1]} | more
    return tadp_da.distill(world / task, world / "images", out=out, sets=(*SMALL, *sets), **options)


def losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_weights(a: Path, b: Path) -> bool:
    return all(
        torch.equal(x, y)
        for name in ("head.safetensors", "backbone/mobilenet_v3_large.safetensors")
        for x, y in zip(load_file(a / name).values(), load_file(b / name).values(), strict=True)
    )


def test_a_student_comes_nearer_to_its_teacher_and_resumes_bit_for_bit(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., int]
) -> None:
    model = distill(world, tmp_path / "whole", "segmentation", "steps=8", "lr=0.003")
    course = [line["loss"] for line in losses(tmp_path / "whole")]
    assert course[-1] < 0.7 * course[0]
    assert model.labels == KINDS["segmentation"].labels

    # an equal student that is complete would be taken
    (tmp_path / "whole/manifest.json").rename(tmp_path / "whole/no-manifest.json")

    def never(model: Any) -> Any:
        raise AssertionError("the teacher's predictions were there already")

    recorded = adapt.distillation.recorded

    def stops(*given: Any) -> Any:
        for step in recorded(*given):
            yield step
            if step.index == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(teaching, "Soft", never)
        patch.setattr(adapt.distillation, "recorded", stops)
        with pytest.raises(KeyboardInterrupt):
            distill(world, tmp_path / "again", "segmentation", "steps=8", "lr=0.003")
    distill(world, tmp_path / "again", "segmentation", "steps=8", "lr=0.003")
    assert [line["loss"] for line in losses(tmp_path / "again")] == course
    assert same_weights(tmp_path / "whole", tmp_path / "again")

    images, masks = world / "images", world / "masks"
    where = ["--device", "cpu", "--out"]
    assert (
        command("evaluate", tmp_path / "again", images, masks, "--allow-overlap", *where, tmp_path / "score")
        == 0
    )
    assert command("predict", tmp_path / "again", images, *where, tmp_path / "found") == 0
    assert len(list((tmp_path / "found/masks").glob("*.png"))) == 3


@pytest.mark.parametrize("task", ["depth", "detection"])
def test_every_task_is_taught(world: Path, tmp_path: Path, task: str) -> None:
    distill(world, tmp_path / "student", task, "steps=1", "score=0.1", "head.width=16")
    (line,) = losses(tmp_path / "student")
    assert 0 < line["loss"] < 100
    assert PerceptionModel.load(tmp_path / "student").labels == KINDS[task].labels


def test_labelled_source_images_join(world: Path, tmp_path: Path) -> None:
    labelled = {"labelled": world / "images", "labels": world / "masks"}
    distill(world, tmp_path / "student", "segmentation", "steps=1", **labelled)
    (line,) = losses(tmp_path / "student")
    assert set(line["losses"]) == {"distillation", "supervised"}
    with pytest.raises(UsageError, match="labelled with"):
        distill(world, tmp_path / "other", "segmentation", "steps=1", classes=("a", "b", "c"), **labelled)


def test_what_cannot_be_distilled_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot learn depth") as task:
        distill(world, tmp_path / "a", "depth", student="lraspp-mobilenet-v3")
    assert "segformer-b0" in task.value.fix
    with pytest.raises(UsageError, match="did you mean 'segformer-b0'"):
        distill(world, tmp_path / "b", student="segformer-b1")
    with pytest.raises(UsageError, match="unknown key, did you mean 'temperature'"):
        distill(world, tmp_path / "c", "segmentation", "temprature=1")


def _probabilities(seed: int, size: tuple[int, int] = (6, 8)) -> torch.Tensor:
    logits = torch.randn(2, len(CLASSES), *size, generator=torch.Generator().manual_seed(seed))
    return (3 * logits).softmax(1)


def test_the_divergence_is_that_of_softened_probabilities() -> None:
    teacher, student = _probabilities(0), _probabilities(1)
    assert divergence(teacher.log(), teacher, 2.0).abs() < 1e-6
    soft, own = (p.double().log().div(2).softmax(1) for p in (teacher, student))
    expected = 4 * (soft * (soft / own).log()).sum(1).mean()
    torch.testing.assert_close(
        divergence(student.log(), teacher, 2.0).double(), expected, rtol=1e-4, atol=1e-6
    )
    padded = torch.cat([teacher, torch.zeros_like(teacher)], dim=3)
    wide = torch.cat([student.log(), torch.randn(student.shape)], dim=3)
    torch.testing.assert_close(divergence(wide, padded, 2.0), divergence(student.log(), teacher, 2.0))


def test_probabilities_move_with_their_image() -> None:
    cells = _probabilities(0)[0]
    label = Probabilities.at(cells, (24, 32))
    assert label.size == (24, 32)
    whole = label.tensors()
    torch.testing.assert_close(label.resize((12, 16)).tensors().sum(0), torch.ones(12, 16))
    assert torch.equal(label.flip().tensors(), whole.flip(-1))
    part = label.resized_crop((24, 32), 4, 8, (16, 40))
    assert part.size == (16, 40)
    assert torch.equal(part.tensors()[..., :24], whole[:, 4:20, 8:])
    assert not part.tensors()[..., 24:].any()
