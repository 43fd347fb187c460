"""Rows are trained for real, and their steps are timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.profiling import adapt_speed


@pytest.mark.slow
def test_a_style_and_a_teacher_are_set_beside_the_plain_step(tmp_path: Path) -> None:
    names = ["plain", "fourier", "self-training, half as many target images"]
    words = ["--data", str(tmp_path), "--steps", "2", "--rounds", "1", "--only", *names]
    report = adapt_speed.main(words, apart=lambda work, *given: work(*given))
    assert all(f"| {name} |" in report for name in names)
    assert "| plain |" in report
    assert "Median of 1 rounds of 2 steps" in report


def test_rows_differ_from_the_plain_one_in_what_they_are_named_after() -> None:
    plain = adapt_speed.recipe_of("plain", "mini-night", 5)
    cached = adapt_speed.recipe_of("plain, cached latents", "mini-night", 5)
    many = adapt_speed.recipe_of("self-training, as many", "mini-night", 5)
    assert (plain.adapt.cache_latents, cached.adapt.cache_latents) == (False, True)
    assert many.adapt.target_batch == plain.adapt.batch
    assert many.objectives[1].settings["start"] == 0
    assert plain.adapt.steps == many.adapt.steps == 5
