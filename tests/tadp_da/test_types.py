"""Laws of the shared types: pictures come as RGB and upright, labels cannot be peeked at, levels carry their maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tadp_da.errors import DataError
from tadp_da.images import open_image
from tadp_da.types import FeaturePyramid, FeatureSpec, Labeled, LabelSpace, Unlabeled


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new(mode, (5, 4)).save(path)
    assert open_image(path).mode == "RGB"
    assert open_image(path).size == (5, 4)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    image.save(tmp_path / "x.jpg", exif=exif)
    assert open_image(tmp_path / "x.jpg").size == (4, 8)


def test_what_is_no_picture_is_refused_with_its_path(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole)
    truncated, empty, text = tmp_path / "truncated.jpg", tmp_path / "empty.png", tmp_path / "text.png"
    truncated.write_bytes(whole.read_bytes()[:-600])
    empty.touch()
    text.write_text("not a picture")
    for path in (truncated, empty, text):
        with pytest.raises(DataError, match="re-encode or remove") as refused:
            open_image(path)
        assert str(path) in str(refused.value)
    with pytest.raises(DataError, match="check the data root"):
        open_image(tmp_path / "missing.png")


def test_unlabelled_images_know_paths_and_a_name_only(tmp_path: Path) -> None:
    paths = []
    for name in ("b/1.png", "a/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name)
        paths.append(tmp_path / name)
    images = Unlabeled(domain="x", root=tmp_path, paths=tuple(paths))
    assert [images.key(i) for i in range(2)] == ["b/1.png", "a/2.png"]
    assert len(images[1:]) == 1
    assert isinstance(images[1:], Unlabeled)
    assert set(vars(images)) == {"domain", "root", "paths", "digests"}
    labels = LabelSpace(task="segmentation", classes=("a", "b"))
    data = Labeled(
        domain="x",
        labels=labels,
        images=images,
        label=lambda i: i,
        captions={"b/1.png": "one", "a/2.png": "two"},
    )
    assert [(e.key, e.target, e.caption) for e in data] == [("b/1.png", 0, "one"), ("a/2.png", 1, "two")]
    with pytest.raises(TypeError, match="stay in step"):
        data[:1]


def test_levels_hold_the_features_first_and_their_maps_behind() -> None:
    spec = FeatureSpec(channels={4: 3, 8: 5}, attention={8: 7})
    assert spec.widths() == {4: 3, 8: 12}
    assert spec.widths(use_attention=False) == {4: 3, 8: 5}
    pyramid = FeaturePyramid(
        features={4: torch.zeros(2, 3, 4, 4), 8: torch.zeros(2, 5, 2, 2)},
        attention={8: torch.ones(2, 7, 2, 2)},
    )
    levels = pyramid.levels()
    assert {s: x.shape[1] for s, x in levels.items()} == spec.widths()
    assert levels[8][:, 5:].eq(1).all()
    assert levels[8][:, :5].eq(0).all()
