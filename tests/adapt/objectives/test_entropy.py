"""Laws of entropy minimization, information maximization and denoising."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from adapt.objectives import objectives
from tadp_da.errors import UsageError
from tests.adapt.objectives.pixelwise import Pixelwise, batches, generators


def ready(name: str, **settings: Any) -> Any:
    objective = objectives[name](objectives[name].Settings(**settings))
    objective.setup(Pixelwise(), None)
    return objective


def answer(objective: Any, logits: torch.Tensor, **changed: Any) -> float:
    """The loss where the model answers with these logits ``(b, k, h, w)``."""

    class Says(Pixelwise):
        def forward(self, *_: Any) -> torch.Tensor:
            return logits

    given = batches()
    given["target"] |= changed
    (loss,) = objective(Says(), given, 0, generators()).values()
    return float(loss)


def test_entropy_is_log_k_of_a_guess_and_0_of_certainty_and_padding_is_left_out() -> None:
    objective = ready("entropy", weight=1.0)
    logits = torch.zeros(2, 3, 8, 16)
    assert answer(objective, logits) == pytest.approx(math.log(3))
    logits[:, 0, :, 8:] = 100.0
    assert answer(objective, logits) == pytest.approx(math.log(3) / 2)
    valid = torch.zeros(2, 8, 16, dtype=torch.bool)
    valid[:, :, 8:] = True
    assert answer(objective, logits, valid=valid) == pytest.approx(0.0, abs=1e-6)


def test_information_is_highest_for_sure_predictions_with_the_shares_of_the_source() -> None:
    objective = ready("information-maximization", weight=1.0)
    labels = batches()["source"]["target"]
    right = 100.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    one = torch.zeros_like(right)
    one[:, 0] = 100.0
    best, collapsed, guess = (answer(objective, each) for each in (right, one, torch.zeros_like(right)))
    assert best == pytest.approx(0.0, abs=0.01)
    assert collapsed > 0.5
    assert guess > 0.5
    assert answer(ready("entropy", weight=1.0), one) == pytest.approx(0.0, abs=1e-6), (
        "entropy alone collapses"
    )
    objective.after_step(None, 0)
    other = ready("information-maximization")
    other.load_state_dict(objective.state_dict())
    assert float(other.source.value.sum()) == 3 * labels.numel()


def test_denoising_is_the_backbones_own_loss_every_so_many_steps(fresh_model: Any) -> None:
    model, kind = fresh_model(), objectives["denoising"]
    objective = kind(kind.Settings(weight=0.5, every=3))
    objective.setup(model, None)
    assert [bool(objective.reads(step)) for step in range(5)] == [True, False, False, True, False]
    text = model.backbone.encode_text(["a car"])
    pixels = torch.rand(1, 3, 60, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1  # off the grid
    latents = model.backbone.encode_padded(pixels)
    expected = 0.5 * model.backbone.noise_loss(latents, text, [torch.Generator().manual_seed(1)]).mean()
    for batch in ({"pixels": pixels}, {"latents": latents}):
        given = {"target": [torch.Generator().manual_seed(1)]}
        found = objective(model, {"target": batch | {"text": text}}, 0, given)["denoising"]
        torch.testing.assert_close(found, expected)
    assert objective(model, {}, 1, {})["denoising"] == 0


def test_a_backbone_without_noise_cannot_denoise() -> None:
    with pytest.raises(UsageError, match="does not denoise") as caught:
        ready("denoising")
    assert "Stable Diffusion" in caught.value.fix
