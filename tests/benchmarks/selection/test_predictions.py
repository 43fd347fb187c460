"""What is stored of a model's predictions is what the model predicts, for masks and for boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.selection import predictions
from benchmarks.selection.predictions import Predicting, jitter
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.files import file_digest
from tadp_da.types import LabelSpace, Unlabeled


@pytest.mark.parametrize(
    ("task", "head", "settings"),
    [("segmentation", "semantic-fpn", {"width": 8}), ("detection", "faster-rcnn", {"width": 16})],
)
def test_predictions_are_the_models_own_and_are_made_once(
    task: str,
    head: str,
    settings: dict[str, Any],
    backbone: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / name)
    images = Unlabeled("night", tmp_path, (tmp_path / "a.png", tmp_path / "b.png"))
    labels = LabelSpace(task, ("sky", "road", "car"))
    PerceptionModel.assemble(backbone, head, labels, **settings).save(tmp_path / "model")
    predicting = Predicting(
        model=tmp_path / "model",
        images=images,
        captions={"a.png": "a car", "b.png": "a street"},
        run=Run(folder=tmp_path / "run", quiet=True, device="cpu"),
        batch=1,
    )
    found = predicting()
    model = PerceptionModel.load(tmp_path / "model")
    for kind, shown in (("plain", images[1]), ("jittered", jitter(images[1], file_digest(images.paths[1])))):
        own, kept = model.predict(shown, caption="a street"), getattr(found, kind)[1]
        assert vars(kept).keys() == vars(own).keys() if task == "detection" else (kept == own).all()
        if task == "detection":
            assert all(np.array_equal(vars(kept)[part], vars(own)[part]) for part in vars(own))
    if task == "segmentation":
        assert found.shares is not None
        assert found.shares.sum() == pytest.approx(1.0)
        assert found.confidence is not None
        assert found.confidence.sum() == pytest.approx(1.0)
        assert found.entropy is not None
        assert 0 < found.entropy <= np.log(3) + 1e-9
    else:
        assert found.shares is None
    monkeypatch.setattr(predictions, "predict_images", None)
    assert len(predicting().plain) == 2, "read from the run's folder"
