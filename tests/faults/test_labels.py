"""Labels that cannot be trusted, over a whole data set; the parsers' own tests are in ``tests/tadp_da/domains``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tadp_da.domains.checks.validate import check_data
from tests.tadp_da.domains import trees
from tests.tadp_da.domains.checks.checked import check, four_pictures, only


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return four_pictures(tmp_path)


def test_colours_where_ids_are_expected_are_answered_with_the_option(own: Path) -> None:
    trees.picture(own / "m/0.png")
    finding = only(check(own))
    assert "RGB image, expected one channel" in finding.what
    assert "--legend" in finding.fix
    assert "folder_domain" not in finding.fix


def test_cityscapes_label_ids_are_recognized(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path, kind="labelTrainIds", values=(7, 26, 33))
    report = check_data("cityscapes", tmp_path, partial=True, splits=["train"])
    (error,) = [f for f in report.all_findings if f.level == "error"]
    assert error.count == 2
    assert "labelIds" in error.fix


def test_a_value_that_is_no_class_is_named_with_its_count(own: Path) -> None:
    for number in (1, 3):
        trees.mask(own / f"m/{number}.png", [9] * number + [0])
    finding = only(check(own))
    assert "value 9 in" in finding.what
    assert finding.count == 2
    assert finding.where == (str(own / "m/1.png"), str(own / "m/3.png"))


def test_masks_of_ignored_pixels_only_are_warned_of(own: Path) -> None:
    trees.mask(own / "m/2.png", 255)
    finding = only(check(own), "warning")
    assert "ignored pixels only" in finding.what
    assert finding.where == (str(own / "i/2.png"),)
    assert check(own).lines()[-1] == "ready to use; 1 warnings"


def test_sizes_must_agree(own: Path) -> None:
    trees.mask(own / "m/1.png", size=(20, 15))
    finding = only(check(own))
    assert "a mask is 20x15 pixels, its image 40x30" in finding.what
    assert "nearest-neighbour" in finding.fix


def test_are_listed_with_the_first_offenders(tmp_path: Path) -> None:
    things: dict[str, list[trees.Thing | str]] = {
        "a": [("dog", 1, 1, 1, 1)],
        "b": [("dog", 0, 1, 90, 9)],
        "c": [("owl", 1, 1, 9, 9)],
        "d": [("owls", 1, 1, 9, 9)],
        "e": [("dog", 9, 1, 2, 9)],
        "f": [("dog", 2, 2, 9, 9)],
    }
    trees.voc(tmp_path / "comic", {"test": things})
    for name, told in things.items():
        trees.xml(tmp_path / f"comic/Annotations/{name}.xml", told)
    evil = tmp_path / "comic/Annotations/f.xml"
    evil.write_text('<!DOCTYPE annotation [<!ENTITY a "dog">]>' + evil.read_text())
    report = check_data("comic2k", tmp_path, partial=True)
    kinds = {finding.what: (finding.level, finding.count) for finding in report.all_findings}
    assert not report.ok
    assert kinds.pop("found 6 images, the data set has 1000: results are not comparable with others") == (
        "warning",
        1,
    )
    assert sorted(kinds.values()) == [("error", 1), ("error", 1), ("error", 1), ("error", 2), ("warning", 1)]
    assert any("dummies" in what for what in kinds)
    assert any("clipped" in what for what in kinds)
    assert any("document type" in what for what in kinds)
    assert any("swapped" in what for what in kinds)
