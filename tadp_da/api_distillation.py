"""Distillation as a function, for Python and for the command line: ``tadp_da.distill``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tadp_da.api_options import AnyPath, StageOptions, captions_given, load_data, open_run, overrides

if TYPE_CHECKING:
    from tadp_da.perception_model import PerceptionModel


def distill(
    model: AnyPath,
    images: AnyPath,
    *,
    out: AnyPath,
    student: str = "lraspp-mobilenet-v3",
    weights: str = "",
    labelled: AnyPath | None = None,
    labels: AnyPath | None = None,
    sets: str | Sequence[str] = (),
    **options: Unpack[StageOptions],
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
        options: see :mod:`tadp_da.api_options`.
    """
    from adapt.distillation import Distillation, DistillationSettings
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.settings import build_settings

    run = open_run(Path(out).parent, options)
    teacher = PerceptionModel.load(Path(model))
    data, split = load_data(images, None, "unlabeled", run, options)
    source = None
    if labelled is not None:
        known: dict[str, Any] = {"classes": teacher.labels.classes, "ignore_index": teacher.labels.ignore}
        if teacher.labels.range:
            known["max_depth"] = teacher.labels.range[1]
        source, _ = load_data(labelled, labels, "train", run, known | {**options, "split": ""})
    needed = teacher.backbone.reads_text
    return Distillation(
        teacher=Path(model),
        student=student,
        weights=weights,
        data=data,
        split=split,
        captions=captions_given(options, teacher.captioner, teacher.labels.classes, needed=needed),
        labelled=source,
        settings=build_settings(DistillationSettings, {}, overrides(sets), where="distill"),
        run=run,
        folder=Path(out),
    )()
