"""Your own folders: what is found, what is paired, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.domains.formats.folder import folder_domain
from tadp_da.errors import DataError, UsageError

CLASSES = ("sky", "road")


def picture(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    form = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}.get(path.suffix.lower(), "PNG")
    Image.new("RGB", size, (90, 80, 70)).save(path, format=form)
    return path


def mask(path: Path, value: int = 1, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, np.uint8)).save(path, format="PNG")
    return path


def test_all_kinds_of_pictures_are_found_in_either_case_and_below(tmp_path: Path) -> None:
    names = ["a.jpg", "b.JPG", "c.jpeg", "d.PNG", "e.webp", "f.bmp", "sub/deep/g.png"]
    for name in names:
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / ".cache/h.png")
    images = folder_domain("mine", images=tmp_path).unlabeled(tmp_path)
    assert [images.key(i) for i in range(len(images))] == names
    assert all(image.size == (6, 4) for image in images)


def test_a_loop_of_links_does_no_harm(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert len(folder_domain("mine", images=tmp_path).unlabeled(tmp_path)) == 1


def test_masks_pair_by_relative_name_and_keys_are_relative_to_the_root(tmp_path: Path) -> None:
    for name, value in (("x/1.JPG", 0), ("y/1.jpg", 1)):
        picture(tmp_path / "photos" / name)
        mask((tmp_path / "masks" / name).with_suffix(".png"), value)
    domain = folder_domain("mine", images=tmp_path / "photos", masks=tmp_path / "masks", classes=CLASSES)
    data = domain.labeled(tmp_path, "train", {"photos/x/1.JPG": "one", "photos/y/1.jpg": "two"})
    assert [(e.key, e.caption, int(e.target.max())) for e in data] == [
        ("photos/x/1.JPG", "one", 0),
        ("photos/y/1.jpg", "two", 1),
    ]


def test_a_mask_ending_in_capitals_is_found(tmp_path: Path) -> None:
    picture(tmp_path / "i/1.png")
    mask(tmp_path / "m/1.PNG")
    domain = folder_domain("mine", images=tmp_path / "i", masks=tmp_path / "m", classes=CLASSES)
    assert domain.labeled(tmp_path, "train", {"i/1.png": "c"})[0].target.max() == 1


def test_splits_have_folders_of_their_own_and_only_those_with_masks_are_labelled(tmp_path: Path) -> None:
    picture(tmp_path / "new/1.png")
    picture(tmp_path / "new/test/2.png")
    mask(tmp_path / "truth/2.png")
    domain = folder_domain(
        "mine",
        images={"unlabeled": tmp_path / "new", "test": tmp_path / "new/test"},
        masks={"test": tmp_path / "truth"},
        classes=CLASSES,
    )
    assert domain.splits == ("unlabeled", "test")
    assert len(domain.labeled(tmp_path, "test", {"new/test/2.png": "c"})) == 1
    with pytest.raises(UsageError, match="'unlabeled' of 'mine' has no labels") as caught:
        domain.labeled(tmp_path, "unlabeled", dict.fromkeys(["new/1.png", "new/test/2.png"], "c"))
    assert caught.value.fix == "choose one of: test"
    assert domain.label is not None
    with pytest.raises(DataError, match="no labelled split") as stray:
        domain.label(tmp_path / "new/1.png")
    assert "labelled are: test" in stray.value.fix


def test_without_masks_there_are_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    with pytest.raises(UsageError, match="has no labels"):
        folder_domain("mine", images=tmp_path).labeled(tmp_path, "unlabeled", {"1.png": "c"})


@pytest.mark.parametrize("here", ["i", "m"])
def test_unpaired_files_are_listed_with_advice(tmp_path: Path, here: str) -> None:
    for index in range(5):
        picture(tmp_path / f"i/{index}.jpg")
        mask(tmp_path / f"m/{index}.png")
    for index in (1, 3):
        (tmp_path / here / (f"{index}.jpg" if here == "i" else f"{index}.png")).unlink()
    what = "2 of 5 masks have no image: 1, 3" if here == "i" else "2 of 5 images have no mask: 1, 3"
    domain = folder_domain("mine", images=tmp_path / "i", masks=tmp_path / "m", classes=CLASSES)
    with pytest.raises(DataError, match=what) as caught:
        domain.unlabeled(tmp_path, "train")
    assert "give image and mask the same name" in caught.value.fix


@pytest.mark.parametrize("here", ["i", "m"])
def test_two_files_of_one_name_are_refused(tmp_path: Path, here: str) -> None:
    picture(tmp_path / "i/1.jpg")
    mask(tmp_path / "m/1.png")
    picture(tmp_path / here / "1.webp")
    domain = folder_domain("mine", images=tmp_path / "i", masks=tmp_path / "m", classes=CLASSES)
    with pytest.raises(DataError, match="1 names are shared by several files") as caught:
        domain.unlabeled(tmp_path, "train")
    assert "keep one file per name" in caught.value.fix


def test_a_mask_that_vanished_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "i/1.jpg")
    path = mask(tmp_path / "m/1.png")
    domain = folder_domain("mine", images=tmp_path / "i", masks=tmp_path / "m", classes=CLASSES)
    data = domain.labeled(tmp_path, "train", {"i/1.jpg": "c"})
    path.unlink()
    with pytest.raises(DataError, match="has no mask") as caught:
        data[0]
    assert str(path) in caught.value.fix


def test_labels_are_checked_when_they_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "i/1.jpg")
    mask(tmp_path / "m/1.png", value=2)
    domain = folder_domain("mine", images=tmp_path / "i", masks=tmp_path / "m", classes=CLASSES)
    data = domain.labeled(tmp_path, "train", {"i/1.jpg": "c"})
    with pytest.raises(DataError, match="value 2 in 24 pixels"):
        data[0]
    mapped = folder_domain(
        "mine", images=tmp_path / "i", masks=tmp_path / "m", classes=CLASSES, mapping={2: 255}
    )
    assert (mapped.labeled(tmp_path, "train", {"i/1.jpg": "c"})[0].target == 255).all()


def test_relative_folders_and_dots_give_the_same_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "data/i/1.jpg")
    mask(tmp_path / "data/m/1.png")
    monkeypatch.chdir(tmp_path / "data")
    domain = folder_domain("mine", images=Path("i"), masks=Path("../data/m"), classes=CLASSES)
    for root in (Path(), Path(".."), tmp_path):
        images = domain.unlabeled(root, "train")
        assert images.key(0) == ("i/1.jpg" if root == Path() else "data/i/1.jpg")
        assert images[0].size == (6, 4)
        assert domain.label is not None
        assert domain.label(images.paths[0]).shape == (4, 6)


def test_images_outside_the_root_are_refused_with_advice(tmp_path: Path) -> None:
    picture(tmp_path / "i/1.jpg")
    with pytest.raises(UsageError, match="outside the root") as caught:
        folder_domain("mine", images=tmp_path / "i").unlabeled(tmp_path / "other")
    assert "holds every folder" in caught.value.fix


def test_an_empty_folder_is_refused_and_the_folder_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images") as caught:
        folder_domain("mine", images=tmp_path / "i").unlabeled(tmp_path)
    assert str(tmp_path / "i") in caught.value.fix
    assert "jpg" in caught.value.fix


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"masks": Path("m")}, "name 2 to 255 classes"),
        ({"masks": Path("m"), "classes": ("one",)}, "name 2 to 255 classes"),
        ({"masks": Path("m"), "classes": ("a", "a")}, "a name of its own"),
        ({"masks": Path("m"), "classes": CLASSES, "ignore": 1}, "choose one from 2 to 255"),
        ({"masks": Path("m"), "classes": CLASSES, "ignore": 256}, "choose one from 2 to 255"),
        ({"masks": Path("m"), "classes": CLASSES, "palette": [(0, 0, 0)]}, "one colour per class"),
        ({"masks": {"val": Path("m")}, "classes": CLASSES}, "give masks for"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_birth(settings: dict, advice: str) -> None:
    with pytest.raises(UsageError) as caught:
        folder_domain("mine", images=Path("i"), **settings)
    assert advice in caught.value.fix


def test_masks_painted_in_colours_are_read_by_a_table_of_colours(tmp_path: Path) -> None:
    picture(tmp_path / "i/1.png")
    painted = np.zeros((4, 6, 3), np.uint8)
    painted[0, :2] = (128, 64, 128)
    painted[1, 0] = (1, 2, 3)
    (tmp_path / "m").mkdir()
    Image.fromarray(painted).save(tmp_path / "m/1.png")
    folders = {"images": tmp_path / "i", "masks": tmp_path / "m", "classes": CLASSES}
    colours = {(0, 0, 0): 0, (128, 64, 128): 1, (1, 2, 3): 255}
    known = folder_domain("mine", **folders, colours=colours)
    found = known.labeled(tmp_path, "train", {"i/1.png": "c"})[0].target
    assert found.dtype == np.uint8
    assert [(found == value).sum() for value in (0, 1, 255)] == [21, 2, 1]
    colours.pop((1, 2, 3))
    unknown = folder_domain("mine", **folders, colours=colours)
    with pytest.raises(DataError, match=r"1 colours of no class, e.g. \(1, 2, 3\) in 1 pixels") as caught:
        unknown.labeled(tmp_path, "train", {"i/1.png": "c"})[0]
    assert "add the colour to the legend: `1 2 3: NAME`" in caught.value.fix
