"""How a student sees target images: a function of the generators, in range, everything in its place."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from adapt.student_views import StudentViews

STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "blur": 0.0}


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(9)) * 2 - 1


def test_each_image_is_a_function_of_its_generator(pixels: torch.Tensor) -> None:
    views = StudentViews(mask=0.3)
    together = views(pixels, generators(3))
    assert together.shape == pixels.shape
    assert together.abs().max() <= 1
    alone = views(pixels[1:2], generators(1, seed=1))
    torch.testing.assert_close(together[1:2], alone)
    assert not torch.equal(together, views(pixels, generators(3, seed=5)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(together, views(pixels, generators(3)))


def test_nothing_to_change_changes_nothing(pixels: torch.Tensor) -> None:
    assert StudentViews(**STILL)(pixels, generators(3)) is pixels


@pytest.mark.parametrize("kind", ["saturation", "hue"])
def test_grey_has_no_hue_and_brightness_stays(kind: str, pixels: torch.Tensor) -> None:
    views = StudentViews(**(STILL | {kind: 0.9}))
    grey = pixels[:, :1].expand(-1, 3, -1, -1) * 0.9
    torch.testing.assert_close(views(grey, generators(3)), grey, atol=5e-3, rtol=0)
    assert not torch.allclose(views(pixels * 0.3, generators(3)), pixels * 0.3, atol=0.05)


def test_a_blur_keeps_the_mean_and_lowers_the_contrast(pixels: torch.Tensor) -> None:
    blurred = StudentViews(**(STILL | {"blur": 1.0, "sigma": (1.0, 1.0)}))(pixels, generators(3))
    torch.testing.assert_close(blurred.mean(), pixels.mean(), atol=0.02, rtol=0)
    assert blurred.std() < 0.5 * pixels.std()


def test_masked_blocks_are_grey_and_the_rest_is_as_it_was(pixels: torch.Tensor) -> None:
    masked = StudentViews(**STILL, mask=0.5, block=1 / 6)(pixels, generators(3))
    hidden = (masked == 0).all(1)
    assert 0.3 < hidden.float().mean() < 0.7
    blocks = hidden.view(3, 4, 8, 6, 8).float().mean((2, 4))
    assert set(blocks.unique().tolist()) == {0.0, 1.0}
    shown = ~hidden[:, None].expand_as(pixels)
    assert torch.equal(masked[shown], pixels[shown])


@pytest.mark.parametrize(
    "wrong", [{"sigma": (2.0, 1.0)}, {"mask": 1.0}, {"hue": -1.0}, {"jitter": 1.0}], ids=str
)
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StudentViews(**wrong)
