"""Augmentation: image and mask in step, driven by the generator alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from adapt.augmentation import Augmentation, resize
from tadp_da.errors import UsageError
from tadp_da.images import resize_part
from tadp_da.tasks.labels.depth import DepthLabel
from tadp_da.tasks.labels.masks import MaskLabel
from tadp_da.types import LabelSpace

LABELS = LabelSpace("segmentation", tuple("abcdefghijklmnopqrstuvwxyz"))
SIZE = (24, 40)
HARD = Augmentation(scale=(0.5, 2.0), crop=(16, 32), cat_max_ratio=0.75, flip=0.5)


def pair(size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red channel is 8 times its mask: four columns of 10 pixels."""
    mask = np.broadcast_to(np.arange(size[1]) // 10, size).astype(np.uint8)
    image = np.stack([mask * 8, np.full(size, 50), np.full(size, 200)], axis=-1).astype(np.uint8)
    return image, mask


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def label_of(mask: np.ndarray) -> MaskLabel:
    return MaskLabel.checked(mask, mask.shape, LABELS, "here")


def test_nothing_asked_is_the_identity() -> None:
    image, mask = pair()
    pixels, ids = Augmentation(flip=0)(image, label_of(mask), SIZE, rng())
    assert pixels.dtype == torch.float32
    assert ids.dtype == torch.int64
    np.testing.assert_array_equal(((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(), image)
    np.testing.assert_array_equal(ids.numpy(), mask)


def test_black_and_white_span_minus_one_to_one() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4] = 255
    pixels, _ = Augmentation()(image, label_of(np.zeros((8, 8), np.uint8)), (8, 8), rng())
    assert (pixels.min(), pixels.max()) == (-1, 1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(9, 50), width=st.integers(9, 70))
def test_image_and_mask_stay_in_step(seed: int, height: int, width: int) -> None:
    image, mask = pair((height, width))
    pixels, ids = HARD(image, label_of(mask), (height, width), rng(seed))
    assert pixels.shape == (3, 16, 32)
    assert ids.shape == (16, 32)
    assert set(ids.unique().tolist()) <= set(np.unique(mask)) | {255}
    red = (pixels[0] + 1) * 127.5 / 8
    inside = ids != 255
    # bilinear against nearest: they may differ by half a class only where two columns meet
    assert ((red - ids).abs()[inside] < 0.75).all()
    padded = pixels[:, ~inside]
    assert torch.allclose(padded, torch.full_like(padded, 127 / 127.5 - 1))


def test_flip_mirrors_both() -> None:
    image, mask = pair()
    pixels, ids = Augmentation(flip=1)(image, label_of(mask), SIZE, rng())
    plain, plain_ids = Augmentation(flip=0)(image, label_of(mask), SIZE, rng())
    assert torch.equal(pixels, plain.flip(-1))
    assert torch.equal(ids, plain_ids.flip(-1))


def test_the_same_generator_gives_the_same_and_the_global_ones_do_not_matter() -> None:
    image, mask = pair()
    augment = Augmentation(scale=(0.5, 2), crop=(16, 16), photometric=True)
    first = augment(image, label_of(mask), SIZE, rng(3))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - that the global state does not matter is the claim
    second = augment(image, label_of(mask), SIZE, rng(3))
    other = augment(image, label_of(mask), SIZE, rng(4))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_photometric_changes_pixels_and_never_ids() -> None:
    image, mask = pair()
    changed = 0
    for seed in range(8):
        pixels, ids = Augmentation(flip=0, photometric=True)(image, label_of(mask), SIZE, rng(seed))
        assert -1 <= pixels.min() <= pixels.max() <= 1
        np.testing.assert_array_equal(ids.numpy(), mask)
        changed += not torch.equal(pixels, Augmentation(flip=0)(image, label_of(mask), SIZE, rng())[0])
    assert changed >= 5


def test_cat_max_ratio_avoids_crops_of_one_class() -> None:
    mask = np.zeros((32, 128), np.uint8)
    mask[:, 112:] = 1
    image = np.zeros((32, 128, 3), np.uint8)

    def mixed(ratio: float) -> int:
        augment = Augmentation(crop=(32, 32), cat_max_ratio=ratio, flip=0)
        return sum(
            augment(image, label_of(mask), (32, 128), rng(s))[1].unique().numel() == 2 for s in range(40)
        )

    assert mixed(0.9) > 2 * mixed(1.0) > 0


def test_working_size_comes_before_the_random_scale() -> None:
    image, mask = pair()
    pixels, ids = Augmentation(flip=0)(image, label_of(mask), (12, 20), rng())
    assert pixels.shape == (3, 12, 20)
    assert ids.shape == (12, 20)
    sizes = {
        Augmentation(scale=(0.5, 2), flip=0)(image, label_of(mask), (12, 20), rng(s))[1].shape
        for s in range(30)
    }
    heights = [h for h, _ in sizes]
    assert min(heights) < 9
    assert max(heights) > 18
    assert all(6 <= h <= 24 for h in heights)


@pytest.mark.parametrize(("draw", "enlarged"), [("log-uniform", 1 / 2), ("uniform", 2 / 3)])
def test_images_are_enlarged_as_often_as_the_draw_says(draw: Any, enlarged: float) -> None:
    image, mask = pair()
    augment = Augmentation(scale=(0.5, 2), scale_draw=draw, flip=0)
    heights = [augment(image, label_of(mask), (12, 20), rng(s))[1].shape[0] for s in range(300)]
    assert 6 <= min(heights) < max(heights) <= 24
    assert np.mean(np.array(heights) > 12) == pytest.approx(enlarged, abs=0.1)


@pytest.mark.parametrize(
    "wrong", [{"scale": (2, 0.5)}, {"scale": (0, 1)}, {"flip": 1.5}, {"crop": (0, 8)}, {"jitter": True}]
)
def test_nonsense_is_refused_at_birth(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Augmentation(**wrong)


def test_only_flips_tells_when_latents_may_be_kept() -> None:
    assert Augmentation().only_flips
    assert not Augmentation(scale=(0.9, 1.1)).only_flips
    assert not Augmentation(crop=(8, 8)).only_flips
    assert not Augmentation(photometric=True).only_flips


def test_cut_depth_shows_the_depth_in_a_strip_and_moves_with_it() -> None:
    image = np.full((*SIZE, 3), 200, np.uint8)
    metres = np.linspace(1, 9, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    label = DepthLabel.checked(metres, SIZE, LabelSpace("depth", (), range=(0.001, 10.0)), "here")
    grey = (255 / 10 * metres).round()
    widths = []
    for seed in range(40):
        pixels, kept = Augmentation(flip=0, cut_depth=1)(image, label, SIZE, rng(seed))
        shown = ((pixels + 1) * 127.5).round().numpy()
        strip = (shown != 200).all(0).any(0)
        columns = np.flatnonzero(strip)
        widths.append(len(columns))
        assert columns[-1] - columns[0] == len(columns) - 1, "one strip"
        assert (shown[:, :, strip] == grey[:, strip]).all()
        assert (shown[:, :, ~strip] == 200).all()
        np.testing.assert_array_equal(kept.numpy(), metres)
    assert min(widths) < 4
    assert 10 < max(widths) <= 30
    assert (image == 200).all(), "not changed in place"
    whole, _ = Augmentation(flip=0, cut_depth=0)(image, label, SIZE, rng(3))
    assert len(whole.unique()) == 1


def test_cut_depth_needs_depth_and_pixels() -> None:
    image, mask = pair()
    with pytest.raises(UsageError, match="these labels have none"):
        Augmentation(cut_depth=1)(image, label_of(mask), SIZE, rng())
    assert not Augmentation(cut_depth=0.1).only_flips
    assert Augmentation(cut_depth=0.1).without_colours() == Augmentation(), "target images have no labels"


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(9, 60), st.integers(9, 60)),
    size=st.tuples(st.integers(9, 90), st.integers(9, 90)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_crop_of_what_is_resized_is_what_is_resized_of_a_crop(
    shape: tuple[int, int], size: tuple[int, int], corner: tuple[float, float]
) -> None:
    image = rng().integers(0, 256, (*shape, 3)).astype(np.uint8)
    label = label_of(rng().integers(0, 26, shape).astype(np.uint8))
    whole, whole_label = resize(image, label, size)
    top, left = (int(share * side) for share, side in zip(corner, size, strict=True))
    top, left = min(top, size[0] - 1), min(left, size[1] - 1)
    bottom, right = min(top + 20, size[0]), min(left + 20, size[1])
    part = resize_part(image, size, (top, left, bottom, right)).astype(int)
    assert np.abs(part - whole[top:bottom, left:right]).max() <= 1
    moved = label.resized_crop(size, top, left, (bottom - top, right - left))
    assert torch.equal(moved.value, whole_label.value[top:bottom, left:right])
