"""A model as an ONNX file: equal to the model at every size of the grid, and enough for programs without PyTorch."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tadp_da import onnx_export
from tadp_da.backbones import load_backbone
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.inference import InferenceSettings
from tadp_da.perception_model import PerceptionModel
from tadp_da.types import LabelSpace
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2

EXAMPLE = Path(__file__).parent.parent.parent / "docs/examples/onnx_predict.py"
installed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in onnx_export.PACKAGES),
    reason="the extra export is not installed",
)
SEGMENTATION = LabelSpace("segmentation", ("sky", "road", "car"), palette=((1, 2, 3),) * 3)
KINDS = {
    "segmentation": ("semantic-fpn", SEGMENTATION, {}),
    "depth": ("depth-fpn", LabelSpace("depth", (), range=(0.001, 10.0)), {}),
    "detection": (
        "faster-rcnn",
        LabelSpace("detection", ("car", "person")),
        {"hidden": 32, "min_score": 0.2, "nms": 0.3},
    ),
}


def _model(backbone: Any, task: str) -> PerceptionModel:
    head, labels, settings = KINDS[task]
    inference = InferenceSettings(long=160)
    model = PerceptionModel.assemble(backbone, head, labels, inference=inference, width=16, **settings)
    if task == "detection":  # random weights say the same of every region: make them differ
        with torch.no_grad():
            model.head.regions.box_predictor.cls_score.weight.mul_(200)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tiny") / "dinov2"
    return load_backbone("dinov2", str(save_tiny_dinov2(folder, layers=1)))


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _require_same_maps(model: PerceptionModel, path: Path, prompt: str, sizes: list[tuple[int, ...]]) -> None:
    """Outputs of one tensor differ by at most 1e-3 at these numbers of images, heights and widths."""
    session, text = _session(path), model.backbone.encode_text([prompt])
    for images, height, width in sizes:
        pixels = torch.rand(images, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
        with torch.no_grad():
            expected = model(pixels, text.expand(images, -1, -1)).numpy()
        (found,) = session.run(None, {"pixels": pixels.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-3)


def _require_same_objects(found: list[dict[str, Any]], expected: Any, classes: tuple[str, ...]) -> None:
    """As many, and each is among the expected ones; equal scores may change places."""
    assert len(found) == len(expected) > 0
    for row in found:
        near = np.abs(expected.xyxy - row["xyxy"]).max(1) + 100 * np.abs(expected.scores - row["score"])
        assert near.min() < 0.2
        assert classes[expected.labels[near.argmin()]] == row["class"]


def _example(*words: object) -> None:
    subprocess.run([sys.executable, EXAMPLE, *map(str, words)], check=True, timeout=120)


@installed
def test_the_file_is_the_model_and_the_documented_example_reads_it(
    tiny: Any, command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _model(tiny, "segmentation")
    model.save(tmp_path / "model")
    file = tmp_path / "out" / "model.onnx"
    # a fixed size is traced in a third of the time; free ones are below
    words = ["export", tmp_path / "model", file, "--prompt", "a street", "--size", "128x192"]
    assert command(*words) == 0
    assert "differs from the model by" in capsys.readouterr().out
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]
    _require_same_maps(model, file, "a street", [(1, 128, 192), (3, 128, 192)])
    about = _session(file).get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["sky", "road", "car"]
    assert json.loads(about["inference"])["long"] == 160
    assert json.loads(about["size"]) == [128, 192]
    assert (about["prompt"], about["grid"], about["task"]) == ("a street", "64", "segmentation")
    assert len(about["model_digest"]) == 32
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8))
    image.save(tmp_path / "image.png")
    _example(file, tmp_path / "image.png", tmp_path / "mask.png")
    mask = np.array(Image.open(tmp_path / "mask.png"))
    assert mask.shape == (70, 100)
    assert mask.max() < 3
    assert command("export", tmp_path / "model", file) == 2
    assert "exists" in capsys.readouterr().err


@installed
@pytest.mark.slow
@pytest.mark.parametrize("task", KINDS)
def test_the_embedded_model_is_exported_with_every_task(task: str, tmp_path: Path) -> None:
    model = _model(load_backbone("stable-diffusion", "mini"), task)
    made = onnx_export.export(model, tmp_path / "model.onnx", prompt="a street at night")
    assert made.deviation < onnx_export.TOLERANCE
    if task != "detection":
        sizes = [(1, 32, 32), (1, 128, 128), (3, 64, 160)]
        _require_same_maps(model, made.path, "a street at night", sizes)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8))
    image.save(tmp_path / "image.png")
    suffix = {"segmentation": ".png", "depth": ".npy", "detection": ".json"}[task]
    _example(made.path, tmp_path / "image.png", tmp_path / f"found{suffix}")
    expected = model.predict(image, "a street at night")
    if task == "segmentation":
        assert (np.array(Image.open(tmp_path / "found.png")) == expected).mean() > 0.999
    elif task == "depth":
        np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-3)
    else:
        rows = json.loads((tmp_path / "found.json").read_text())
        _require_same_objects(rows, expected, model.labels.classes)


def test_objects_as_a_graph_are_the_predicted_ones(tiny: Any) -> None:
    model = _model(tiny, "detection")
    graph = onnx_export.Graph(model, "")
    pixels = graph.example(None)
    with torch.no_grad():
        found = {name: value.tolist() for name, value in graph(pixels).items()}
        (expected,) = model.head.predict(model(pixels, graph.text))
    rows = zip(found["boxes"], found["labels"], found["scores"], strict=True)
    classes = model.labels.classes
    objects = [{"xyxy": box, "class": classes[label], "score": score} for box, label, score in rows]
    _require_same_objects(objects, expected, classes)


def test_the_default_prompt_is_that_of_an_empty_caption(tiny: Any) -> None:
    model = _model(tiny, "segmentation")
    about = onnx_export.describe(model, model.prompt(""), (64, 128))
    assert about["prompt"] == model.rewrite.target("")
    assert json.loads(about["size"]) == [64, 128]


def test_what_cannot_be_exported_is_refused_with_advice(
    tiny: Any, backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file = _model(tiny, "segmentation"), tmp_path / "model.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(onnx_export, "PACKAGES", ("onnx_that_is_not_there",))
        with pytest.raises(EnvironmentSetupError) as missing:
            onnx_export.export(model, file)
        assert missing.value.fix == "pip install 'tadp-da[export]'"
    monkeypatch.setattr(onnx_export, "PACKAGES", ())
    with pytest.raises(UsageError, match="grid of 64 pixels") as off:
        onnx_export.export(model, file, size=(100, 128))
    assert "128x128" in off.value.fix
    with pytest.raises(UsageError, match=r"does not end in \.onnx"):
        onnx_export.export(model, tmp_path / "model.pt")
    with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
        onnx_export.as_size("512")
    backbone.settings = type(backbone.settings)(posterior="sample")
    with pytest.raises(UsageError, match="samples the autoencoder's posterior") as sampled:
        onnx_export.export(_model(backbone, "segmentation"), file)
    assert "posterior: mode" in sampled.value.fix
    assert not list(tmp_path.iterdir())


def test_a_detector_that_finds_nothing_is_exported_too(tiny: Any) -> None:
    model = _model(tiny, "detection")
    model.head.regions.score_thresh = 1.0
    graph = onnx_export.Graph(model, "")
    with torch.no_grad():
        found = graph(graph.example(None))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "boxes": (0, 4), "labels": (0,), "scores": (0,),
    }  # fmt: skip


def test_the_documented_example_keeps_to_a_fixed_size() -> None:
    import runpy

    size = runpy.run_path(str(EXAMPLE))["working_size"]
    image = Image.new("RGB", (640, 480))
    assert size(image, {"squash": [512, 512]}, None) == (512, 512)
    assert size(image, {"squash": [512, 512]}, [256, 384]) == (256, 384)
