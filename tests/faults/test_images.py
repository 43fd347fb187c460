"""Pictures that are broken, huge, odd, missing or known: what the check and a run say, and going on without."""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.captions.files import CaptionEntry, CaptionFile
from tadp_da.domains.checks.preflight import preflight
from tadp_da.domains.checks.validate import check_data
from tadp_da.domains.formats.folder import folder_domain
from tadp_da.errors import DataError, UsageError
from tadp_da.images import open_image
from tadp_da.run import Run
from tests.tadp_da.domains import trees
from tests.tadp_da.domains.checks.checked import check, command, four_pictures, mine, only


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return four_pictures(tmp_path)


def huge(path: Path, width: int, height: int) -> Path:
    """A PNG whose header promises what no machine should unpack."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return path


def test_a_truncated_jpeg_is_listed_and_the_rest_looked_at(own: Path) -> None:
    (own / "i/0.png").unlink()
    whole = trees.picture(own / "i/0.jpg", (400, 300))
    whole.write_bytes(whole.read_bytes()[:-4000])
    finding = only(check(own))
    assert "cannot decode an image" in finding.what
    assert finding.where == (str(whole),)
    assert "re-encode or remove" in finding.fix
    assert check(own).splits[0].sizes == {"40x30": 3}


@pytest.mark.parametrize("content", [b"", b"I am a text"])
def test_what_is_no_picture_is_listed(own: Path, content: bytes) -> None:
    (own / "i/2.png").write_bytes(content)
    assert only(check(own)).where == (str(own / "i/2.png"),)


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])
def test_a_header_that_promises_too_much_is_refused_before_decoding(own: Path, side: int) -> None:
    huge(own / "i/1.png", side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finding = only(check(own))
    assert "too large to open" in finding.what
    assert "limit" in finding.what
    assert "TADP_MAX_PIXELS" in finding.fix


def test_the_limit_can_be_set_and_must_make_sense(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_sixteen_bit_pictures_are_refused(own: Path) -> None:
    Image.fromarray(np.full((30, 40), 40_000, dtype=np.uint16)).save(own / "i/3.png")
    finding = only(check(own))
    assert "more than 8 bits a channel" in finding.what
    assert "-depth 8" in finding.fix


def test_other_modes_are_told_once_and_read_as_rgb(own: Path) -> None:
    for number, mode in enumerate(("RGBA", "L", "P")):
        trees.picture(own / f"i/{number}.png", mode=mode)
    (own / "i/3.png").unlink()
    trees.picture(own / "i/3.jpg", mode="CMYK")
    report = check(own)
    assert report.ok
    assert dict(report.splits[0].modes) == {"RGBA": 1, "L": 1, "P": 1, "CMYK": 1}
    assert sum("RGBA (1)" in line for line in report.lines()) == 1


def test_unpaired_and_double_names_are_listed(own: Path) -> None:
    trees.picture(own / "i/9.PNG")
    assert "1 of 5 images have no mask: 9" in only(check(own)).what
    trees.picture(own / "i/9.jpg")
    assert "are shared by several files, e.g. 9.PNG and 9.jpg" in only(check(own)).what


def test_test_pictures_among_the_others_are_found_by_content(tmp_path: Path) -> None:
    for split, names in (("new", "abc"), ("test", "de")):
        for name in names:
            trees.picture(tmp_path / split / f"{name}.png")
    (tmp_path / "new/z.png").write_bytes((tmp_path / "test/e.png").read_bytes())
    domain = folder_domain("mine", images={"unlabeled": tmp_path / "new", "test": tmp_path / "test"})
    finding = only(check_data(domain, tmp_path))
    assert "1 test images are also in 'unlabeled'" in finding.what
    assert finding.where == (f"{tmp_path / 'test/e.png'} = {tmp_path / 'new/z.png'}",)


def test_an_empty_set_says_where_the_data_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images of 'cityscapes' in any split") as caught:
        check_data("cityscapes", tmp_path)
    assert "https://www.cityscapes-dataset.com" in caught.value.fix
    trees.dark_zurich(tmp_path)
    assert {split.name for split in check_data("dark-zurich", tmp_path).splits} == {"unlabeled", "test"}
    named = check_data("dark-zurich", tmp_path, splits=["server"])
    assert "no images in split 'server'" in only(named).what


def a_run(root: Path, **settings: bool) -> Run:
    return Run(folder=root / "run", device="cpu", quiet=True, **settings)


def spoiled(root: Path) -> Path:
    """Of four pictures one cut off and one whose mask holds no class."""
    (root / "i/1.png").write_bytes((root / "i/1.png").read_bytes()[:60])
    trees.mask(root / "m/2.png", (9, 0))
    return root


def test_a_run_looks_at_every_file_first_and_counts_offenders(own: Path) -> None:
    with pytest.raises(DataError, match="2 of 4 images of 'mine' cannot be used: cannot decode") as caught:
        preflight(mine(spoiled(own)), own, ["train"], a_run(own))
    assert caught.value.where == str(own / "i/1.png")
    assert "re-encode or remove the file; or continue without them: --skip-bad" in caught.value.fix
    assert caught.value.exit_code == 3


def test_with_skip_bad_a_run_goes_on_and_lists_what_it_left_out(
    own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = preflight(mine(spoiled(own)), own, ["train"], a_run(own, skip_bad=True))
    images = kept.unlabeled(own, "train")
    assert [images.key(i) for i in range(len(images))] == ["i/0.png", "i/3.png"]
    listed = json.loads((own / "run/skipped-mine.json").read_text())
    assert list(listed["train"]) == ["i/1.png", "i/2.png"]
    assert "cannot decode" in listed["train"]["i/1.png"]
    assert "value 9 in" in listed["train"]["i/2.png"]
    assert "mine: 2 images cannot be used and are left out" in caplog.text
    for example in kept.labeled(own, "train", {"i/0.png": "a", "i/3.png": "b"}):
        assert example.target.shape == (30, 40)


def test_a_mended_set_has_no_list_any_more(own: Path) -> None:
    run = a_run(own, skip_bad=True)
    preflight(mine(spoiled(own)), own, ["train"], run)
    trees.picture(own / "i/1.png", (50, 40))
    trees.mask(own / "m/1.png", 0, (50, 40))
    trees.mask(own / "m/2.png", 0)
    (own / "i/2.png").touch()  # a run keeps what it saw for as long as no picture changes
    assert len(preflight(mine(own), own, ["train"], run).unlabeled(own, "train")) == 4
    assert not (own / "run/skipped-mine.json").exists()


def test_a_set_of_bad_pictures_only_is_refused_anyway(own: Path) -> None:
    for path in (own / "i").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="4 of 4 images") as caught:
        preflight(mine(own), own, ["train"], a_run(own, skip_bad=True))
    assert "--skip-bad" not in caught.value.fix


def test_the_check_says_what_a_run_would_leave_out(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "check", spoiled(own) / "i", own / "m", "--classes", "sky,road"]
    assert command(*words) == 3
    assert "2 of them cannot be used" in capsys.readouterr().out
    assert command(*words, "--skip-bad", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["splits"][0]["bad"]) == ["1.png", "2.png"]
    assert {f["level"] for f in report["splits"][0]["findings"]} == {"warning"}


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK", "LA", "1"])
def test_every_mode_becomes_the_same_rgb_each_time(tmp_path: Path, mode: str) -> None:
    grey = Image.new("L", (8, 8), 255)
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    grey.convert(mode).save(path)
    first, second = (np.asarray(open_image(path)) for _ in range(2))
    assert first.shape == (8, 8, 3)
    assert np.array_equal(first, second)
    assert int(first.min()) >= 254


def test_transparency_is_dropped_and_colours_stay(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "x.png")
    assert open_image(tmp_path / "x.png").getpixel((0, 0)) == (10, 20, 30)


def test_a_run_refuses_known_test_pictures_before_it_trains(own: Path) -> None:
    (own / "t").mkdir()
    (own / "t/9.png").write_bytes((own / "i/3.png").read_bytes())
    domain = folder_domain("mine", images={"unlabeled": own / "i", "test": own / "t"})
    with pytest.raises(DataError, match="1 test images are also in 'unlabeled'") as caught:
        preflight(domain, own, ["unlabeled", "test"], a_run(own))
    assert "--allow-overlap" in caught.value.fix
    assert preflight(domain, own, ["unlabeled", "test"], a_run(own, allow_overlap=True)) is domain


@pytest.mark.parametrize(
    "name", ["with blank", "ünïcödé-街", "(brackets) [and] {braces}", "x" * 120, "-dash", "a%20b"]
)
def test_odd_names_work(tmp_path: Path, name: str) -> None:
    root = four_pictures(tmp_path / name)
    (root / "i/0.png").rename(root / "i" / f"{name}.png")
    (root / "m/0.png").rename(root / "m" / f"{name}.png")
    assert check(root).ok
    images = mine(root).unlabeled(root, "train")
    captions = CaptionFile(root / "c.json", {images.key(i): CaptionEntry(("a street",)) for i in range(4)})
    captions.write()
    data = mine(root).labeled(root, "train", CaptionFile.read(root / "c.json").lookup(images))
    assert {example.target.shape for example in data} == {(30, 40)}


def test_loops_of_links_are_not_followed_and_dead_links_are_told(own: Path) -> None:
    (own / "i/again").symlink_to(own, target_is_directory=True)
    (own / "i/round").symlink_to(own / "i/round")
    report = check(own)
    assert report.ok
    assert report.splits[0].images == 4
    assert [f.where for f in report.all_findings] == [(str(own / "i/round"),), (str(own / "i/again"),)]
    (own / "i/round").unlink()
    (own / "i/again").unlink()
    (own / "i/dead.png").symlink_to(own / "nowhere.png")
    trees.mask(own / "m/dead.png", 0)
    assert only(check(own)).where == (str(own / "i/dead.png"),)
    with pytest.raises(
        DataError, match="1 of 5 images of 'mine' cannot be used: cannot read a file"
    ) as caught:
        preflight(mine(own), own, ["train"], a_run(own))
    assert "dead.png" in str(caught.value.where)
    assert len(preflight(mine(own), own, ["train"], a_run(own, skip_bad=True)).unlabeled(own, "train")) == 4
