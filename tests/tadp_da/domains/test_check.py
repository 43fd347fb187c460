"""``data check``: what is wrong with a whole data set, the first offenders, the mend."""

from __future__ import annotations

import json
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da import cli
from tadp_da.domains import domains
from tadp_da.domains.check import CheckReport, Finding, check_data
from tadp_da.domains.folder import folder_domain
from tadp_da.domains.voc_folder import voc_domain
from tadp_da.errors import DataError, UsageError
from tadp_da.types import open_image
from tests.tadp_da.domains import trees

CLASSES = ("sky", "road")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Four pictures with masks of both classes."""
    for number in range(4):
        trees.picture(tmp_path / f"i/{number}.png")
        trees.mask(tmp_path / f"m/{number}.png", (1, 0, 0, 255))
    return tmp_path


def check(root: Path) -> CheckReport:
    return check_data(folder_domain("mine", images=root / "i", masks=root / "m", classes=CLASSES), root)


def only(report: CheckReport, level: str = "error") -> Finding:
    """The one finding of the report."""
    (finding,) = report.all_findings
    assert finding.level == level
    assert report.ok == (level == "warning")
    assert any(finding.what in line for line in report.lines())
    assert any(finding.fix in line for line in report.lines())
    return finding


def huge(path: Path, width: int, height: int) -> Path:
    """A PNG whose header promises what no machine should unpack."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return path


def test_a_sound_set_is_counted_and_good_to_use(own: Path) -> None:
    report = check(own)
    assert report.ok
    assert report.all_findings == ()
    (split,) = report.splits
    assert (split.images, split.expected, dict(split.sizes)) == (4, None, {"40x30": 4})
    assert split.labels == {"sky": 8, "road": 4 * (40 * 30 - 3)}
    assert split.holding == {"sky": 4, "road": 4}
    assert split.ignored == 4
    assert report.lines()[-1] == "good to use"
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
        voc_domain("mine", images=tmp_path / "i", annotations=tmp_path / "x", classes=("cat", "dog")),
        tmp_path,
    )
    (split,) = report.splits
    assert report.ok
    assert split.labels == {"cat": 1, "dog": 2}
    assert split.holding == {"cat": 1, "dog": 2}
    assert (split.ignored, split.empty) == (1, 1)
    assert "  1 objects are difficult; 1 images have no object" in report.lines()


def test_fault_01_a_truncated_jpeg_is_listed_and_the_rest_looked_at(own: Path) -> None:
    (own / "i/0.png").unlink()
    whole = trees.picture(own / "i/0.jpg", (400, 300))
    whole.write_bytes(whole.read_bytes()[:-4000])
    finding = only(check(own))
    assert "cannot decode an image" in finding.what
    assert finding.where == (str(whole),)
    assert "re-encode or remove" in finding.fix
    assert check(own).splits[0].sizes == {"40x30": 3}


