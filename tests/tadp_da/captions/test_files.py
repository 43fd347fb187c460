"""Caption files: reading what others wrote, refusing what is broken, finding the caption of an image."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tadp_da.captions.files import CaptionEntry, CaptionFile
from tadp_da.errors import DataError, UsageError
from tadp_da.types import Unlabeled

PUBLISHED = {
    "79182947": {"captions": ["- a depiction of a car "], "class_label": 15},
    "2008_000002": {"captions": ["a tv on a desk", "a tv on a desk"]},
}


def given_file(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def images(*names: str) -> Unlabeled:
    return Unlabeled(domain="d", root=Path("/data"), paths=tuple(Path("/data") / name for name in names))


def test_reads_the_published_form_as_it_is(tmp_path: Path) -> None:
    file = CaptionFile.read(given_file(tmp_path, PUBLISHED))
    assert file.entries["79182947"] == CaptionEntry(("- a depiction of a car ",), {"class_label": 15})
    assert file.entries["2008_000002"].caption == "a tv on a desk"


@pytest.mark.parametrize("entry", ["a car", ["a car", "a bus"], {"captions": "a car"}])
def test_a_caption_may_come_as_a_string_or_a_list(tmp_path: Path, entry: object) -> None:
    assert CaptionFile.read(given_file(tmp_path, {"x": entry})).entries["x"].caption == "a car"


_CAPTION = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
_ENTRY = st.builds(
    CaptionEntry,
    st.lists(_CAPTION, min_size=1, max_size=3).map(tuple),
    st.dictionaries(st.just("class_label"), st.integers(0, 20)),
)


@given(entries=st.dictionaries(_CAPTION, _ENTRY, max_size=5))
def test_writing_and_reading_is_the_identity(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, CaptionEntry]
) -> None:
    path = tmp_path_factory.mktemp("captions") / "c.json"
    CaptionFile(path, entries).write()
    assert CaptionFile.read(path).entries == entries


def test_a_written_file_is_sorted_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "c.json"
    CaptionFile(path, {"b": CaptionEntry(("ä bus",)), "a": CaptionEntry(("a car",))}).write()
    assert path.read_text(encoding="utf-8").index('"a"') < path.read_text(encoding="utf-8").index('"b"')
    assert "ä bus" in path.read_text(encoding="utf-8")
    assert os.listdir(path.parent) == ["c.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = given_file(tmp_path, PUBLISHED)
    with pytest.raises(TypeError):
        CaptionFile(path, {"x": CaptionEntry(("a",), {"class_label": object()})}).write()
    assert json.loads(path.read_text(encoding="utf-8")) == PUBLISHED


def test_a_place_that_cannot_be_written_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="choose another --out"):
        CaptionFile(tmp_path / "file" / "c.json", {}).write()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"x": {"captions": [NaN]}}', "NaN is not a JSON value"),
        ('{"x": {"captions": [3]}}', "'x' holds 3, a int"),
        ('{"x": {"captions": [null]}}', "'x' holds None, a NoneType"),
        ('{"x": {"captions": []}}', "'x' holds []"),
        ('{"x": {"captions": {"a": 1}}}', "'x' holds {'a': 1}"),
        ('{"x": {"caption": ["a"]}}', "'x' has no field 'captions', only ['caption']"),
        ('{"x": 7}', "'x' holds 7"),
        ('{"x": {"captions": ["a"], "class_label": "car"}}', "'x' has the class_label 'car'"),
        ('{"x": {"captions": ["a"], "class_label": true}}', "'x' has the class_label True"),
        ('{"x": {"captions": ["\\ud83d"]}}', "'x' holds half of a character"),
        ('{"x": {"captions": ["a"]}, "x": {"captions": ["b"]}}', "the key 'x' is repeated"),
        ('["a"]', "holds a list"),
        ('{"x": ', "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_key(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        CaptionFile.read(path)
    assert what in caught.value.what
    assert caught.value.where == str(path)
    assert '{"captions": ["a car on a street"]}' in caught.value.fix


def test_a_file_in_another_encoding_is_refused_with_the_command_that_converts_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "captions.json"
    path.write_bytes('{"x": "ein grünes Auto"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8 \(byte 13\)") as caught:
        CaptionFile.read(path)
    assert "iconv" in caught.value.fix


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text('{"x": "a car"}', encoding="utf-8-sig")
    assert list(CaptionFile.read(path).entries) == ["x"]


def test_a_missing_file_is_answered_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tadp-da caption IMAGES --out"):
        CaptionFile.read(tmp_path / "none.json")
    with pytest.raises(DataError, match="check the path"):
        CaptionFile.read(tmp_path)


def test_captions_are_found_by_relative_path(tmp_path: Path) -> None:
    file = CaptionFile.read(given_file(tmp_path, {"night/1.png": "by night", "day/1.png": "by day"}))
    assert file.lookup(images("day/1.png", "night/1.png")) == {
        "day/1.png": "by day",
        "night/1.png": "by night",
    }


def test_captions_are_found_by_stem_where_keys_are_stems(tmp_path: Path) -> None:
    file = CaptionFile.read(given_file(tmp_path, {"1": "one", "a.b": "two"}))
    assert file.by_stem
    assert file.lookup(images("JPEGImages/1.jpg", "a.b.jpg")) == {"JPEGImages/1.jpg": "one", "a.b.jpg": "two"}


def test_a_file_of_paths_is_never_searched_by_stem(tmp_path: Path) -> None:
    file = CaptionFile.read(given_file(tmp_path, {"1": "one", "night/2.png": "two"}))
    with pytest.raises(DataError, match="0 of 1 images"):
        file.lookup(images("day/1.jpg"))


def test_captions_are_found_by_the_end_of_a_path(tmp_path: Path) -> None:
    file = CaptionFile.read(given_file(tmp_path, {"night/1.png": "a street"}))
    assert file.lookup(images("val/night/1.png")) == {"val/night/1.png": "a street"}
    with pytest.raises(DataError, match=r"2 images share the caption of 'night/1\.png'"):
        file.lookup(images("a/night/1.png", "b/night/1.png"))


def test_images_that_share_a_stem_are_refused_in_a_file_of_stems(tmp_path: Path) -> None:
    file = CaptionFile.read(given_file(tmp_path, {"1": "one", "2": "two"}))
    with pytest.raises(DataError, match="2 images share the caption of '1'") as caught:
        file.lookup(images("day/1.jpg", "night/1.jpg", "2.jpg"))
    assert "key the file by relative paths" in caught.value.fix


def test_missing_captions_are_answered_with_coverage_and_the_command_that_makes_them(
    tmp_path: Path,
) -> None:
    file = CaptionFile.read(given_file(tmp_path, {"night/1.png": "one"}))
    with pytest.raises(DataError) as caught:
        file.lookup(images("night/1.png", "1.png", "2.png"))
    assert "1 of 3 images have a caption and 2 have none, e.g. '1.png'" in caught.value.what
    assert "its keys look like 'night/1.png'" in caught.value.what
    assert "tadp-da caption /data" in caught.value.fix


def test_an_empty_file_covers_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file is empty"):
        CaptionFile.read(given_file(tmp_path, {})).lookup(images("1.png"))
