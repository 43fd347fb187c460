"""Masks that are allowed one by one and mean something else together; masks of values that no class list explains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.custom_dataset import CustomDataset
from tadp_da.datasets import resolve
from tadp_da.domains.checks.validate import check_data
from tadp_da.errors import DataError, UsageError
from tadp_da.run import Run
from tests.tadp_da.domains import trees
from tests.tadp_da.domains.checks.checked import command, only


def drawn(root: Path, *masks: object) -> Path:
    """An image for each mask, whose first pixels hold the values."""
    for number, values in enumerate(masks):
        trees.picture(root / f"i/{number}.png")
        trees.mask(root / f"m/{number}.png", values)
    return root


def own(root: Path, classes: str = "sky,road", **options: object) -> CustomDataset:
    return CustomDataset.of(root / "i", root / "m", classes=tuple(classes.split(",")), **options)  # type: ignore[arg-type]


def ids(root: Path, **options: object) -> list[int]:
    """Class ids in the masks."""
    source = resolve(own(root, **options), root)  # type: ignore[arg-type]
    label = source.domain.label
    assert label is not None
    return sorted({int(v) for path in source.images("train").paths for v in np.unique(label(path))})


def test_masks_of_0_and_255_only_are_warned_of_with_both_ways_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    drawn(tmp_path, [0] * 600 + [255] * 600, [0, 255])
    words = ["data", "check", tmp_path / "i", tmp_path / "m", "--classes", "sky,road"]
    assert command(*words) == 0
    shown = capsys.readouterr().out
    assert "warning: the masks hold only 0 and 255, and 255, 25% of all pixels, is ignored" in shown
    assert "no mask has 'road'. Is 255 a class here?" in shown
    assert "--ignore-index none, which reads it as 'road'; or name the classes of both in a legend" in shown
    # adapt, evaluate, run and benchmark look through this
    source = resolve(own(tmp_path), tmp_path)
    source.checked(["train"], Run(folder=tmp_path / "run", device="cpu", quiet=True))
    assert "Is 255 a class here?" in caplog.text
    assert "--ignore-index none" in caplog.text
    assert command(*words, "--ignore-index", "none") == 0
    assert "ready to use\n" in capsys.readouterr().out
    assert ids(tmp_path) == [0, 255]
    assert ids(tmp_path, ignore="none") == [0, 1]
    (tmp_path / "legend.yaml").write_text("0: sky\n255: road\n")
    assert ids(tmp_path, legend=tmp_path / "legend.yaml") == [0, 1]
    with pytest.raises(DataError, match="value 255 in 1 pixels; expected 0 to 2"):
        ids(drawn(tmp_path / "three", [0, 255]), classes="a,b,c", ignore="none")


def test_border_pixels_in_masks_of_two_classes_are_not_warned_of(tmp_path: Path) -> None:
    drawn(tmp_path, (0, 255, 1), (0, 255))
    assert check_data(resolve(own(tmp_path), tmp_path).domain, tmp_path).all_findings == ()
    with pytest.raises(DataError, match="value 255 in 1 pixels; expected 0 to 1\n"):
        ids(tmp_path, ignore="none")


@pytest.mark.parametrize("value", [127, 128])
def test_a_second_class_stored_as_another_value_is_an_error_with_both_ways_out(
    tmp_path: Path, value: int
) -> None:
    drawn(tmp_path, (0, value))
    finding = only(check_data(resolve(own(tmp_path), tmp_path).domain, tmp_path))
    assert f"value {value} in 1 pixels; expected 0 to 1" in finding.what
    assert finding.fix.startswith(f"if {value} is 'road': --ignore-index none; otherwise name the classes")
    assert f"a legend (--legend FILE) with lines such as `{value}: NAME`" in finding.fix
    assert ids(tmp_path, ignore="none") == [0, 1]


def test_masks_resized_with_smoothing_are_told_as_such(tmp_path: Path) -> None:
    drawn(tmp_path, [*range(0, 256, 5), 1])
    fix = only(check_data(resolve(own(tmp_path), tmp_path).domain, tmp_path)).fix
    assert fix.startswith("was the mask resized with smoothing, or saved as JPEG?")
    assert "252" not in fix.partition("Otherwise")[0]
    few = drawn(tmp_path / "few", (0, 1, 2, 3))
    assert only(check_data(resolve(own(few), few).domain, few)).fix.startswith("name 4 classes, or")


def test_the_ignored_value_is_a_number_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(tmp_path, (0, 1))
    words = ["data", "check", tmp_path / "i", tmp_path / "m", "--classes", "a,b", "--ignore-index"]
    assert command(*words, "nothing") == 2
    assert "give a number, or none" in " ".join(capsys.readouterr().err.replace("│", "").split())
    assert command(*words, "7") == 0
    with pytest.raises(UsageError, match="ignore id 1"):
        resolve(own(tmp_path, ignore=1), tmp_path)


def painted(path: Path, palette: list[tuple[int, int, int]], values: list[int]) -> None:
    trees.picture(path.parent.parent / "i" / path.name)
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(np.resize(np.array(values, np.uint8), (30, 40)))
    image.putpalette([channel for colour in palette for channel in colour])
    image.save(path)


def test_palettes_that_contradict_each_other_are_an_error_until_a_legend_decides(tmp_path: Path) -> None:
    black, purple, red = (0, 0, 0), (128, 64, 128), (200, 0, 0)
    painted(tmp_path / "m/0.png", [black, purple, red], [0, 1])
    painted(tmp_path / "m/1.png", [black, red, purple], [0, 2, 1])  # its program sorts colours otherwise

    def found(**options: object) -> tuple[object, ...]:
        domain = resolve(own(tmp_path, "bg,road,car", **options), tmp_path).domain
        return check_data(domain, tmp_path).all_findings

    (finding,) = found()
    assert finding.level == "error"  # type: ignore[attr-defined]
    assert "the colour (128, 64, 128) is the value 1 in one, 2 in another" in finding.what  # type: ignore[attr-defined]
    assert finding.where == (f"{tmp_path / 'm/0.png'} and {tmp_path / 'm/1.png'}",)  # type: ignore[attr-defined]
    assert "`128 64 128: NAME`" in finding.fix  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="palettes of masks contradict"):
        resolve(own(tmp_path, "bg,road,car"), tmp_path).checked(
            ["train"], Run(folder=tmp_path / "run", device="cpu", quiet=True)
        )
    by_colour, by_value = tmp_path / "colours.yaml", tmp_path / "values.yaml"
    by_colour.write_text("0 0 0: bg\n128 64 128: road\n200 0 0: car\n")
    by_value.write_text("0: bg\n1: road\n2: car\n")
    assert found(legend=by_colour) == found(legend=by_value) == ()


def test_palettes_of_other_lengths_or_unused_colours_do_not_contradict(tmp_path: Path) -> None:
    painted(tmp_path / "m/0.png", [(0, 0, 0), (128, 0, 0), (0, 0, 0)], [0, 1])
    painted(tmp_path / "m/1.png", [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 0, 0)], [0, 1, 2])
    report = check_data(resolve(own(tmp_path, "bg,road,car"), tmp_path).domain, tmp_path)
    assert report.all_findings == ()
