"""Bright boxes on dark ground, and what to compare of trainings on them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from adapt import Augmentation, FineTuning
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.types import LabelSpace

LABELS = LabelSpace("segmentation", ("dark", "bright"))
PLAIN = Augmentation()
QUICK = FineTuning(steps=2, batch=1, backbone_lr=1e-3, head_lr=1e-2, warmup=0, augment=PLAIN)


def scene(seed: int, size: tuple[int, int] = (64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A bright box on dark ground, with noise."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    top, left = int(rng.integers(size[0] // 2)), int(rng.integers(size[1] // 2))
    mask[top : top + size[0] // 2, left : left + size[1] // 2] = 1
    noise = rng.normal(0, 15, (*size, 3))
    return np.clip(60 + 130 * mask[..., None] + noise, 0, 255).astype(np.uint8), mask


def plain(caption: str) -> str:
    return caption


def metrics(run: Run) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def state(model: PerceptionModel) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def apart(run: Run, name: object) -> Run:
    """The same run in another folder: in one, a second call would go on from the first."""
    return run.inside(run.folder / str(name))


def losses(run: Run) -> np.ndarray:
    return np.array([line["loss"] for line in metrics(run)])


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {k for k in before if not torch.equal(before[k], after[k])}
