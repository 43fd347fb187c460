"""The only archives that the project reads are submissions: what a hostile zip could do, and that it does not."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from benchmarks.submit.mask_zips import MASK_ZIPS
from tadp_da.errors import DataError
from tadp_da.types import Unlabeled
from tests.tadp_da.domains import trees

CITIES = MASK_ZIPS["cityscapes"]


@pytest.fixture
def images(tmp_path: Path) -> Unlabeled:
    return Unlabeled(domain="d", root=tmp_path, paths=(trees.picture(tmp_path / "a.png"),))


def held(tmp_path: Path, names: dict[str, bytes], mode: int = 0) -> Path:
    place = tmp_path / "deep/x.zip"
    place.parent.mkdir()
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return place


@pytest.mark.parametrize(
    "name", ["../out.png", "/tmp/out.png", "a/../../out.png", "C:\\out.png", "..\\out.png"]
)
@pytest.mark.parametrize("mode", [stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR])
def test_names_that_lead_elsewhere_are_refused_and_nothing_is_written(
    images: Unlabeled, tmp_path: Path, name: str, mode: int
) -> None:
    place = held(tmp_path, {"a.png": (tmp_path / "a.png").read_bytes(), name: b"/etc/passwd"}, mode | 0o777)
    before = sorted(os.walk(tmp_path))
    with pytest.raises(DataError, match="1 files are predictions of no image") as caught:
        CITIES.check(place, images)
    assert "name a prediction as its image" in caught.value.fix
    assert sorted(os.walk(tmp_path)) == before
    assert not Path("/tmp/out.png").exists()


def test_a_link_under_a_good_name_is_read_as_what_it_holds(images: Unlabeled, tmp_path: Path) -> None:
    place = held(tmp_path, {"a.png": b"/etc/passwd"}, stat.S_IFLNK | 0o777)
    with pytest.raises(DataError, match="a prediction cannot be decoded") as caught:
        CITIES.check(place, images)
    assert "PNG" in caught.value.fix


def test_a_bomb_is_refused_by_its_stated_size(images: Unlabeled, tmp_path: Path) -> None:
    place = held(tmp_path, {"a.png": bytes(200_000_000)})
    assert place.stat().st_size < 1_000_000
    with pytest.raises(
        DataError, match=r"a\.png unpacks to 200000000 bytes, a prediction of 40x30"
    ) as caught:
        CITIES.check(place, images)
    assert "write the zip again" in caught.value.fix


def test_a_bomb_that_lies_about_its_size_is_not_unpacked(images: Unlabeled, tmp_path: Path) -> None:
    place = held(tmp_path, {"a.png": bytes(50_000_000)})
    true, stated = (50_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little")
    place.write_bytes(place.read_bytes().replace(true, stated))
    with pytest.raises(DataError, match=r"a\.png is damaged"):
        CITIES.check(place, images)


@pytest.mark.parametrize("form", MASK_ZIPS)
def test_a_zip_that_is_spoiled_anywhere_is_refused_or_sound(
    images: Unlabeled, tmp_path: Path, form: str
) -> None:
    place = held(tmp_path, {f"{folder}/a.png".lstrip("/"): b"x" * 99 for folder in MASK_ZIPS[form].folders})
    whole = place.read_bytes()
    for at in range(0, len(whole), 3):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(DataError) as caught:
            MASK_ZIPS[form].check(place, images)
        assert caught.value.fix
