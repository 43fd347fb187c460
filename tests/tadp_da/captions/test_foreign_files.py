"""Captions as other tools write them: text files, metadata.jsonl, keys of Windows and of Macs."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from tadp_da.captions.files import CaptionFile
from tadp_da.captions.provider import ANY, CaptionProvider
from tadp_da.errors import DataError
from tadp_da.run import Run
from tadp_da.types import Unlabeled


def images(*names: str) -> Unlabeled:
    return Unlabeled(domain="d", root=Path("/data"), paths=tuple(Path("/data") / name for name in names))


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def lines(tmp_path: Path, *content: object) -> Path:
    (tmp_path / "metadata.jsonl").write_text(
        "\r\n".join(map(json.dumps, content)) + "\r\n\r\n", encoding="utf-8"
    )
    return tmp_path / "metadata.jsonl"


def test_text_files_beside_the_images_are_captions(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        **{"0_txt": "\ufeff a car\r\nsecond\r\n", "night__1_caption": "\na bus\n", "2_txt": "", "x_md": "x"},
    )
    wanted, run = images("0.jpg", "night/1.png", "2.webp"), Run(folder=tmp_path, quiet=True, device="cpu")
    expected = {"0.jpg": "a car", "night/1.png": "a bus", "2.webp": ""}
    assert CaptionProvider(files={ANY: folder})(wanted, "train", run) == expected
    assert CaptionFile.read(folder).entries["0"].captions == ("a car", "second")
    assert CaptionFile.read(folder).lookup(images("i/0.jpg")) == {"i/0.jpg": "a car"}


def test_text_files_are_found_where_images_are(tmp_path: Path) -> None:
    """Behind links, and not among the files that systems leave behind."""
    written(tmp_path / "elsewhere", **{"1_txt": "a bus"})
    folder = written(tmp_path / "texts", **{"0_txt": "a car"})
    (folder / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "._0.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    assert sorted(CaptionFile.read(folder).entries) == ["0", "b/1"]


def test_text_files_that_cannot_be_captions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no metadata\.jsonl or metadata\.csv and no \.txt or \.caption"):
        CaptionFile.read(tmp_path)
    folder = written(tmp_path, **{"0_txt": "a car"})
    with pytest.raises(DataError, match="2 images share the caption of '0'"):
        CaptionFile.read(folder).lookup(images("0.jpg", "0.png"))
    with pytest.raises(DataError, match="two text files"):
        CaptionFile.read(written(folder, **{"0_caption": "a bus"}))
    (folder / "0.caption").unlink()
    (folder / "0.txt").write_bytes(b"gr\xfcn")
    with pytest.raises(DataError, match=r"not UTF-8(.|\n)*0\.txt(.|\n)*iconv"):
        CaptionFile.read(folder)
    with pytest.raises(DataError, match="boxes of YOLO"):
        CaptionFile.read(written(folder, **{"0_txt": "0 0.5 0.5 0.25 0.25\n"}))


def test_metadata_of_an_image_folder_is_read(tmp_path: Path) -> None:
    file = lines(
        tmp_path,
        {"file_name": "train/0.png", "text": "a car", "more": 1},
        {"file_name": "1.png", "text": "a bus"},
    )
    for path in (file, written(tmp_path, readme_txt="no caption")):
        expected = {"train/0.png": "a car", "1.png": "a bus"}
        assert CaptionFile.read(path).lookup(images("train/0.png", "1.png")) == expected


def test_metadata_in_sub_folders_and_as_a_table_is_read(tmp_path: Path) -> None:
    """As the image folders of Hugging Face datasets: names are relative to the folder of the file."""
    written(
        tmp_path,
        **{
            "train__metadata_csv": '\ufefffile_name,label,caption\r\n0.png,3,"a car, red"\r\nb/1.png,,a bus\r\n',
            "test__metadata_jsonl": '{"file_name": "0.png", "text": "a tree"}\n',
            "0_txt": "not read",
        },
    )
    expected = {"train/0.png": "a car, red", "train/b/1.png": "a bus", "test/0.png": "a tree"}
    assert CaptionFile.read(tmp_path).lookup(images(*expected)) == expected
    table = CaptionFile.read(tmp_path / "train/metadata.csv")
    assert table.lookup(images("0.png")) == {"0.png": "a car, red"}


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("file_name,label\n0.png,3\n", 2, r"has \['file_name', 'label'\]"),
        ("file_name,text\n0.png\n", 2, r"has \['file_name'\]"),
        ("file_name,text\n0.png,a\n0.png,b\n", 3, "'0.png' is repeated"),
        ("file_name,text\n0.png," + "a" * 200_000, 2, "not valid CSV"),
    ],
)
def test_a_table_that_is_broken_is_refused_with_its_line(
    tmp_path: Path, content: str, line: int, what: str
) -> None:
    file = written(tmp_path, metadata_csv=content) / "metadata.csv"
    with pytest.raises(DataError, match=what) as caught:
        CaptionFile.read(tmp_path)
    assert caught.value.where == f"{file}:{line}"
    assert caught.value.fix


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([{"file_name": "0.png"}], r"has \['file_name'\]"),
        ([{"text": "a car"}], r"has \['text'\]"),
        ([["0.png", "a car"]], "needs file_name and text"),
        ([{"file_name": "0.png", "text": 3}], "'0.png' holds 3"),
        ([{"file_name": "0.png", "text": "a"}, {"file_name": "0.png", "text": "b"}], "'0.png' is repeated"),
    ],
)
def test_metadata_that_is_broken_is_refused_with_its_line(
    tmp_path: Path, content: list[object], what: str
) -> None:
    with pytest.raises(DataError, match=what) as caught:
        CaptionFile.read(lines(tmp_path, *content))
    assert caught.value.where == f"{tmp_path / 'metadata.jsonl'}:{len(content)}"
    assert caught.value.fix
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "x", "text": "a"}\n{"file_')
    with pytest.raises(DataError, match=r"not valid JSON(.|\n)*metadata\.jsonl:2"):
        CaptionFile.read(tmp_path)


@pytest.mark.parametrize("stored", ["night\\1.png", ".\\night\\1.png", "./night/1.png", "night\\1"])
def test_keys_of_windows_are_found(tmp_path: Path, stored: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps({stored: "a car"}))
    found = CaptionFile.read(tmp_path / "c.json").lookup(images("val/night/1.png"))
    assert found == {"val/night/1.png": "a car"}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_compared_in_one_unicode_form(tmp_path: Path, forms: tuple[str, str]) -> None:
    ours, theirs = (unicodedata.normalize(form, "caf\u00e9") for form in forms)
    (tmp_path / "c.json").write_text(json.dumps({f"{theirs}.jpg": "a street"}))
    assert CaptionFile.read(tmp_path / "c.json").lookup(images(f"{ours}.jpg")) == {f"{ours}.jpg": "a street"}
    (tmp_path / "s").mkdir()
    (tmp_path / f"s/{theirs}.txt").write_text("a street")
    assert CaptionFile.read(tmp_path / "s").lookup(images(f"{ours}.jpg")) == {f"{ours}.jpg": "a street"}


def test_entries_that_differ_in_spelling_only_are_told_apart_or_refused(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"a/1.png": "slash", "a\\1.png": "backslash"}))
    file = CaptionFile.read(tmp_path / "c.json")
    assert file.lookup(images("a/1.png")) == {"a/1.png": "slash"}
    with pytest.raises(DataError, match=r"two entries are about 'b/a/1\.png': 'a/1\.png' and 'a\\\\1\.png'"):
        file.lookup(images("b/a/1.png"))
