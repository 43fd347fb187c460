"""Laws that hold for every objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adapt import Augmentation
from adapt.objectives import objectives
from adapt.training_data import CaptionedImages, PromptEmbeddings, SourceDataset, TargetDataset
from tadp_da.run import Run
from tadp_da.types import Labeled

STARTED = 1_000_000
"""A step by which every objective has begun."""


def losses(
    objective: Any, model: Any, labeled: Labeled, unlabeled: CaptionedImages, run: Run
) -> Mapping[str, Tensor]:
    """Of a step after another one with the same batch of the streams that the objective reads."""
    augment = Augmentation()
    size = model.inference.size
    text = PromptEmbeddings(model, labeled, str, run)
    target_text = PromptEmbeddings(model, unlabeled, str, run)
    streams: dict[str, Any] = {
        "source": SourceDataset(labeled, model.head, text, size, augment),
        "target": TargetDataset(unlabeled.images, target_text, size, augment),
    }
    batches = {}
    for stream in objective.streams:
        dataset = streams[stream]
        batches[stream] = dataset.collate([dataset.fetch(i, np.random.default_rng(i)) for i in range(2)])
    objective.setup(model, run)
    found: Mapping[str, Tensor] = {}
    for step in (STARTED - 1, STARTED):
        assert objective.reads(step) <= objective.streams
        generators = {name: [torch.Generator().manual_seed(i) for i in range(2)] for name in batches}
        found = objective(model, batches, step, generators)
        assert all(isinstance(value, float) for value in objective.facts().values())
        objective.after_step(model, step)
    return dict(found)


@pytest.mark.parametrize("name", objectives)
def test_losses_are_finite_scalars_with_a_gradient_and_a_function_of_the_generators(
    name: str,
    fresh_model: Any,
    detector: Any,
    labeled: Labeled,
    boxed: Labeled,
    unlabeled: CaptionedImages,
    quiet: Run,
) -> None:
    model = fresh_model()
    if objectives[name].tasks == {"detection"}:
        model, labeled = detector(), boxed
    model.backbone.eval()
    model.head.train()
    first = losses(objectives[name](), model, labeled, unlabeled, quiet)
    torch.manual_seed(1)  # the global stream must not matter, nor be moved
    before = torch.random.get_rng_state()
    again = losses(objectives[name](), model, labeled, unlabeled, quiet)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first
    assert first.keys() == again.keys()
    for key, loss in first.items():
        assert loss.shape == ()
        assert torch.isfinite(loss)
        assert torch.equal(loss, again[key])
    model.zero_grad()
    sum(first.values(), torch.zeros(())).backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


@pytest.mark.parametrize("name", objectives)
def test_streams_are_known_and_settings_have_defaults(name: str) -> None:
    objective = objectives[name]()
    assert objective.streams
    assert objective.streams <= {"source", "target"}
    assert objective.settings == objectives[name].Settings()
    objective.load_state_dict(objective.state_dict())


def test_the_supervised_loss_takes_its_weight(
    fresh_model: Any, labeled: Labeled, unlabeled: CaptionedImages, quiet: Run
) -> None:
    model, kind = fresh_model(), objectives["supervised"]
    one, half = (
        losses(kind(kind.Settings(weight=weight)), model, labeled, unlabeled, quiet)["supervised"]
        for weight in (1.0, 0.5)
    )
    torch.testing.assert_close(half, 0.5 * one)
