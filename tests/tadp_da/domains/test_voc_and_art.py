"""VOC and the three drawn sets: lists, folders, splits; and VOC's masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tadp_da.domains import domains
from tadp_da.domains.cross_domain_art import SIX
from tadp_da.errors import DataError, UsageError
from tadp_da.storage.listing import remarks
from tests.tadp_da.domains import trees

DRAWN = {"watercolor2k": "watercolor", "comic2k": "comic", "clipart1k": "clipart"}


def stems(root: Path, name: str, split: str) -> list[str]:
    return [path.stem for path in domains[name].unlabeled(root, split).paths]


def first(root: Path, name: str, split: str) -> Any:
    images = domains[name].unlabeled(root, split)
    return domains[name].labeled(root, split, {images.key(i): "x" for i in range(len(images))})[0].target


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    trees.voc(tmp_path / "VOCdevkit/VOC2007", {"trainval": ["000005", "000007"], "test": ["000001"]})
    trees.voc(tmp_path / "VOCdevkit/VOC2012", {"trainval": ["2008_000002"]})
    return tmp_path


def test_detection_trains_on_both_years_and_is_scored_on_the_test_list_of_2007(kit: Path) -> None:
    assert stems(kit, "voc-detection", "train") == ["000005", "000007", "2008_000002"]
    assert stems(kit, "voc-detection", "test") == ["000001"]
    assert first(kit, "voc-detection", "train").labels.tolist() == [11]


def test_as_torchvision_nests_it(kit: Path) -> None:
    (kit / "VOCdevkit/VOC2012/VOCdevkit").mkdir()
    for part in ("JPEGImages", "Annotations", "ImageSets"):
        inside = kit / "VOCdevkit/VOC2012/VOCdevkit/VOC2012" / part
        inside.parent.mkdir(exist_ok=True)
        (kit / "VOCdevkit/VOC2012" / part).rename(inside)
    assert stems(kit, "voc-detection", "train") == ["000005", "000007", "2008_000002"]


def test_one_year_alone_is_refused(tmp_path: Path) -> None:
    trees.voc(tmp_path / "VOCdevkit/VOC2007", {"trainval": ["000005"]})
    with pytest.raises(DataError, match="VOC2012 is missing") as caught:
        domains["voc-detection"].unlabeled(tmp_path, "train")
    assert "VOCtrainval_11-May-2012.tar" in caught.value.fix


def test_a_listed_image_that_is_missing_or_listed_twice_is_refused(kit: Path) -> None:
    (kit / "VOCdevkit/VOC2007/JPEGImages/000007.jpg").unlink()
    with pytest.raises(DataError, match="1 of 2 listed images are missing: 000007") as caught:
        stems(kit, "voc-detection", "train")
    assert "unpack the data set again" in caught.value.fix
    (kit / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").write_text("000001\n000001  1\n")
    with pytest.raises(DataError, match="listed twice: 000001"):
        stems(kit, "voc-detection", "test")


def test_images_outside_the_lists_are_told(kit: Path) -> None:
    extra = kit / "VOCdevkit/VOC2007/JPEGImages/zz.jpg"
    trees.picture(extra)
    with remarks.recording() as recorded:
        stems(kit, "voc-detection", "test")
    (remark,) = recorded
    assert (remark.what, remark.path) == ("images that no list of ImageSets names are left out", extra)


def test_palette_masks_of_voc_keep_their_indices_and_their_border(tmp_path: Path) -> None:
    folder = tmp_path / "VOCdevkit/VOC2012"
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    for name, number in (("train", "2007_000032"), ("val", "2007_000033")):
        (folder / f"ImageSets/Segmentation/{name}.txt").write_text(f"{number}\n")
        trees.picture(folder / f"JPEGImages/{number}.jpg")
        trees.mask(folder / f"SegmentationClass/{number}.png", (0, 7, 20, 255), palette=True)
    assert stems(tmp_path, "voc-segmentation", "train") == ["2007_000032"]
    assert stems(tmp_path, "voc-segmentation", "test") == ["2007_000033"]
    assert first(tmp_path, "voc-segmentation", "test").ravel()[:4].tolist() == [0, 7, 20, 255]
    classes = domains["voc-segmentation"].labels.classes  # type: ignore[union-attr]
    assert (classes[0], classes[7], classes[20]) == ("background", "car", "tvmonitor")


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("place", ["cross-domain-detection/datasets/{}", "{}"])
def test_drawn_sets_are_learned_from_train_and_scored_on_test(tmp_path: Path, name: str, place: str) -> None:
    trees.voc(tmp_path / place.format(DRAWN[name]), {"train": ["7", "3"], "test": ["5"]})
    assert stems(tmp_path, name, "unlabeled") == stems(tmp_path, name, "train") == ["7", "3"]
    assert stems(tmp_path, name, "test") == ["5"]
    boxes = first(tmp_path, name, "test")
    classes = domains[name].labels.classes  # type: ignore[union-attr]
    assert [classes[i] for i in boxes.labels] == ["dog"]
    assert classes == SIX or len(classes) == 20


def test_the_extra_split_is_images_only(tmp_path: Path) -> None:
    folder = tmp_path / "watercolor"
    trees.voc(folder, {"train": ["1"], "test": ["2"], "extra": ["9"]}, things=[("dog", 1, 1, 1, 1)])
    images = domains["watercolor2k"].unlabeled(tmp_path, "extra")
    assert len(images) == 1
    with pytest.raises(
        UsageError, match=r"'extra' of 'watercolor2k' has no labels(.|\n)*choose one of: train, test"
    ):
        domains["watercolor2k"].labeled(tmp_path, "extra", {images.key(0): "x"})
    with pytest.raises(DataError, match="dummies") as caught:
        first(tmp_path, "watercolor2k", "train")
    assert "do not train or test boxes" in caught.value.fix


def test_a_picture_whose_published_boxes_belong_to_another_is_not_trained_on(tmp_path: Path) -> None:
    trees.voc(tmp_path / "clipart", {"train": ["681633840", "2"], "test": ["3"]})
    assert stems(tmp_path, "clipart1k", "unlabeled") == ["681633840", "2"]
    assert stems(tmp_path, "clipart1k", "train") == ["2"]


@pytest.mark.parametrize("name", ["voc-detection", "voc-segmentation", *DRAWN])
def test_no_data_says_where_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no images") as caught:
        domains[name].unlabeled(tmp_path, "train")
    assert "http" in caught.value.fix
    assert "ROOT as the root" in caught.value.fix


def test_colours_of_voc_are_those_of_its_bit_rule() -> None:
    """The kit spreads the bits of a class id over the three channels, highest first."""

    def colour(number: int) -> tuple[int, ...]:
        return tuple(
            int(sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)))
            for channel in range(3)
        )

    palette = domains["voc-segmentation"].labels.palette  # type: ignore[union-attr]
    assert palette == tuple(colour(i) for i in range(21))
    assert np.shape(palette) == (21, 3)
