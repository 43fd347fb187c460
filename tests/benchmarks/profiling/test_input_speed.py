"""Both pipelines do the same work on the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.profiling.input_speed import draw, main, ours


def test_a_sample_is_a_crop_with_ids_and_the_report_says_what_was_measured(tmp_path: Path) -> None:
    pixels, ids = ours(*draw(tmp_path, (256, 512)), 64, np.random.default_rng(0))
    assert pixels.shape == (3, 64, 64)
    assert ids.shape == (64, 64)
    assert ids.dtype == torch.int64
    assert len(ids.unique()) > 1
    text = main(["--size", "128", "256", "--crop", "32", "--samples", "2"])
    assert "| tadp-da |" in text
    assert "Mean of 2 samples" in text
