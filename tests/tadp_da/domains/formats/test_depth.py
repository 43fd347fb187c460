"""Depth maps: files of every form, their unit, and folders of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.custom_dataset import CustomDataset
from tadp_da.datasets import resolve
from tadp_da.domains.formats.depth import holds_depth, read_depth, stored_depths
from tadp_da.errors import DataError, UsageError
from tadp_da.storage.depth_files import write_depth
from tests.tadp_da.domains import trees

METRES = np.array([[0, 0.5, 1.25], [2, 9.999, 60]], np.float32)


@pytest.mark.parametrize(
    ("suffix", "furthest", "off"), [(".npy", 10, 0), (".png", 60, 5e-4), (".png", 80, 2e-3)]
)
def test_what_is_written_is_read_in_metres_whatever_the_unit(
    tmp_path: Path, suffix: str, furthest: float, off: float
) -> None:
    path = tmp_path / f"x{suffix}"
    write_depth(METRES, path, furthest)
    found = read_depth(path, unit=1.0 if suffix == ".png" else None)
    assert found.dtype == np.float32
    assert np.abs(found - METRES).max() <= off
    assert found[0, 0] == 0


def test_files_of_others_have_the_unit_that_is_stated_or_usual(tmp_path: Path) -> None:
    whole = np.array([[0, 2560]], np.uint16)
    Image.fromarray(whole).save(tmp_path / "a.png")
    np.save(tmp_path / "whole.npy", whole)
    np.save(tmp_path / "fraction.npy", whole[None].astype(np.float64) / 1000)
    assert read_depth(tmp_path / "a.png").tolist() == [[0, pytest.approx(2.56)]]
    assert read_depth(tmp_path / "a.png", unit=1 / 256).tolist() == [[0, 10]]
    assert read_depth(tmp_path / "whole.npy").tolist() == [[0, pytest.approx(2.56)]]
    assert read_depth(tmp_path / "fraction.npy").tolist() == [[0, pytest.approx(2.56)]]
    np.save(tmp_path / "holes.npy", np.array([[np.nan, np.inf, 3.0]]))
    with stored_depths.recording() as stored:
        assert read_depth(tmp_path / "holes.npy").tolist() == [[0, 0, 3]]
    assert (stored[0].pixels, stored[0].known, stored[0].quantiles[1]) == (3, 1, 3.0)


def save(path: Path, values: object, mode: str = "") -> Path:
    if path.suffix == ".npy":
        np.save(path, np.asarray(values), allow_pickle=True)
    else:
        image = Image.fromarray(np.asarray(values))
        (image.convert(mode) if mode else image).save(path)
    return path


def test_what_is_no_metric_depth_is_refused_with_advice(tmp_path: Path) -> None:
    eight = save(tmp_path / "8.png", np.full((2, 2), 90, np.uint8))
    colours = save(tmp_path / "c.png", np.zeros((2, 2, 3), np.uint8))
    for path in (eight, colours):
        with pytest.raises(DataError, match="8 bits a channel") as caught:
            read_depth(path)
        assert "16-bit PNG (millimetres), or as NPY (metres)" in caught.value.fix
    with pytest.raises(DataError, match="negative values") as caught:
        read_depth(save(tmp_path / "n.npy", [[-0.5, 1.0]]))
    assert "relative depth has no unit" in caught.value.fix
    for name, values in (("three", np.zeros((2, 2, 3))), ("text", [["a"]]), ("object", [[{}]])):
        with pytest.raises(DataError, match="not an array of depths"):
            read_depth(save(tmp_path / f"{name}.npy", values))
    (tmp_path / "cut.npy").write_bytes(save(tmp_path / "whole.npy", np.ones((9, 9))).read_bytes()[:200])
    with pytest.raises(DataError, match="not an array of depths"):
        read_depth(tmp_path / "cut.npy")
    with pytest.raises(DataError, match="is missing"):
        read_depth(tmp_path / "none.npy")
    image = trees.picture(tmp_path / "i.png", (3, 2))
    with pytest.raises(DataError, match="a depth map is 2x2 pixels, its image 3x2"):
        read_depth(save(tmp_path / "s.npy", np.ones((2, 2))), image=image)


def test_folders_of_depth_are_told_from_folders_of_masks(tmp_path: Path) -> None:
    for name in ("a", "b"):
        trees.picture(tmp_path / f"i/{name}.jpg", (3, 2))
        trees.depth(tmp_path / f"png/{name}.png", METRES)
        trees.depth(tmp_path / f"npy/{name}_depth.npy", METRES)
        trees.mask(tmp_path / f"m/{name}.png", (0, 1), (3, 2))
    assert [holds_depth(tmp_path / name) for name in ("png", "npy", "m", "none")] == [
        True,
        True,
        False,
        False,
    ]
    for folder in ("png", "npy"):
        own = CustomDataset.of(tmp_path / "i", tmp_path / folder, max_depth=20)
        assert own.kinds == ["depth"]
        source = resolve(own, tmp_path)
        labels, label = source.domain.labels, source.domain.label
        assert labels is not None
        assert (labels.task, labels.range) == ("depth", (0.001, 20))
        assert label is not None
        assert np.abs(label(source.images("train").paths[0]) - METRES).max() < 5e-4
    assert CustomDataset.of(tmp_path / "i", tmp_path / "m", classes=("a", "b")).kinds == ["masks"]
    with pytest.raises(UsageError, match="depth has no classes"):
        CustomDataset(name="x", images=tmp_path / "i", depth=tmp_path / "png", classes=("a",))
    with pytest.raises(UsageError, match="and here are masks and depth"):
        CustomDataset(name="x", images=tmp_path / "i", depth=tmp_path / "png", test_masks=tmp_path / "m")