@pytest.mark.parametrize("content", [b"", b"I am a text"])
def test_fault_02_what_is_no_picture_is_listed(own: Path, content: bytes) -> None:
    (own / "i/2.png").write_bytes(content)
    assert only(check(own)).where == (str(own / "i/2.png"),)


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])
def test_faults_03_and_04_a_header_that_promises_too_much_is_refused_before_decoding(
    own: Path, side: int
) -> None:
    huge(own / "i/1.png", side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finding = only(check(own))
    assert "too large to open" in finding.what
    assert "limit" in finding.what
    assert "TADP_MAX_PIXELS" in finding.fix


def test_fault_03_the_limit_can_be_set_and_must_make_sense(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TADP_MAX_PIXELS", "1199")
    with pytest.raises(DataError, match="40x30 pixels, the limit is 1199"):
        open_image(own / "i/0.png")
    monkeypatch.setenv("TADP_MAX_PIXELS", "1200")
    assert open_image(own / "i/0.png").size == (40, 30)
    for text in ("0", "-1", "many", ""):
        monkeypatch.setenv("TADP_MAX_PIXELS", text)
        with pytest.raises(UsageError, match="TADP_MAX_PIXELS") as caught:
            open_image(own / "i/0.png")
        assert "positive whole number" in caught.value.fix


def test_fault_06_sixteen_bit_pictures_are_refused(own: Path) -> None:
    Image.fromarray(np.full((30, 40), 40_000, dtype=np.uint16)).save(own / "i/3.png")
    finding = only(check(own))
    assert "more than 8 bits a channel" in finding.what
    assert "-depth 8" in finding.fix


def test_fault_07_other_modes_are_told_once_and_read_as_rgb(own: Path) -> None:
    for number, mode in enumerate(("RGBA", "L", "P")):
        trees.picture(own / f"i/{number}.png", mode=mode)
    (own / "i/3.png").unlink()
    trees.picture(own / "i/3.jpg", mode="CMYK")
    report = check(own)
    assert report.ok
    assert dict(report.splits[0].modes) == {"RGBA": 1, "L": 1, "P": 1, "CMYK": 1}
    assert sum("RGBA (1)" in line for line in report.lines()) == 1


def test_fault_08_colours_where_ids_are_expected_are_answered_with_the_option(own: Path) -> None:
    trees.picture(own / "m/0.png")
    finding = only(check(own))
    assert "RGB picture, expected one channel" in finding.what
    assert "folder_domain(colours=" in finding.fix


def test_fault_10_cityscapes_label_ids_are_recognized(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path, kind="labelTrainIds", values=(7, 26, 33))
    report = check_data("cityscapes", tmp_path, partial=True, splits=["train"])
    (error,) = [f for f in report.all_findings if f.level == "error"]
    assert error.count == 2
    assert "labelIds" in error.fix


def test_fault_11_a_value_that_is_no_class_is_named_with_its_count(own: Path) -> None:
    for number in (1, 3):
        trees.mask(own / f"m/{number}.png", [9] * number + [0])
    finding = only(check(own))
    assert "value 9 in" in finding.what
    assert finding.count == 2
    assert finding.where == (str(own / "m/1.png"), str(own / "m/3.png"))


def test_fault_12_masks_of_ignored_pixels_only_are_warned_of(own: Path) -> None:
    trees.mask(own / "m/2.png", 255)
    finding = only(check(own), "warning")
    assert "ignored pixels only" in finding.what
    assert finding.where == (str(own / "i/2.png"),)
    assert check(own).lines()[-1] == "good to use; 1 warnings"


def test_fault_13_sizes_must_agree(own: Path) -> None:
    trees.mask(own / "m/1.png", size=(20, 15))
    finding = only(check(own))
    assert "a mask is 20x15 pixels, its image 40x30" in finding.what
    assert "nearest-neighbour" in finding.fix


def test_fault_14_unpaired_and_double_names_are_listed(own: Path) -> None:
    trees.picture(own / "i/9.PNG")
    assert "1 of 5 images have no mask: 9" in only(check(own)).what
    trees.picture(own / "i/9.jpg")
    assert "stand for several files, e.g. 9.PNG and 9.jpg" in only(check(own)).what


def test_fault_17_test_pictures_among_the_others_are_found_by_content(tmp_path: Path) -> None:
    for split, names in (("new", "abc"), ("test", "de")):
        for name in names:
            trees.picture(tmp_path / split / f"{name}.png")
    (tmp_path / "new/z.png").write_bytes((tmp_path / "test/e.png").read_bytes())
    domain = folder_domain("mine", images={"unlabeled": tmp_path / "new", "test": tmp_path / "test"})
    finding = only(check_data(domain, tmp_path))
    assert "1 test pictures are also in 'unlabeled'" in finding.what
    assert finding.where == (f"{tmp_path / 'test/e.png'} = {tmp_path / 'new/z.png'}",)


def test_pictures_that_come_twice_are_warned_of(own: Path) -> None:
    (own / "i/0.png").write_bytes((own / "i/1.png").read_bytes())
    assert "1 pictures of 'train' come several times" in only(check(own), "warning").what


def test_fault_18_an_empty_set_says_where_the_data_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images of 'cityscapes' in any split") as caught:
        check_data("cityscapes", tmp_path)
    assert "https://www.cityscapes-dataset.com" in caught.value.fix
    trees.dark_zurich(tmp_path)
    assert {split.name for split in check_data("dark-zurich", tmp_path).splits} == {"unlabeled", "test"}
    named = check_data("dark-zurich", tmp_path, splits=["server"])
    assert "no images in split 'server'" in only(named).what


def test_faults_19_to_25_are_listed_with_the_first_offenders(tmp_path: Path) -> None:
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
    assert kinds.pop("found 6 images, the data set has 1000: numbers cannot be compared with others") == (
        "warning",
        1,
    )
    assert sorted(kinds.values()) == [("error", 1), ("error", 1), ("error", 1), ("error", 2), ("warning", 1)]
    assert any("dummies" in what for what in kinds)
    assert any("clipped" in what for what in kinds)
    assert any("document type" in what for what in kinds)
    assert any("swapped" in what for what in kinds)


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


def command(*words: object) -> int:
    old, sys.argv = sys.argv, ["tadp-da", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.argv = old
    return int(left.value.code or 0)


def test_every_known_data_set_is_listed_and_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("data", "list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in domains)
    assert command("data", "list", "comic2k") == 0
    assert domains["comic2k"].fetch in capsys.readouterr().out


def test_the_check_prints_and_leaves_with_3_when_something_is_wrong(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "check", "masks", own / "i", "--labels", own / "m", "--classes", "sky,road"]
    assert command(*words) == 0
    assert "good to use" in capsys.readouterr().out
    (own / "i/0.png").write_bytes(b"")
    assert command(*words, "--json") == 3
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert report["splits"][0]["findings"][0]["where"] == [str(own / "i/0.png")]
    assert command("data", "check", "images", own / "i") == 3
    assert "re-encode or remove" in capsys.readouterr().out


def test_own_labels_that_are_not_given_are_asked_for(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("data", "check", "coco", own / "i") == 2
    assert "--labels PATH" in capsys.readouterr().err
