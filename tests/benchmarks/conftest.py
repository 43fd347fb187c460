"""A labelled domain of a few drawn pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.domains.formats.folder import folder_domain
from tadp_da.run import Run
from tadp_da.types import Labeled
from tests.benchmarks.scored import CLASSES, COUNT, LABELS, SIZE


@pytest.fixture(scope="session")
def truths() -> list[np.ndarray]:
    """Three classes and the ignore id in every mask; the fourth class is absent."""
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 3, SIZE, dtype=np.uint8) for _ in range(COUNT)]
    for mask in masks:
        mask[:2] = 255
    return masks


@pytest.fixture
def data(tmp_path: Path, truths: list[np.ndarray]) -> Labeled:
    """The pictures, masks and captions of a test split."""
    for folder in ("i", "m"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    rng = np.random.default_rng(1)
    for index, mask in enumerate(truths):
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(
            tmp_path / f"data/i/{index}.png"
        )
        Image.fromarray(mask).save(tmp_path / f"data/m/{index}.png")
    domain = folder_domain(
        "drawn",
        images={"test": tmp_path / "data/i"},
        masks={"test": tmp_path / "data/m"},
        classes=CLASSES,
        palette=LABELS.palette,
    )
    captions = {f"{i}.png": f"a street with {i} cars" for i in range(COUNT)}
    return domain.labeled(tmp_path / "data/i", "test", captions)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "run", quiet=True, device="cpu")
