"""What the committed weights can do, on scenes that no training saw: far above what guessing would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from tadp_da.mini import WEIGHTS
from tadp_da.mini.pretrain_data import COUNTED
from tadp_da.mini.pretrain_export import DIFFUSION
from tadp_da.mini.report import Captions, agreement, psnr
from tadp_da.mini.styles import LOOKS, render
from tadp_da.mini.world import Scene, draw_scene, parse_counts

SEED = 3000


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(SEED, index) for index in range(64)]


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    found = StableDiffusionPipeline.from_pretrained(WEIGHTS / DIFFUSION)
    found.set_progress_bar_config(disable=True)
    return found


def data(scenes: list[Scene], look: str) -> list[np.ndarray]:
    return [render(scene, look, SEED, index) for index, scene in enumerate(scenes)]


def test_captions_count_by_day(scenes: list[Scene]) -> None:
    true = [scene.counts for scene in scenes]
    said = [parse_counts(text) for text in Captions(WEIGHTS)(data(scenes, "day"))]
    right = agreement(said, true)
    for thing in COUNTED:
        counts = np.bincount([scene[thing] for scene in true])
        commonest = [{**scene, thing: int(counts.argmax())} for scene in true]
        assert right[thing] > agreement(commonest, true)[thing] + 15, thing


@pytest.mark.parametrize("look", ["day", "night", "city-night", "aquarelle"])
def test_the_autoencoder_keeps_looks_it_saw_and_looks_it_did_not(
    scenes: list[Scene], pipeline: StableDiffusionPipeline, look: str
) -> None:
    images = torch.from_numpy(np.stack(data(scenes[:8], look))).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        back = pipeline.vae.decode(pipeline.vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    flat = images.mean((2, 3), keepdim=True).expand_as(images)
    assert float(psnr(images, back).mean()) > max(24.0, float(psnr(images, flat).mean()) + 5)


def test_style_words_set_the_light(pipeline: StableDiffusionPipeline) -> None:
    """Same noise, same content: night is dark, fog is pale, sunset is redder than it is blue."""
    prompts = [LOOKS[look].templates[0].format(caption="a street") for look in ("night", "fog", "sunset")]
    noise = [torch.Generator().manual_seed(0) for _ in prompts]
    night, fog, sunset = pipeline(
        prompts, num_inference_steps=10, guidance_scale=3.0, generator=noise, output_type="np"
    ).images
    assert night.mean() < 0.3 < 0.5 < fog.mean()
    assert sunset[..., 0].mean() > 1.3 * sunset[..., 2].mean()
    assert abs(fog[..., 0].mean() - fog[..., 2].mean()) < 0.1
