"""Which files of a folder are taken for images, and what is said of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tadp_da.api_options import images_of
from tadp_da.custom_dataset import CustomDataset
from tadp_da.datasets import resolve
from tadp_da.domains.checks.validate import check_data
from tadp_da.domains.formats.folder import folder_domain
from tadp_da.errors import DataError
from tadp_da.images import SUFFIXES, output_folder
from tadp_da.run import Run
from tadp_da.storage.listing import image_files, remarks
from tests.tadp_da.domains import trees
from tests.tadp_da.domains.checks.checked import command


def listed(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Relative paths of the images of a folder, and of what was left out by the reason."""
    with remarks.recording() as decisions:
        found = image_files(folder)
    why: dict[str, list[str]] = {}
    for remark in decisions:
        why.setdefault(remark.what, []).append(remark.path.relative_to(folder).as_posix())
    return [path.relative_to(folder).as_posix() for path in found], why


def test_images_behind_a_link_to_a_folder_are_found_and_those_listed_anyway_are_not_found_twice(
    tmp_path: Path,
) -> None:
    for name in ("images/z/0.jpg", "elsewhere/b/1.jpg", "elsewhere/b/deep/2.jpg"):
        trees.picture(tmp_path / name)
    (tmp_path / "images/b").symlink_to("../elsewhere/b", target_is_directory=True)
    (tmp_path / "images/a").symlink_to("z", target_is_directory=True)
    (tmp_path / "elsewhere/b/round").symlink_to(tmp_path / "images", target_is_directory=True)
    (tmp_path / "images/gone").symlink_to("nowhere")
    found, why = listed(tmp_path / "images")
    assert found == ["b/1.jpg", "b/deep/2.jpg", "z/0.jpg"]
    assert why == {
        "links to folders that are listed anyway are left out": ["a", "b/round"],
        "links that lead nowhere are left out": ["gone"],
    }
    (tmp_path / "link").symlink_to("images", target_is_directory=True)
    assert listed(tmp_path / "link")[0] == found, "the folder that is given may be a link itself"
    images = folder_domain("mine", images=tmp_path / "images").unlabeled(tmp_path)
    assert [images.key(i) for i in range(3)] == [f"images/{name}" for name in found]


def test_what_pillow_opens_is_used_and_other_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, ending in enumerate(("jpg", "tif", "gif", "jfif", "TIFF")):
        kind = {"format": "JPEG"} if ending == "jfif" else {}
        trees.picture(tmp_path / f"{index}.{ending}", **kind)
    for name in ("a.heic", "b.heic", "c", "list.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert command("data", "check", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "unlabeled: 5 images, 40x30 (5)" in shown
    assert "warning: .heic files are left out" in shown
    assert f"where: {tmp_path / 'b.heic'}" in shown
    assert f"convert them: {SUFFIXES[0][1:]} " in shown
    assert "warning: files without a suffix are left out" in shown
    assert "note: .txt files are left out" in shown
    assert "ready to use; 2 warnings" in shown


def test_files_that_systems_leave_behind_are_left_out_and_counted(tmp_path: Path) -> None:
    trees.picture(tmp_path / "0.jpg")
    rubbish = [
        "@eaDir/0.jpg",
        "__MACOSX/0.jpg",
        ".ipynb_checkpoints/0.jpg",
        "._0.jpg",
        "Thumbs.db",
        "desktop.ini",
    ]
    for name in rubbish:
        trees.picture(tmp_path / "x.jpg").rename(tmp_path / "y.jpg")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / "y.jpg").rename(tmp_path / name)
    report = check_data(folder_domain("mine", images=tmp_path), tmp_path)
    (note,) = report.all_findings
    assert (note.level, note.what, note.count) == (
        "note",
        "hidden or system files are left out",
        len(rubbish),
    )
    assert report.splits[0].images == 1
    assert report.lines()[-1] == "ready to use"


