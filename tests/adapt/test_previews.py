"""Predictions that a tracker sees during training, by real TensorBoard files."""

from __future__ import annotations

import dataclasses
from typing import Any

from tadp_da.run import Run
from tests.adapt.boxes import QUICK, moved, plain, state


def test_a_tracker_sees_predictions_at_each_checkpoint_and_changes_nothing(
    data_of: Any, model_of: Any, run: Run
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tuning, data = dataclasses.replace(QUICK, steps=3, checkpoint_every=2), data_of()
    watched = dataclasses.replace(run, folder=run.folder / "watched", tracker="tensorboard")
    models = [tuning(model_of(), data, plain, each) for each in (run, watched)]
    assert not moved(*map(state, models))
    logged = EventAccumulator(str(watched.folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    tags = [f"predictions/source/{i}.png" for i in (0, 2)]
    assert logged.Tags()["images"] == tags
    for tag in tags:
        assert [each.step for each in logged.Images(tag)] == [2, 3]
        assert {(each.width, each.height) for each in logged.Images(tag)} == {(128, 64)}
