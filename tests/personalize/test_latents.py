from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from personalize.latents import crops, encode, target_size, to_pixels
from personalize.methods.dreambooth import DreamBooth
from tadp_da.errors import DataError, UsageError
from tadp_da.run import Run
from tadp_da.types import Unlabeled


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path, device="cpu", quiet=True)


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 32), (200, 100)])
@pytest.mark.parametrize("shape", [(96, 72), (50, 300), (64, 64)])
def test_crops_of_any_image_have_the_size(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert crops(Image.new("RGB", shape), size)[0].size == (size[1], size[0])


def test_the_middle_is_kept() -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 32:96] = 255
    assert np.asarray(crops(Image.fromarray(picture), (64, 64))[0]).min() == 255


def test_cached_latents_are_those_of_the_backbone(backbone: Any, images: Unlabeled, run: Run) -> None:
    latents = encode(backbone, images, DreamBooth(), run)
    size = target_size(DreamBooth(), backbone)
    assert latents.mean.shape == (4, 2, 4, 16, 16)
    pixels = to_pixels([crops(image, size)[0] for image in images])
    torch.testing.assert_close(latents.mean[:, 0], backbone.encode_image(pixels))
    torch.testing.assert_close(latents.mean[:, 1], backbone.encode_image(pixels.flip(-1)))
    assert encode(backbone, images, DreamBooth(flip=False), run).views == 1


def test_random_views_depend_on_the_seed_alone(backbone: Any, images: Unlabeled, run: Run) -> None:
    chosen = DreamBooth(crop="random", views=3, resolution=32)
    first, again = encode(backbone, images, chosen, run), encode(backbone, images, chosen, run)
    assert first.mean.shape == (4, 6, 4, 8, 8)
    assert torch.equal(first.mean, again.mean)
    assert first.digest == again.digest
    other = encode(backbone, images, chosen, run.with_seed(1))
    assert not torch.equal(first.mean, other.mean)
    assert first.digest != other.digest
    assert not torch.equal(first.mean[:, 0], first.mean[:, 1])


def test_a_squashed_image_is_seen_whole(backbone: Any, images: Unlabeled, run: Run) -> None:
    latents = encode(backbone, images, DreamBooth(crop="squash", resolution=32, flip=False), run)
    pixels = to_pixels([image.resize((32, 32), Image.Resampling.LANCZOS) for image in images])
    torch.testing.assert_close(latents.mean[:, 0], backbone.encode_image(pixels))
    with pytest.raises(ValueError, match="squash crop are all the same; set crop='random'"):
        DreamBooth(crop="squash", views=2)


def test_the_posterior_keeps_its_deviation(backbone: Any, images: Unlabeled, run: Run) -> None:
    latents = encode(backbone, images, DreamBooth(posterior="sample"), run)
    pixels = to_pixels([crops(images[0], (64, 64))[0]])
    with (
        torch.no_grad()
    ):  # together with its mirror image, as encode does: kernels round by the size of the batch
        dist = backbone.vae.encode(torch.cat([pixels, pixels.flip(-1)])).latent_dist
    assert latents.std is not None
    torch.testing.assert_close(latents.std[0], dist.std * backbone.vae.config.scaling_factor)


def test_an_autoencoder_without_posterior_says_so(backbone: Any, images: Unlabeled, run: Run) -> None:
    backbone.vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    assert encode(backbone, images, DreamBooth(), run).std is None
    with pytest.raises(UsageError, match="choose mode"):
        encode(backbone, images, DreamBooth(posterior="sample"), run)


def test_sizes_off_the_grid_and_empty_folders_are_refused(backbone: Any, images: Unlabeled, run: Run) -> None:
    with pytest.raises(UsageError, match="choose multiples of 32"):
        encode(backbone, images, DreamBooth(resolution=50), run)
    with pytest.raises(DataError, match="check the folder"):
        encode(backbone, dataclasses.replace(images, paths=()), DreamBooth(), run)