def test_a_folder_that_cannot_be_read_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.picture(tmp_path / "0.jpg")
    trees.picture(tmp_path / "closed/1.jpg")
    real = os.scandir  # tests may run as root, who reads everything

    def closed(path: Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("tadp_da.storage.listing.os.scandir", closed)
    (finding,) = check_data(folder_domain("mine", images=tmp_path), tmp_path).all_findings
    assert finding.level == "warning"
    assert "folders cannot be read and are left out: Permission denied" in finding.what
    assert finding.where == (str(tmp_path / "closed"),)
    with pytest.raises(DataError, match="no images in split 'unlabeled' of 'mine'; folders cannot be read"):
        folder_domain("mine", images=tmp_path / "closed").unlabeled(tmp_path)


def test_masks_below_the_folder_of_images_are_no_images(tmp_path: Path) -> None:
    for name in ("0", "sub/1"):
        trees.picture(tmp_path / f"all/{name}.jpg")
        trees.mask(tmp_path / f"all/paint/{name}.png", (0, 1))
    own = CustomDataset.of(tmp_path / "all", tmp_path / "all/paint", classes=("a", "b"))
    assert [path.name for path in resolve(own, tmp_path).images("train").paths] == ["0.jpg", "1.jpg"]
    target = CustomDataset(
        name="t",
        images=tmp_path / "all",
        test_images=tmp_path / "all/sub",
        test_masks=tmp_path / "all/paint",
        classes=("a", "b"),
    )
    assert len(resolve(target, tmp_path).images("unlabeled")) == 2
    (tmp_path / "all/paint").rename(tmp_path / "all/masks")
    assert listed(tmp_path / "all") == (
        ["0.jpg", "sub/1.jpg"],
        {"folders that are named like labels are left out": ["masks"]},
    )


def test_masks_are_known_by_their_content_whatever_their_folder_is_called(tmp_path: Path) -> None:
    for name in ("0", "1"):
        trees.picture(tmp_path / f"all/rgb/{name}.jpg")
        trees.picture(tmp_path / f"all/night/{name}.jpg")
        trees.picture(tmp_path / f"all/grey/{name}.png", mode="L")
        trees.mask(tmp_path / f"all/SegMaps/{name}.png", (0, 1))
    found, why = listed(tmp_path / "all")
    assert {path.split("/")[0] for path in found} == {"rgb", "night", "grey"}
    assert why == {"files that look like masks of the other images are left out": ["SegMaps"]}
    assert len(listed(tmp_path / "all/SegMaps")[0]) == 2, "given by itself it is read"
    (tmp_path / "all/SegMaps/1.png").rename(tmp_path / "all/SegMaps/2.png")
    assert len(listed(tmp_path / "all")[0]) == 8, "an image that is nowhere else is no mask"


def test_images_that_this_tool_wrote_are_not_read_again(tmp_path: Path) -> None:
    trees.picture(tmp_path / "0.jpg")
    for name in ("predictions/overlays", "predictions/masks", "concept", "theirs"):
        trees.picture(tmp_path / name / "1.png")
    output_folder(tmp_path / "predictions/overlays")
    output_folder(tmp_path / "predictions/masks")
    manifest = {"kind": "concept", "key": "", "inputs": {}, "files": {}, "made": "", "versions": {}}
    (tmp_path / "concept/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "theirs/manifest.json").write_text("[]")
    found, why = listed(tmp_path)
    assert found == ["0.jpg", "theirs/1.png"]
    assert sorted(why["folders that tadp-da wrote are left out"]) == [
        "concept",
        "predictions/masks",
        "predictions/overlays",
    ]
    assert listed(tmp_path / "concept")[0] == ["1.png"], "given by itself it is read"


def test_commands_that_list_images_say_what_they_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All commands look at their images through ``DataSource.checked``."""
    trees.picture(tmp_path / "i/0.jpg")
    (tmp_path / "i/1.heic").write_bytes(b"x")
    run = Run(folder=tmp_path / "run", device="cpu", quiet=True)
    assert len(images_of(tmp_path / "i", run)) == 1
    assert "i: warning: .heic files are left out" in caplog.text
    assert str(tmp_path / "i/1.heic") in caplog.text


def test_frames_behind_the_first_are_told(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (i * 40, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "0.gif", save_all=True, append_images=frames[1:])
    (finding,) = check_data(folder_domain("mine", images=tmp_path), tmp_path).all_findings
    assert finding.what == "2 frames behind the first are not used, in 1 images"
