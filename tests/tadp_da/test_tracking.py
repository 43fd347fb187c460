"""What TensorBoard and Weights & Biases are told, read back from their own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.run import Run
from tadp_da.tracking import log_images
from tadp_da.training.loop import LoopSettings, fit, recorded
from tests.faults.victims import Points
from tests.tadp_da.training.test_loop import Line


def train(run: Run) -> None:
    line = Line()
    groups = [{"params": list(line.layer.parameters()), "lr": 0.1}]
    steps = fit(line, groups, {"source": Points()}, LoopSettings(steps=3, batch=3), run)
    for _ in recorded(steps, 3, run, "training"):
        pass


def test_tensorboard_has_the_curves_of_metrics_jsonl_and_the_images(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(Run(folder=tmp_path, device="cpu", quiet=True, tracker="tensorboard"))
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "samples.png")
    log_images("tensorboard", tmp_path, {"samples": tmp_path / "samples.png", "none": tmp_path / "none.png"})
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    for tag, values in {
        "loss": [line["loss"] for line in lines],
        "grad_norm": [line["grad_norm"] for line in lines],
        "lrs/0": [0.1] * 3,
    }.items():
        logged = events.Scalars(tag)
        assert [each.step for each in logged] == [1, 2, 3]
        np.testing.assert_allclose([each.value for each in logged], values, rtol=1e-6)
    assert events.Tags()["images"] == ["samples"]
    assert (events.Images("samples")[0].width, events.Images("samples")[0].height) == (4, 4)


def test_wandb_has_one_run_for_an_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / ".model-123.draft"
    train(Run(folder=folder, device="cpu", quiet=True, tracker="wandb"))
    Image.new("RGB", (4, 4)).save(tmp_path / "samples.png")
    log_images("wandb", folder, {"samples": tmp_path / "samples.png"})
    kept = list((tmp_path / "wandb").glob("offline-run-*"))
    assert kept
    assert len({each.name.rpartition("-")[2] for each in kept}) == 1
    assert list(tmp_path.glob("wandb/*/files/media/images/samples*.png"))


def test_a_tracker_that_is_unknown_or_missing_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="'mlflow' is unknown"):
        Run(folder=tmp_path, tracker="mlflow")  # type: ignore[arg-type]
    monkeypatch.setattr("tadp_da.tracking.find_spec", lambda name: None)
    with pytest.raises(EnvironmentSetupError, match="wandb is not installed"):
        Run(folder=tmp_path, tracker="wandb")
