"""What each source style does to an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapt.augmentation import distort
from adapt.sources import sources
from adapt.stage import reads_target
from adapt.training_data import CaptionedImages
from tadp_da.errors import UsageError
from tadp_da.settings import Choice, build

LABEL = object()


def styled(name: str, image: np.ndarray, target: Any = None, seed: int = 0, **settings: Any) -> np.ndarray:
    """The image in a style; its label must come back as it went in."""
    style = sources[name](build(sources[name].Settings, settings, name))
    shown, label = style("key", image, LABEL, target, np.random.default_rng(seed))
    assert label is LABEL
    return shown


@pytest.fixture
def image() -> np.ndarray:
    """A dark ramp, bluish."""
    ramp = np.linspace(20, 120, 48 * 40).reshape(48, 40, 1) * [0.5, 0.7, 1.0]
    return ramp.astype(np.uint8)


def test_fourier_with_beta_0_is_the_identity(image: np.ndarray, unlabeled: CaptionedImages) -> None:
    assert np.array_equal(styled("fourier", image, unlabeled.images, beta=(0, 0)), image)


def test_fourier_takes_low_amplitudes_from_the_target_and_keeps_every_phase(
    unlabeled: CaptionedImages,
) -> None:
    images = unlabeled.images[:1]
    target = np.array(images[0]).astype(float)
    mild = (128 + np.random.default_rng(0).normal(0, 20, target.shape)).astype(np.uint8)  # nothing is clipped
    before, after, wanted = (
        np.fft.fft2(x.astype(float), axes=(0, 1))
        for x in (mild, styled("fourier", mild, images, beta=(0.05, 0.05)), target)
    )
    reach = int(np.ceil(0.05 * 64))
    low = np.abs(np.fft.fftfreq(64, 1 / 64)) < reach
    window = low[:, None] & low[None]
    rounding = 1e-3 * np.abs(wanted[window]).max()
    assert np.abs(np.abs(after[window]) - np.abs(wanted[window])).max() < rounding
    assert np.abs(after[~window] - before[~window]).max() < rounding
    assert np.cos(np.angle(after[window]) - np.angle(before[window])).mean() > 0.98


def test_histogram_gives_each_channel_the_targets_histogram(
    image: np.ndarray, unlabeled: CaptionedImages
) -> None:
    images = unlabeled.images[:1]
    shown, target = styled("histogram", image, images), np.array(images[0])
    at = np.linspace(5, 95, 10)
    for channel in range(3):
        ours, theirs = np.percentile(shown[..., channel], at), np.percentile(target[..., channel], at)
        assert np.abs(ours - theirs).max() < 8
    assert np.array_equal(styled("histogram", image, _Repeated(image)), image)


class _Repeated(list[np.ndarray]):
    """A target that consists of one image."""

    def __init__(self, image: np.ndarray) -> None:
        super().__init__([image])

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_strong_darkens_as_often_as_it_brightens(image: np.ndarray) -> None:
    grey = np.full((16, 16, 3), 90, np.uint8)
    plain = {
        "noise": 0,
        "grey": 0,
        "cast": 0,
        "gamma": 0,
        "view": dict.fromkeys(("brightness", "contrast", "saturation", "hue", "blur"), 0),
    }
    means = np.array([styled("strong", grey, seed=seed, **plain).mean() for seed in range(200)])
    assert abs((means < 90).mean() - 0.5) < 0.1
    assert 90 / np.e - 1 <= means.min() < 40
    assert 200 < means.max() <= 255
    nothing = plain | {"gain": 0}
    assert np.array_equal(styled("strong", image, **nothing), image)
    colourless = styled("strong", image, **nothing | {"grey": 1})
    assert (colourless == colourless[..., :1]).all()


def test_photometric_is_the_augmentation_of_that_name(image: np.ndarray) -> None:
    expected = distort(image, np.random.default_rng(5))
    assert not np.array_equal(expected, image)
    assert np.array_equal(styled("photometric", image, seed=5), expected)


def test_a_mix_changes_its_share_of_the_images(image: np.ndarray) -> None:
    def changed(**settings: Any) -> float:
        shown = [styled("mix", image, seed=seed, **settings) for seed in range(60)]
        return float(np.mean([not np.array_equal(each, image) for each in shown]))

    assert changed(changed=0) == 0
    assert changed(changed=1) == 1
    assert abs(changed(changed=0.5) - 0.5) < 0.2
    rare = [{"name": "strong", "share": 0.25}]
    assert abs(changed(changed=1, styles=rare) - 0.25) < 0.15
    assert abs(changed(changed=1, styles=["original", *rare], draw="one") - 0.2) < 0.15


def test_a_mix_reads_what_its_styles_read_and_states_their_settings() -> None:
    def choice(*styles: Any) -> Choice:
        return Choice(name="mix", settings={"styles": list(styles)}).resolved(sources, "source_style")

    assert reads_target((), choice("strong", "fourier"))
    assert not reads_target((), choice("strong"))
    assert sources["mix"](build(sources["mix"].Settings, {"styles": ["original"]}, "mix")).identity
    kept = choice({"name": "fourier", "share": 0.5}).key(sources)["settings"]["styles"][0]
    assert kept == {"name": "fourier", "settings": {"beta": [0.01, 0.06]}, "share": 0.5}
    with pytest.raises(UsageError, match="fourier"):
        choice("furier")
    with pytest.raises(UsageError, match="no style is drawn"):
        choice()
