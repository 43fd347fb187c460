"""Masks in colour: ids survive, ignored pixels show the picture, every class has a colour of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.reports.plots import plot_panels, plot_scores, reach
from benchmarks.reports.statistics import compare
from benchmarks.results import Report, SavedImage
from tadp_da.domains.formats.masks import read_mask
from tadp_da.errors import UsageError
from tadp_da.types import LabelSpace
from tadp_da.visualize import colour_mask, colours, overlay, palette_image, save_mask
from tests.benchmarks.scored import LABELS, evaluation, row

MASK = np.array([[0, 1, 2], [3, 255, 0]], dtype=np.uint8)


def test_a_saved_mask_shows_colours_and_still_holds_ids(tmp_path: Path) -> None:
    save_mask(MASK, LABELS, tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", LABELS), MASK)
    with Image.open(tmp_path / "m.png") as image:
        assert image.convert("RGB").getpixel((2, 0)) == LABELS.palette[2]


def test_each_class_has_its_colour_and_ignored_pixels_are_white() -> None:
    painted = np.asarray(colour_mask(MASK, LABELS))
    for y, x in np.ndindex(*MASK.shape):
        expected = (255, 255, 255) if MASK[y, x] == 255 else LABELS.palette[MASK[y, x]]
        assert tuple(painted[y, x]) == expected


def test_generated_colours_differ() -> None:
    many = LabelSpace("segmentation", tuple(f"class {i}" for i in range(40)))
    found = colours(many)
    assert len(set(found)) == len(found) == 40
    assert all(0 <= channel <= 255 for colour in found for channel in colour)


def test_an_overlay_goes_from_the_picture_to_the_mask() -> None:
    image = Image.new("RGB", (3, 2), (10, 20, 30))
    assert np.array_equal(np.asarray(overlay(image, MASK, LABELS, 0.0)), np.asarray(image))
    full = np.asarray(overlay(image, MASK, LABELS, 1.0))
    assert tuple(full[0, 1]) == LABELS.palette[1]
    assert tuple(full[1, 1]) == (10, 20, 30), "an ignored pixel shows the picture"


def test_what_cannot_be_drawn_is_refused_with_advice() -> None:
    with pytest.raises(UsageError, match=r"float64 \(2, 3\)") as caught:
        palette_image(MASK.astype(float), LABELS)
    assert "class ids per pixel" in caught.value.fix
    with pytest.raises(UsageError, match="does not fit") as caught:
        overlay(Image.new("RGB", (9, 9)), MASK, LABELS)
    assert "nearest-neighbour" in caught.value.fix


def test_a_palette_is_not_needed(tmp_path: Path) -> None:
    bare = dataclasses.replace(LABELS, palette=())
    save_mask(MASK, bare, tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", bare), MASK)


def test_a_ceiling_does_not_flatten_the_other_rows() -> None:
    null = {0: 46.0, 1: 44.0, 2: 45.0}
    near = {
        name: row({s: v + gain + 0.1 * s for s, v in null.items()}) for name, gain in (("a", 1), ("b", -2))
    }
    far = row({s: v + 25 for s, v in null.items()})

    def of(rows: dict[str, dict[int, Report]]) -> float:
        return reach([r.difference for r in compare({"null": row(null), **rows}).rows if r.difference])

    assert of(near | {"oracle": far}) < 5
    assert of({"oracle": far}) > 25
    assert of({}) > 0


def test_names_are_text_in_plots_too(tmp_path: Path) -> None:
    rows = {name: row({0: 46.0, 1: 44.0}) for name in ("null", r"$\foo$ {caption}")}
    plot_scores(compare(rows, title=r"$\foo$"), tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 1000


def test_a_row_that_saved_fewer_images_has_empty_cells(tmp_path: Path) -> None:
    rows = {}
    for name, count in (("null", 3), ("x", 1)):
        saved = tuple(
            SavedImage(stem=f"{i:02d}", key=f"{i}.png", prompt="", score=None) for i in range(count)
        )
        scored = dataclasses.replace(evaluation(40.0), saved=saved)
        for image in saved:
            for what in ("image", "truth", "prediction"):
                place = tmp_path / name / f"target/{image.stem}-{what}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 16), "gray").save(place)
        rows[name] = {0: Report(evaluations={"target": scored}, folder=tmp_path / name)}
    assert plot_panels({name: seeds[0] for name, seeds in rows.items()}, tmp_path / "panels.png")
