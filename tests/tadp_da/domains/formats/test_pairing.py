"""Labels whose names are those of their images with another ending or in another form."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path

import pytest

from tadp_da.domains.checks.validate import check_data
from tadp_da.domains.formats.pairing import find_swaps
from tadp_da.errors import DataError
from tests.tadp_da.domains import trees
from tests.tadp_da.domains.checks.checked import mine


def pairs(root: Path, names: dict[str, str]) -> list[tuple[str, str]]:
    """Draws images and masks of these names; which mask each image gets."""
    for image, mask in names.items():
        trees.picture(root / "i" / image)
        trees.mask(root / "m" / mask, (0, 1))
    domain = mine(root)
    assert domain.label is not None
    report = check_data(domain, root)
    assert report.ok, report.lines()
    assert all(domain.label(path).max() == 1 for path in domain.unlabeled(root, "train").paths)
    return [(f.level, f.what) for f in report.all_findings]


@pytest.mark.parametrize(
    "names",
    [
        {"0.jpg": "0_mask.png"},
        {"a/0.jpg": "a/0_mask.png", "b/1.jpg": "b/1_mask.png"},
        {"c/a_000000_leftImg8bit.png": "c/a_000000_gtFine_labelTrainIds.png"},
        {"img_1.jpg": "mask_1.png", "img_2.jpg": "mask_2.png"},
        {"0001_006690.png": "0001_006690_L.png", "0001_006720.png": "0001_006720_L.png"},
    ],
)
def test_masks_of_another_ending_or_beginning_are_paired_and_it_is_said(
    tmp_path: Path, names: dict[str, str]
) -> None:
    ((level, what),) = pairs(tmp_path, names)
    image, mask = next(iter(names.items()))
    assert level == "note"
    assert what == f"images are paired with masks of other names ({Path(image).name} with {Path(mask).name})"


def test_names_in_two_forms_of_unicode_are_one_name(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    assert pairs(tmp_path, {f"{composed}.jpg": f"{apart}.png", f"x/{apart}.jpg": f"x/{composed}.png"}) == []


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["1"], ["10"]),
        (["cat"], ["cats"]),
        (["img_1"], ["img_2"]),
        (["night_cat"], ["night_dog"]),
        (["a/0"], ["b/0_mask"]),
        (["0", "1", "2"], ["7_mask", "8_mask"]),
    ],
)
def test_names_of_other_images_are_not_paired(images: list[str], labels: list[str]) -> None:
    assert find_swaps(images, labels) == []


def test_images_without_a_mask_are_told_with_the_names_that_are_there(tmp_path: Path) -> None:
    for name in ("0", "1", "2"):
        trees.picture(tmp_path / f"i/{name}.jpg")
    for name in ("0_mask", "1_mask", "x"):
        trees.mask(tmp_path / f"m/{name}.png")
    with pytest.raises(DataError, match="1 of 3 images have no mask: 2; there are masks without image: x"):
        mine(tmp_path).unlabeled(tmp_path, "train")


def test_several_masks_of_each_image_are_refused(tmp_path: Path) -> None:
    for city in ("a", "b"):
        trees.picture(tmp_path / f"i/{city}_leftImg8bit.png")
        for kind in ("color", "labelIds"):
            trees.mask(tmp_path / f"m/{city}_gtFine_{kind}.png")
    with pytest.raises(DataError, match="several masks fit each image") as caught:
        mine(tmp_path).unlabeled(tmp_path, "train")
    assert "a_gtFine_color and a_gtFine_labelIds" in caught.value.what
    assert str(caught.value.where) == str(tmp_path / "m")
    assert "one mask per image" in caught.value.fix


def test_many_names_that_do_not_pair_are_told_quickly() -> None:
    started = time.process_time()
    assert find_swaps([f"{i}_x" for i in range(3000)], {f"{i}_y" for i in range(3000, 6000)}) == []
    assert time.process_time() - started < 2
