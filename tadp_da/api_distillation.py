"""Distillation as a function, for Python and for the command line: ``tadp_da.distill``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tadp_da import api

if TYPE_CHECKING:
    from tadp_da.perception_model import PerceptionModel


def distill(
    model: api.AnyPath,
    images: api.AnyPath,
    *,
    out: api.AnyPath,
    student: str = "lraspp-mobilenet-v3",
    weights: str = "",
    labelled: api.AnyPath | None = None,
    labels: api.AnyPath | None = None,
    sets: Sequence[str] = (),
    **options: Unpack[api._Options],
) -> PerceptionModel:
    """Train a small student on a model's predictions.

    Args:
        model: folder of the teacher, from :func:`~tadp_da.api.adapt` or of a benchmark.
        images: unlabelled target images: a folder, or the name of a registered data set.
        out: the student's folder. What is complete there is not done again.
        student: which.
        weights: that it starts from: a file, a folder, or a name that its backbone knows; ``random`` for none.
        labelled: labelled source images that it learns from besides: a folder, or a registered data set.
        labels: their labels, for a folder.
        sets: settings, such as ``steps=2000``; see :class:`adapt.distillation.DistillationSettings`.
        options: see :class:`~tadp_da.api.RunOptions`, :class:`~tadp_da.api.CaptionOptions` and
            :class:`~tadp_da.api.DataOptions`.
    """
    from adapt.distillation import Distillation, DistillationSettings
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.settings import build_settings

    run = api.open_run(Path(out).parent, options)
    teacher = PerceptionModel.load(Path(model))
    data, split = api._data(images, None, "unlabeled", run, options)
    source = None
    if labelled is not None:
        known: dict[str, Any] = {"classes": teacher.labels.classes, "ignore_index": teacher.labels.ignore}
        if teacher.labels.range:
            known["max_depth"] = teacher.labels.range[1]
        source, _ = api._data(labelled, labels, "train", run, known | {**options, "split": ""})
    needed = teacher.backbone.reads_text
    return Distillation(
        teacher=Path(model),
        student=student,
        weights=weights,
        data=data,
        split=split,
        captions=api._captions(options, teacher.captioner, teacher.labels.classes, needed=needed),
        labelled=source,
        settings=build_settings(DistillationSettings, {}, tuple(sets), where="distill"),
        run=run,
        folder=Path(out),
    )()
