"""Masks are read as stored, and what cannot be a mask is refused with advice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.domains.formats.masks import read_mask
from tadp_da.errors import DataError
from tadp_da.images import displayed_size
from tadp_da.types import LabelSpace

LABELS = LabelSpace("segmentation", ("sky", "road", "car"))
IDS = np.array([[0, 1, 2], [255, 1, 0]], dtype=np.uint8)


def save(values: np.ndarray, path: Path) -> Path:
    Image.fromarray(values).save(path)
    return path


def test_a_palette_file_gives_its_indices_not_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(IDS)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as stored:
        assert stored.mode == "P"
        assert not np.array_equal(np.asarray(stored.convert("L")), IDS)
    assert np.array_equal(read_mask(tmp_path / "m.png", LABELS), IDS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_files_of_either_depth_are_read_as_stored(tmp_path: Path, dtype: type) -> None:
    found = read_mask(save(IDS.astype(dtype), tmp_path / "m.png"), LABELS)
    assert found.dtype == np.uint8
    assert np.array_equal(found, IDS)


def test_sixteen_bit_values_do_not_wrap_into_class_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="value 256 in 1 pixels"):
        read_mask(save(np.array([[0, 256]], dtype=np.uint16), tmp_path / "m.png"), LABELS)


def test_a_value_that_is_no_class_is_named_with_its_count_and_file(tmp_path: Path) -> None:
    path = save(np.array([[0, 7, 7], [3, 1, 2]], dtype=np.uint8), tmp_path / "m.png")
    with pytest.raises(DataError, match="value 3 in 1 pixels, value 7 in 2 pixels") as caught:
        read_mask(path, LABELS)
    assert caught.value.where == str(path)
    assert "name 8 classes" in caught.value.fix


def test_cityscapes_ids_are_recognized(tmp_path: Path) -> None:
    nineteen = LabelSpace("segmentation", tuple(f"class {i}" for i in range(19)))
    path = save(np.array([[7, 26, 33]], dtype=np.uint8), tmp_path / "m.png")
    with pytest.raises(DataError, match="labelIds") as caught:
        read_mask(path, nineteen)
    assert "labelTrainIds" in caught.value.fix


def test_a_mapping_renumbers_and_refuses_what_it_does_not_name(tmp_path: Path) -> None:
    path = save(np.array([[7, 11], [26, 7]], dtype=np.uint8), tmp_path / "m.png")
    assert read_mask(path, LABELS, mapping={7: 1, 11: 255, 26: 2}).tolist() == [[1, 255], [2, 1]]
    with pytest.raises(DataError, match="value 26 in 1 pixels") as caught:
        read_mask(path, LABELS, mapping={7: 1, 11: 255})
    assert "add the value to the legend: `26: NAME`" in caught.value.fix


def test_a_mapping_into_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="value 300 in 1 pixels"):
        read_mask(save(np.array([[7]], dtype=np.uint8), tmp_path / "m.png"), LABELS, mapping={7: 300})


def test_colours_are_refused_with_advice(tmp_path: Path) -> None:
    path = save(np.zeros((2, 2, 3), dtype=np.uint8), tmp_path / "m.png")
    with pytest.raises(DataError, match="RGB image") as caught:
        read_mask(path, LABELS)
    assert "--legend FILE) with a line for each colour: `0 0 0: NAME`" in caught.value.fix


def test_jpeg_masks_are_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="JPEG") as caught:
        read_mask(save(IDS, tmp_path / "m.jpg"), LABELS)
    assert "PNG" in caught.value.fix


def test_a_mask_must_have_the_size_of_its_image(tmp_path: Path) -> None:
    mask, image = save(IDS, tmp_path / "m.png"), save(np.zeros((4, 6, 3), np.uint8), tmp_path / "i.png")
    with pytest.raises(DataError, match="3x2 pixels, its image 6x4") as caught:
        read_mask(mask, LABELS, image=image)
    assert "nearest-neighbour" in caught.value.fix


def test_a_mask_must_have_the_size_at_which_a_turned_photo_is_shown(tmp_path: Path) -> None:
    photo = Image.new("RGB", (2, 3))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "i.jpg", exif=exif)
    assert displayed_size(tmp_path / "i.jpg") == (2, 3)
    assert np.array_equal(read_mask(save(IDS, tmp_path / "m.png"), LABELS, image=tmp_path / "i.jpg"), IDS)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n half"])
def test_what_cannot_be_decoded_is_refused_with_advice(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(content)
    for attempt in (lambda: read_mask(path, LABELS), lambda: displayed_size(path)):
        with pytest.raises(DataError, match="cannot decode") as caught:
            attempt()
        assert "re-encode" in caught.value.fix


def test_missing_files_are_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a mask is missing") as caught:
        read_mask(tmp_path / "m.png", LABELS)
    assert "same name" in caught.value.fix
    with pytest.raises(DataError, match="an image is missing"):
        displayed_size(tmp_path / "i.png")


def test_classes_from_1_on_are_told_from_an_id_of_ignored_pixels(tmp_path: Path) -> None:
    """Followed to the letter, no advice may shift every class by one without a word."""
    path = save(np.array([[0, 1, 2]], dtype=np.uint8), tmp_path / "m.png")
    with pytest.raises(DataError, match="value 2 in 1 pixels") as caught:
        read_mask(path, LabelSpace("segmentation", ("sky", "road")))
    first, rest = caught.value.fix.split(";", 1)
    assert first.startswith("if 0 is no class and 1 is 'sky'")
    assert "`0: ignore` and `1: sky`" in first
    assert "--ignore-index 2" in rest


def test_classes_without_names_are_no_fault_of_the_masks(tmp_path: Path) -> None:
    path = save(np.arange(11, dtype=np.uint8)[None], tmp_path / "m.png")
    with pytest.raises(DataError) as caught:
        read_mask(path, LabelSpace("segmentation", ("sky", "road", "car")))
    assert caught.value.fix.startswith("name 11 classes")
