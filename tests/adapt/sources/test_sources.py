"""Laws that hold for every source style."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapt.sources import Material, sources
from adapt.training_data import CaptionedImages
from tadp_da.run import Run
from tadp_da.tasks import tasks
from tadp_da.types import Labeled


def material(model: Any, labeled: Labeled, target: Any, run: Run, **changes: Any) -> Material:
    """For a style that makes images; the judge is an untrained model."""
    inputs = {"target": len(target or ())}
    given = {"prompts": labeled.captions, "judge": lambda: model, "inputs": inputs} | changes
    return Material(model=model, data=labeled, target=target, run=run, **given)


@pytest.mark.parametrize("name", sources)
def test_a_style_is_a_function_of_its_arguments_and_changes_nothing_in_place(
    name: str, fresh_model: Any, labeled: Labeled, unlabeled: CaptionedImages, quiet: Run
) -> None:
    style, model = sources[name](), fresh_model()
    assert style.settings == sources[name].Settings()
    example = labeled[0]
    for target in [unlabeled.images] if style.reads_target else [unlabeled.images, None]:
        style.prepare(lambda target=target: material(model, labeled, target, quiet))
        style.setup(model, labeled.images, target, quiet)
        image = np.array(example.image)
        size = image.shape[0], image.shape[1]
        label = tasks[model.head.task].label(example.target, size, model.head.labels, where=example.key)
        before = image.copy()
        shown, kept = style(example.key, image, label, target, np.random.default_rng(3))
        again, _ = style(example.key, image, label, target, np.random.default_rng(3))
        assert np.array_equal(image, before)
        assert np.array_equal(shown, again)
        assert (shown.dtype, shown.shape[2:]) == (np.uint8, (3,))
        assert kept.size == shown.shape[:2]
        if style.identity:
            assert np.array_equal(shown, before)
            assert kept is label
