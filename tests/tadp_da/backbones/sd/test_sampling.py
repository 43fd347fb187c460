from __future__ import annotations

import numpy as np
import pytest
import torch

from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.errors import DataError, UsageError

V_ZERO = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def _difference(one, other) -> float:
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).max())


def test_an_image_is_a_function_of_its_prompt_its_place_and_the_seed(backbone):
    prompts = ["a street", "a night street"]
    first = backbone.sample(prompts, seed=1, steps=2)
    assert [image.size for image in first] == [(64, 64)] * 2
    again, other = backbone.sample(prompts, seed=1, steps=2), backbone.sample(prompts, seed=2, steps=2)
    alone = backbone.sample(prompts[:1], seed=1, steps=2)
    assert _difference(first[0], again[0]) == 0
    assert _difference(first[0], alone[0]) <= 1
    assert _difference(first[0], other[0]) > 5
    assert _difference(first[0], first[1]) > 5


def test_more_prompts_than_fit_at_once(backbone):
    images = backbone.sample(["a street"] * 9, seed=0, steps=1)
    assert len(images) == 9
    assert _difference(images[0], images[8]) > 5


def test_size_is_height_by_width_on_the_grid(backbone):
    assert backbone.sample(["a"], seed=0, steps=1, size=(32, 96))[0].size == (96, 32)
    with pytest.raises(UsageError, match="multiples of 32"):
        backbone.sample(["a"], seed=0, steps=1, size=(40, 96))


def test_a_prompt_over_the_limit_is_not_cut(backbone):
    with pytest.raises(DataError, match="shorten the caption"):
        backbone.sample(["car " * 80], seed=0, steps=1)


def test_velocity_models_of_zero_terminal_snr_train_and_draw(backbone):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(backbone.scheduler.config, **V_ZERO)
    model = StableDiffusion(backbone.unet, backbone.vae, backbone.text_encoder, backbone.tokenizer, scheduler)
    latents = model.encode_image(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    loss = model.noise_loss(latents, model.encode_text(["a", "a car"]), generators, min_snr=5.0)
    loss.mean().backward()
    assert loss.shape == (2,)
    assert model.unet.conv_out.weight.grad.abs().max() > 0
    assert np.isfinite(np.asarray(model.sample(["a"], seed=0, steps=2)[0], dtype=float)).all()


def test_noise_loss_is_that_of_the_batch_taken_apart(backbone):
    latents = backbone.encode_image(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    text = backbone.encode_text(["a", "a car"])

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(i) for i in range(2)]

    with torch.no_grad():
        both = backbone.noise_loss(latents, text, generators())
        alone = backbone.noise_loss(latents[1:], text[1:], generators()[1:])
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)
