"""Cityscapes and its two nights: what is found where, and which number is which class."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tadp_da.domains import domains
from tadp_da.domains.checks.report import DataFinding
from tadp_da.domains.checks.validate import check_data
from tadp_da.domains.shared.driving import LABEL_IDS, LABELS
from tadp_da.errors import DataError, UsageError
from tests.tadp_da.domains import trees

CAPTION = "a street"


def keys(root: Path, name: str, split: str) -> list[str]:
    images = domains[name].unlabeled(root, split)
    return [images.key(i) for i in range(len(images))]


def target(root: Path, name: str, split: str) -> list[int]:
    images = domains[name].unlabeled(root, split)
    data = domains[name].labeled(root, split, {images.key(i): CAPTION for i in range(len(images))})
    return data[0].target.ravel()[:3].tolist()


def test_cityscapes_is_trained_on_train_and_scored_on_val(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path)
    folder = "cityscapes/leftImg8bit"
    assert keys(tmp_path, "cityscapes", "train") == [
        f"{folder}/train/{city}/{city}_000000_000019_leftImg8bit.png" for city in ("aachen", "bochum")
    ]
    assert keys(tmp_path, "cityscapes", "test") == [
        f"{folder}/val/lindau/lindau_000000_000019_leftImg8bit.png"
    ]
    assert keys(tmp_path, "cityscapes", "server") == [
        f"{folder}/test/berlin/berlin_000000_000019_leftImg8bit.png"
    ]


def test_the_own_folder_serves_as_the_root_too(tmp_path: Path) -> None:
    root = trees.cityscapes(tmp_path) / "cityscapes"
    assert keys(root, "cityscapes", "train")[0].startswith("leftImg8bit/train/aachen/")
    assert target(root, "cityscapes", "train") == [0, 13, 255]


def test_the_server_has_no_labels(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path)
    with pytest.raises(UsageError, match="choose one of: train, test"):
        domains["cityscapes"].labeled(
            tmp_path, "server", dict.fromkeys(keys(tmp_path, "cityscapes", "server"), "")
        )


@pytest.mark.parametrize("split", ["train", "test"])
def test_label_ids_are_renumbered_on_load(tmp_path: Path, split: str) -> None:
    assert target(trees.cityscapes(tmp_path), "cityscapes", split) == [0, 13, 255]


def test_train_ids_are_taken_as_they_are_and_before_label_ids(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path, kind="labelTrainIds", values=(0, 13, 255))
    assert target(tmp_path, "cityscapes", "train") == [0, 13, 255]
    trees.cityscapes(tmp_path, kind="labelIds", values=(11, 11, 11))
    assert target(tmp_path, "cityscapes", "train") == [0, 13, 255]


#: As Cityscapes' own table of labels has them.
LABEL_ID_OF = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip


def test_the_19_trained_ids_are_the_classes_and_all_others_are_ignored() -> None:
    assert set(LABEL_IDS) == set(range(34))
    trained = {label: train for label, train in LABEL_IDS.items() if train != LABELS.ignore}
    assert {LABELS.classes[train]: label for label, train in trained.items()} == LABEL_ID_OF
    assert LABELS.classes == tuple(LABEL_ID_OF)


def test_label_ids_under_the_name_of_train_ids_are_refused(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path, kind="labelTrainIds", values=(7, 26, 33))
    with pytest.raises(DataError, match="value 26 in") as caught:
        target(tmp_path, "cityscapes", "train")
    assert "Cityscapes labelIds: name the file *_labelIds.png" in caught.value.fix
    assert str(caught.value.where).endswith("_gtFine_labelTrainIds.png")


def test_train_ids_under_the_name_of_label_ids_are_refused(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path, kind="labelIds", values=(0, 13, 255))
    with pytest.raises(DataError, match="looks like train ids") as caught:
        target(tmp_path, "cityscapes", "train")
    assert "rename it to aachen_000000_000019_gtFine_labelTrainIds.png" in caught.value.fix


def misnamed(root: Path, split: str = "train") -> list[DataFinding]:
    report = check_data("cityscapes", root, splits=[split], partial=True)
    return [f for f in report.all_findings if f.level == "error"]


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        ("labelIds", (0, 13, 10), "train ids"),  # would be ignored, wall and ignored
        ("labelTrainIds", (7, 11, 8), "label ids"),  # would be sign, person and vegetation
    ],
)
def test_ids_of_the_other_numbering_are_told_by_the_histogram_of_the_split(
    tmp_path: Path, kind: str, values: tuple[int, ...], told: str
) -> None:
    trees.cityscapes(tmp_path, kind=kind, values=values)
    assert target(tmp_path, "cityscapes", "train")  # no file gives itself away
    (error,) = misnamed(tmp_path)
    assert f"named *_{kind}.png hold {told}" in error.what
    assert error.count == 2
    assert error.where[0].endswith(f"aachen_000000_000019_gtFine_{kind}.png")
    other = {"labelIds": "labelTrainIds", "labelTrainIds": "labelIds"}[kind]
    assert f"rename all of them to *_{other}.png" in error.fix


def test_files_that_give_nothing_away_are_told_by_those_that_do(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path, kind="labelIds", values=(0, 13, 10))
    decisive = tmp_path / "cityscapes/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    trees.mask(decisive, (0, 13, 255))
    refused, silent = misnamed(tmp_path)
    assert "it looks like train ids" in refused.what
    assert refused.where == (str(decisive),)
    assert silent.count == 1
    assert silent.where[0].endswith("bochum_000000_000019_gtFine_labelIds.png")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("labelIds", (7, 8, 11)),  # a street without cars and sky
        ("labelIds", (0, 26)),  # mostly unlabelled
        ("labelTrainIds", (0, 1, 2)),  # nothing ignored
        ("labelTrainIds", (7, 255)),  # a large sign
        ("labelTrainIds", (2, 8)),  # nothing to go by
        ("labelIds", (11, 11)),
    ],
)
def test_ids_that_agree_with_their_names_or_say_nothing_are_left_alone(
    tmp_path: Path, kind: str, values: tuple[int, ...]
) -> None:
    trees.cityscapes(tmp_path, kind=kind, values=values)
    assert misnamed(tmp_path) == []


def test_a_label_id_that_does_not_exist_is_told_as_such(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path, kind="labelIds", values=(7, 77))
    with pytest.raises(DataError, match="value 77 in 1 pixels"):
        target(tmp_path, "cityscapes", "train")


def test_a_frame_without_labels_is_refused(tmp_path: Path) -> None:
    shutil.rmtree(trees.cityscapes(tmp_path) / "cityscapes/gtFine")
    with pytest.raises(DataError, match="a mask is missing"):
        target(tmp_path, "cityscapes", "train")


def test_of_dark_zurich_the_night_is_learned_and_val_scored(tmp_path: Path) -> None:
    trees.dark_zurich(tmp_path)
    assert keys(tmp_path, "dark-zurich", "unlabeled") == [
        "dark_zurich/rgb_anon/train/night/GOPR0351/GOPR0351_frame_000159_rgb_anon.png"
    ]
    assert len(keys(tmp_path, "dark-zurich", "test")) == 2
    assert target(tmp_path, "dark-zurich", "test") == [0, 13, 255]


def test_a_target_needs_no_labels_of_its_training_images(tmp_path: Path) -> None:
    trees.dark_zurich(tmp_path)
    assert not (tmp_path / "dark_zurich/gt/train").exists()
    images = domains["dark-zurich"].unlabeled(tmp_path)
    assert images[0].size == (40, 30)
    with pytest.raises(UsageError, match="choose one of: test"):
        domains["dark-zurich"].labeled(tmp_path, "unlabeled", {images.key(0): CAPTION})


@pytest.mark.parametrize("place", ["NighttimeDrivingTest", "NighttimeDrivingTest/NighttimeDrivingTest"])
def test_nighttime_driving_is_learned_from_dark_zurich(tmp_path: Path, place: str) -> None:
    trees.nighttime_driving(trees.dark_zurich(tmp_path), place)
    assert keys(tmp_path, "nighttime-driving", "test") == [
        f"{place}/leftImg8bit/test/night/0_frame_1824_leftImg8bit.png"
    ]
    assert keys(tmp_path, "nighttime-driving", "unlabeled") == keys(tmp_path, "dark-zurich", "unlabeled")
    assert target(tmp_path, "nighttime-driving", "test") == [0, 18, 255]


@pytest.mark.parametrize("name", ["cityscapes", "dark-zurich", "nighttime-driving"])
def test_no_data_says_where_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no images") as caught:
        domains[name].unlabeled(tmp_path, "test")
    assert "http" in caught.value.fix
    assert "ROOT as the root" in caught.value.fix
