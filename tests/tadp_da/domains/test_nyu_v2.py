"""NYUv2 on a tree of the true form, drawn here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tadp_da.domains import domains
from tadp_da.domains.checks.validate import check_data
from tadp_da.errors import DataError
from tests.tadp_da.domains import trees

NYU = domains["nyu-v2"]


def keys(root: Path, split: str) -> list[str]:
    images = NYU.unlabeled(root, split)
    return [images.key(i) for i in range(len(images))]


def test_training_pairs_and_official_test_images_are_read_in_metres(tmp_path: Path) -> None:
    trees.nyu(tmp_path)
    train, test = keys(tmp_path, "train"), keys(tmp_path, "test")
    assert train == keys(tmp_path, "unlabeled")
    assert train[0] == "nyu_depth_v2/sync/bathroom_0001/rgb_00045.jpg"
    assert (len(train), len(test)) == (4, 2)
    assert not set(train) & set(test)
    data = NYU.labeled(tmp_path, "test", dict.fromkeys(test, "a room"))
    assert data.labels.range == (0.001, 10.0)
    depth = data[0].target
    assert (depth.shape, depth.dtype) == ((480, 640), np.float32)
    assert 0.5 < np.median(depth[depth > 0]) < 5
    assert (depth == 0).any()
    assert not NYU.has_labels("unlabeled")


def test_the_list_of_training_images_decides_where_there_is_one(tmp_path: Path) -> None:
    trees.nyu(tmp_path)
    file = tmp_path / "nyu_depth_v2/train_list.txt"
    file.write_text("/bathroom_0001/rgb_00045.jpg /bathroom_0001/sync_depth_00045.png 518.8579\n\n")
    assert keys(tmp_path, "train") == ["nyu_depth_v2/sync/bathroom_0001/rgb_00045.jpg"]
    assert len(keys(tmp_path, "test")) == 2
    file.write_text("kitchen/rgb_1.jpg kitchen/sync_depth_1.png 518.8579\n")
    with pytest.raises(DataError, match="1 of 1 listed images are missing: kitchen/rgb_1"):
        keys(tmp_path, "train")


def test_the_check_counts_and_names_what_lacks(tmp_path: Path) -> None:
    trees.nyu(tmp_path)
    report = check_data(NYU, tmp_path, partial=True, splits=("train", "test"))
    assert report.ok
    assert [f.what for f in report.all_findings] == [
        f"found {found} images, the data set has {all_}: results are not comparable with others"
        for found, all_ in ((4, 24231), (2, 654))
    ]
    assert any("count as unknown" in line for line in report.lines())
    (tmp_path / "nyu_depth_v2/sync/bathroom_0001/sync_depth_00045.png").unlink()
    report = check_data(NYU, tmp_path, partial=True, splits=("train",))
    assert not report.ok
    assert any("a depth map is missing" in f.what for f in report.all_findings)
