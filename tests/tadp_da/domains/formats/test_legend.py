"""A first legend of masks is one that the reader of legends takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.domains.formats.legend import draft_legend, read_legend
from tadp_da.domains.formats.masks import read_mask
from tadp_da.errors import DataError, UsageError
from tadp_da.types import LabelSpace

IDS = np.array([[7, 7, 255, 26]], dtype=np.uint8)
COLOURS = np.array([[[128, 64, 128], [0, 0, 142], [128, 64, 128]]], dtype=np.uint8)


def save(values: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path)
    return path.parent


def test_values_are_listed_with_counts_and_edited_names_are_read(tmp_path: Path) -> None:
    save(IDS, tmp_path / "masks/a.png")
    folder = save(np.full((1, 4), 7, dtype=np.uint8), tmp_path / "masks/b.png")
    text = draft_legend(folder)
    assert [line.split("  ")[0] for line in text.splitlines()[1:]] == [
        "7: class-7",
        "26: class-26",
        "255: ignore",
    ]
    assert "75.00% of the pixels, in 2 masks" in text
    (tmp_path / "legend.yaml").write_text(text.replace("class-7", "road").replace("class-26", "car"))
    legend = read_legend(tmp_path / "legend.yaml")
    assert legend.classes == ("road", "car")
    labels = LabelSpace("segmentation", legend.classes)
    assert read_mask(folder / "a.png", labels, mapping=legend.values).tolist() == [[0, 0, 255, 1]]


def test_colours_are_listed_the_commonest_first(tmp_path: Path) -> None:
    folder = save(COLOURS, tmp_path / "masks/a.png")
    (tmp_path / "legend.yaml").write_text(draft_legend(folder))
    legend = read_legend(tmp_path / "legend.yaml")
    assert legend.colours == {(128, 64, 128): 0, (0, 0, 142): 1}
    labels = LabelSpace("segmentation", legend.classes)
    assert read_mask(folder / "a.png", labels, colours=legend.colours).tolist() == [[0, 1, 0]]


def test_masks_that_no_legend_can_describe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no masks"):
        draft_legend(tmp_path)
    save(IDS, tmp_path / "mixed/a.png")
    with pytest.raises(DataError, match="others colours"):
        draft_legend(save(COLOURS, tmp_path / "mixed/b.png"))
    ramp = np.arange(300)
    smooth = np.stack([ramp % 256, ramp // 256, 0 * ramp], axis=1)[None].astype(np.uint8)
    with pytest.raises(DataError, match="more than 256"):
        draft_legend(save(smooth, tmp_path / "smooth/a.png"))


def test_the_command_writes_it_and_overwrites_nothing(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(IDS, tmp_path / "masks/a.png")
    assert command("data", "legend", folder) == 0
    assert "26: class-26" in capsys.readouterr().out
    assert command("data", "legend", folder, "--out", tmp_path / "legend.yaml") == 0
    assert read_legend(tmp_path / "legend.yaml").values == {7: 0, 26: 1, 255: 255}
    assert command("data", "legend", folder, "--out", tmp_path / "legend.yaml") == 2


def test_the_refusal_of_a_value_names_the_options_to_paste(tmp_path: Path) -> None:
    folder = save(np.array([[0, 1, 11]], dtype=np.uint8), tmp_path / "masks/a.png")
    with pytest.raises(DataError) as caught:
        read_mask(folder / "a.png", LabelSpace("segmentation", ("sky", "road", "car")))
    assert "--ignore-index 11" in caught.value.fix
    assert f"tadp-da data legend {folder}" in caught.value.fix
    assert "`11: ignore`" in caught.value.fix


@pytest.mark.parametrize(
    ("line", "says"), [("1:", "no class for 1"), ("1: [car]", "instead of a class for 1")]
)
def test_a_line_without_a_class_is_refused(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "legend.yaml").write_text(f"0: sky\n{line}\n")
    with pytest.raises(UsageError, match=says):
        read_legend(tmp_path / "legend.yaml")


def test_ignore_is_read_as_people_write_it_and_numbers_are_names(tmp_path: Path) -> None:
    (tmp_path / "legend.yaml").write_text("0: sky\n1: Ignore\n2: 7\n")
    legend = read_legend(tmp_path / "legend.yaml")
    assert (legend.classes, legend.values) == (("sky", "7"), {0: 0, 1: 255, 2: 1})
