from __future__ import annotations

import numpy as np
import pytest
import torch

from tadp_da.errors import UsageError
from tadp_da.noising import Noising, noise_loss, normal

EPSILON = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
V = EPSILON | {"prediction_type": "v_prediction"}
ZERO_SNR = V | {"rescale_betas_zero_snr": True}


def _signal(config: dict) -> np.ndarray:
    """abar_t by the book (Lin et al. 2024 for zero terminal SNR)."""
    betas = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000) ** 2
    root = np.sqrt(np.cumprod(1 - betas))
    if config.get("rescale_betas_zero_snr"):
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2


def _draw(count: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(count, 4, 8, 8, generator=generator) for _ in range(2))
    return clean, noise, torch.tensor([0, 1, 500, 999])[:count]


@pytest.mark.parametrize("config", [EPSILON, V, ZERO_SNR], ids=["epsilon", "v", "zero-snr"])
def test_forward_process_agrees_with_a_numpy_reference(config):
    clean, noise, steps = _draw()
    signal = torch.tensor(_signal(config)[steps.numpy()], dtype=torch.float32).view(-1, 1, 1, 1)
    expected = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    torch.testing.assert_close(Noising(config).add_noise(clean, noise, steps), expected, atol=2e-4, rtol=1e-3)


def test_epsilon_target_is_the_noise():
    clean, noise, steps = _draw()
    assert torch.equal(Noising(EPSILON).target(clean, noise, steps), noise)


@pytest.mark.parametrize("config", [V, ZERO_SNR], ids=["v", "zero-snr"])
def test_clean_latents_come_back_from_noisy_ones_and_v(config):
    clean, noise, steps = _draw()
    noising = Noising(config)
    signal = torch.tensor(_signal(config)[steps.numpy()], dtype=torch.float32).view(-1, 1, 1, 1)
    noisy, v = noising.add_noise(clean, noise, steps), noising.target(clean, noise, steps)
    torch.testing.assert_close(signal.sqrt() * noisy - (1 - signal).sqrt() * v, clean, atol=1e-3, rtol=1e-3)


def test_at_zero_terminal_snr_nothing_is_left_and_v_asks_for_the_image():
    clean, noise, _ = _draw(1)
    noising, last = Noising(ZERO_SNR), torch.tensor([999])
    torch.testing.assert_close(noising.add_noise(clean, noise, last), noise)
    torch.testing.assert_close(noising.target(clean, noise, last), -clean)


@pytest.mark.parametrize("config", [EPSILON, V, ZERO_SNR], ids=["epsilon", "v", "zero-snr"])
def test_a_perfect_prediction_costs_nothing(config):
    noising = Noising(config)
    clean, _, _ = _draw()

    def perfect(noisy, timesteps, text):
        noise = normal(clean.shape, _replayed())
        return noising.target(clean, noise, timesteps)

    def _replayed():
        generators = _generators()
        noising.timesteps(4, generators)
        return generators

    loss = noise_loss(perfect, noising, clean, torch.zeros(4, 77, 8), _generators())
    assert loss.shape == (4,)
    assert loss.abs().max() == 0
    assert noise_loss(lambda x, t, c: torch.zeros_like(x), noising, clean, clean, _generators()).min() > 0.1


def _generators(count: int = 4) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + i) for i in range(count)]


def test_the_noise_of_a_sample_does_not_depend_on_its_batch():
    clean, _, _ = _draw()
    noising = Noising(EPSILON)
    seen = []

    def spy(noisy, timesteps, text):
        seen.append((noisy, timesteps))
        return noisy

    noise_loss(spy, noising, clean, clean, _generators())
    noise_loss(spy, noising, clean[2:3], clean, _generators()[2:3])
    assert torch.equal(seen[0][0][2:3], seen[1][0])
    assert torch.equal(seen[0][1][2:3], seen[1][1])
    assert seen[0][1].unique().numel() > 1


def test_one_generator_serves_a_whole_batch_with_different_noise():
    noise = normal((3, 4, 8, 8), torch.Generator().manual_seed(0))
    assert not torch.equal(noise[0], noise[1])


def test_timesteps_cover_the_whole_range():
    drawn = Noising(EPSILON).timesteps(5000, torch.Generator().manual_seed(0))
    assert drawn.min() < 5
    assert drawn.max() > 994
    assert abs(drawn.float().mean() - 499.5) < 15


@pytest.mark.parametrize("config", [EPSILON, V, ZERO_SNR], ids=["epsilon", "v", "zero-snr"])
def test_min_snr_weights_follow_the_paper(config):
    steps = torch.tensor([0, 10, 500, 998])
    signal = _signal(config)[steps.numpy()]
    snr = signal / (1 - signal)
    expected = np.minimum(snr, 5) / (snr if config is EPSILON else snr + 1)
    found = Noising(config).weight(steps, 5.0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-2, atol=1e-6)
    assert Noising(config).weight(torch.tensor([999]), 5.0).isfinite().all()


def test_min_snr_scales_each_sample():
    clean, _, _ = _draw()
    noising = Noising(EPSILON)
    plain, weighted = (
        noise_loss(lambda x, t, c: x, noising, clean, clean, _generators(), min_snr=g) for g in (None, 5.0)
    )
    steps = torch.cat([noising.timesteps(1, g) for g in _generators()])
    torch.testing.assert_close(weighted, plain * noising.weight(steps, 5.0))


def test_what_cannot_be_trained_is_refused_with_advice():
    with pytest.raises(UsageError, match="v_prediction") as caught:
        Noising(EPSILON | {"rescale_betas_zero_snr": True})
    assert "rescale_betas_zero_snr" in caught.value.fix
    with pytest.raises(UsageError, match="epsilon or v"):
        Noising(EPSILON | {"prediction_type": "sample"})
    with pytest.raises(UsageError, match=r"one torch\.Generator per sample"):
        normal((3, 1), _generators(2))
