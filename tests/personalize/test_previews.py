from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from personalize.denoising import LatentDataset, Prompts
from personalize.methods.dreambooth import DreamBooth
from personalize.previews import grid, spread
from personalize.settings import Previews
from personalize.training import BeforeAfterLogger
from tadp_da.errors import UsageError
from tadp_da.run import Run


def _plain(colour: str, size: tuple[int, int] = (160, 130)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_every_picture_stands_in_its_row_and_column() -> None:
    rows = [[_plain("red"), _plain("lime")], [_plain("blue"), _plain("yellow")]]
    page = np.asarray(grid(rows, ["before", "after"], ["one", "two"]))
    found = {}
    for name, colour in {
        "red": (255, 0, 0),
        "lime": (0, 255, 0),
        "blue": (0, 0, 255),
        "yellow": (255, 255, 0),
    }.items():
        ys, xs = np.where((page == colour).all(-1))
        assert len(ys) == 160 * 130
        found[name] = (ys.min(), xs.min())
    assert found["red"][0] == found["lime"][0] < found["blue"][0] == found["yellow"][0]
    assert found["red"][1] == found["blue"][1] < found["lime"][1] == found["yellow"][1]


def test_labels_are_drawn_and_fit() -> None:
    rows = [[_plain("red"), _plain("red")]]
    label = "a long sentence that has to be wrapped so that it stays above its own picture"
    without, page = grid(rows, ["before"]), grid(rows, ["before"], [label, ""])
    assert page.width == without.width
    assert page.height > without.height + 2 * 12
    band = np.asarray(page)[: page.height - without.height]
    assert (band.sum(-1) < 100).any(), "no ink above the picture"
    assert not (band[:, -160:].sum(-1) < 100).any(), "the label runs into the next column"


def test_small_pictures_are_enlarged_and_odd_ones_fitted() -> None:
    page = np.asarray(grid([[_plain("red", (32, 32)), _plain("blue", (64, 32))]], [""]))
    assert ((page == (255, 0, 0)).all(-1)).sum() == 128 * 128
    assert ((page == (0, 0, 255)).all(-1)).sum() == 128 * 64


@pytest.mark.parametrize(("rows", "labels"), [([], []), ([[_plain("red")]], [])])
def test_a_grid_that_does_not_add_up_is_refused(rows: list[list[Image.Image]], labels: list[str]) -> None:
    with pytest.raises(UsageError, match="give one label per row"):
        grid(rows, labels)


def test_spread_takes_from_the_whole_list(images) -> None:
    assert [np.asarray(p)[30, :, 0].argmax() for p in spread(images, 2)] == [10, 34]
    assert len(spread(images, 99)) == len(images)


def _witness(
    images: Any, tmp_path: Path, prompt: str, captions: tuple[str, ...] | None = None
) -> BeforeAfterLogger:
    chosen = DreamBooth(previews=Previews(images=3, prompts=(prompt,)))
    latents: Any = None
    views = LatentDataset(latents, Prompts(("a {word} photo",), "sks", captions))
    return BeforeAfterLogger(
        SimpleNamespace(sample=pytest.fail), views, chosen, Run(folder=tmp_path, quiet=True), images
    )


@pytest.mark.parametrize(
    "prompt", ["a {word} photo of {caption}", "a {wrod}", "a {}", "a {word", "a {word.x}", "a {word:d}"]
)
def test_a_preview_prompt_that_cannot_be_filled_in_is_refused_before_training(
    images: Any, tmp_path: Path, prompt: str
) -> None:
    with (
        pytest.raises(UsageError, match=r"previews\.prompts") as refused,
        _witness(images, tmp_path, prompt)(),
    ):
        pytest.fail("training has begun")
    assert prompt in refused.value.what
    assert "use {word}; {caption} only where" in refused.value.fix


def test_a_preview_prompt_speaks_of_captions_where_they_are_at_hand(images: Any, tmp_path: Path) -> None:
    found = _witness(images, tmp_path, "a {word} photo of {caption}", ("a car", "a road")).prompts
    assert found == [f"a sks photo of a {thing}" for thing in ("car", "road", "car")]


def test_a_tracker_sees_samples_at_each_checkpoint_and_changes_nothing(
    fresh: Any, images: Any, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    method = DreamBooth(
        steps=3,
        checkpoint_every=2,
        learning_rate=1e-3,
        batch=2,
        resolution=32,
        previews=Previews(images=2, steps=1),
    )
    run = Run(folder=tmp_path / "watched", device="cpu", quiet=True, tracker="tensorboard")
    watched = method(fresh(), images, run)
    plain = method(fresh(), images, replace(run, folder=tmp_path / "plain", tracker="none"))
    assert watched.fingerprint == plain.fingerprint
    logged = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    shown = logged.Images("samples")
    assert [each.step for each in shown] == [0, 2, 3]
    assert len({each.encoded_image_string for each in shown}) == 3
    assert [each.step for each in logged.Scalars("loss")] == [1, 2, 3]
