"""``data check``: what is wrong with a whole data set, the first offenders, the mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tadp_da.domains import domains
from tadp_da.domains.checks.validate import check_data
from tadp_da.domains.formats.box_folder import box_folder_domain
from tests.tadp_da.domains import trees
from tests.tadp_da.domains.checks.checked import check, command, four_pictures, only


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return four_pictures(tmp_path)


def test_a_sound_set_is_counted_and_good_to_use(own: Path) -> None:
    report = check(own)
    assert report.ok
    assert report.all_findings == ()
    (split,) = report.splits
    assert (split.images, split.expected, dict(split.sizes)) == (4, None, {"40x30": 4})
    assert split.labels == {"sky": 8, "road": 4 * (40 * 30 - 3)}
    assert split.holding == {"sky": 4, "road": 4}
    assert split.ignored == 4
    assert report.lines()[-1] == "ready to use"
    assert json.loads(json.dumps(report.as_json()))["splits"][0]["labels"] == dict(split.labels)


def test_boxes_are_counted_by_class(tmp_path: Path) -> None:
    for name, things in (
        ("1", [("dog", 1, 1, 9, 9), ("cat", 1, 1, 9, 9)]),
        ("2", []),
        ("3", [("dog", 1, 1, 9, 9)]),
    ):
        trees.picture(tmp_path / f"i/{name}.jpg")
        trees.xml(tmp_path / f"x/{name}.xml", things, difficult=int(name == "3"))
    report = check_data(
        box_folder_domain("mine", images=tmp_path / "i", annotations=tmp_path / "x", classes=("cat", "dog")),
        tmp_path,
    )
    (split,) = report.splits
    assert report.ok
    assert split.labels == {"cat": 1, "dog": 2}
    assert split.holding == {"cat": 1, "dog": 2}
    assert (split.ignored, split.empty) == (1, 1)
    assert "  1 objects are difficult; 1 images have no object" in report.lines()


def test_pictures_that_come_twice_are_warned_of(own: Path) -> None:
    (own / "i/0.png").write_bytes((own / "i/1.png").read_bytes())
    assert "1 images of 'train' occur several times" in only(check(own), "warning").what


def test_a_part_is_an_error_unless_it_is_said_to_do(tmp_path: Path) -> None:
    trees.dark_zurich(tmp_path)
    report = check_data("dark-zurich", tmp_path, splits=["test"])
    finding = only(report)
    assert "found 2 images, the data set has 50" in finding.what
    assert "--partial" in finding.fix
    only(check_data("dark-zurich", tmp_path, splits=["test"], partial=True), "warning")


def test_labels_of_unlabelled_splits_are_not_looked_for(tmp_path: Path) -> None:
    trees.voc(tmp_path / "watercolor", {"extra": ["1"]}, things=[("dog", 1, 1, 1, 1)])
    report = check_data("watercolor2k", tmp_path)
    assert [split.name for split in report.splits] == ["extra"]
    assert report.ok


# -- the front door


def test_every_known_data_set_is_listed_and_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("data", "list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in domains)
    assert command("data", "list", "comic2k") == 0
    assert domains["comic2k"].fetch in capsys.readouterr().out


def test_the_check_prints_and_leaves_with_3_when_something_is_wrong(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "check", own / "i", own / "m", "--classes", "sky,road"]
    assert command(*words) == 0
    assert "ready to use" in capsys.readouterr().out
    (own / "i/0.png").write_bytes(b"")
    assert command(*words, "--json") == 3
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert report["splits"][0]["findings"][0]["where"] == [str(own / "i/0.png")]
    assert command("data", "check", own / "i") == 3
    assert "re-encode or remove" in capsys.readouterr().out
