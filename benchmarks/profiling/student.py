"""A student beside its teacher: score on the target, parameters, and images per second:

    python -m benchmarks.profiling.student mini-night --row best --seeds 0,1,2 --out runs
    python -m benchmarks.profiling.student mini-comic-detection --row best --student fasterrcnn-mobilenet-v3 --out runs

The teacher is the row's model, which `tadp-da benchmark run` left in the folder; it is trained where it is missing.
The student learns from the target's unlabelled images alone, or, with ``--labelled``, from the source's labels as well.
Speed is that of whole predictions, with resizing and the prompt's embedding and without a captioner, on images of the
target's test set; teacher and student take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapt.distillation import Distillation, DistillationSettings
from benchmarks.experiment import Experiment
from benchmarks.profiling.measure import machine, options_of, synchronize
from benchmarks.recipe import read_benchmark
from benchmarks.reports.tables import grid
from tadp_da.inference import predict
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import build_settings
from tadp_da.tasks import Measure, in_unit

BATCHES = (1, 8)
"""Images in a forward pass whose speed is measured."""
REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model at one seed.

    Attributes:
        name: teacher or student.
        measure: the main one on the target's test images.
        parameters: of the network, text encoder included.
        rates: images per second by batch.
    """

    name: str
    measure: Measure
    parameters: int
    rates: dict[int, float]


def rates(models: Sequence[PerceptionModel], images: Sequence[Any], batch: int) -> list[float]:
    """Images per second of each model on images of one size, the median over turns; the first turn does not count."""
    given = [images[i % len(images)] for i in range(batch)]
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(1 + REPEATS):
        for model, own in zip(models, seconds, strict=True):
            prompts = [model.prompt("")] * batch
            begun = time.perf_counter()
            predict(model, given, prompts)
            synchronize(model.device)
            own.append(time.perf_counter() - begun)
    return [batch / statistics.median(own[1:]) for own in seconds]


def parameters(model: PerceptionModel) -> int:
    """Numbers that the model has learned or was given."""
    return sum(p.numel() for p in model.parameters())


def compare(
    experiment: Experiment, student: str, weights: str, settings: DistillationSettings, *, labelled: bool
) -> list[Measured]:
    """Teacher and student of one row and seed."""
    teacher = experiment.adaptation(experiment.personalization()())()
    assert teacher.folder is not None  # it was loaded from there
    taught = Distillation(
        teacher=teacher.folder,
        student=student,
        weights=weights,
        data=experiment.target,
        captions=replace(experiment.captions, needed=teacher.backbone.reads_text),
        labelled=experiment.source if labelled else None,
        settings=settings,
        run=experiment.run,
    )()
    images = experiment.target.images("test")
    first = [images[i] for i in range(min(max(BATCHES), len(images)))]
    same = [image for image in first if image.size == first[0].size]
    models = [model.to(experiment.run.torch_device).eval() for model in (teacher, taught)]
    speed = {batch: rates(models, same, batch) for batch in BATCHES}
    return [
        Measured(
            name=name,
            measure=list(experiment.scoring(model)().evaluations.values())[-1].main,
            parameters=parameters(model),
            rates={batch: speed[batch][index] for batch in BATCHES},
        )
        for index, (name, model) in enumerate((("teacher", teacher), (student, taught)))
    ]


def table(found: Sequence[Sequence[Measured]]) -> str:
    """Means over seeds, as Markdown.

    Args:
        found: teacher and student of each seed.
    """
    lines, main = [], found[0][0].measure
    for models in zip(*found, strict=True):
        scores = [each.measure.value for each in models if each.measure.value is not None]
        spread = f" ± {in_unit(statistics.stdev(scores), main.unit)}" if len(scores) > 1 else ""
        mean = in_unit(statistics.mean(scores), main.unit) if scores else "-"
        speeds = [f"{statistics.mean(m.rates[batch] for m in models):.3g}" for batch in BATCHES]
        lines.append([models[0].name, f"{mean}{spread}", f"{models[0].parameters / 1e6:.2f}", *speeds])
    header = ["model", f"target {main.name}, {main.unit}", "parameters, millions"]
    return grid([*header, *(f"images/s at batch {batch}" for batch in BATCHES)], lines)


def main(arguments: list[str] | None = None) -> str:
    """Measure and return the report."""
    parser = options_of("benchmarks.profiling.student", "A student beside its teacher.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipe", help="a name of `tadp-da benchmark list`, or a YAML file")
    parser.add_argument("--row", default="best")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--student", default="lraspp-mobilenet-v3")
    parser.add_argument("--weights", default="", help="of the student; random for none")
    parser.add_argument("--labelled", action="store_true", help="learn from the source's labels too")
    parser.add_argument("--precision", default="auto", help="that of `benchmark run`, to find its models")
    parser.add_argument("--set", action="append", default=[], help="settings of the student: steps=2000")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the table's artifacts")
    given = parser.parse_args(arguments)
    recipe = read_benchmark(given.recipe).only((given.row,)).rows[given.row]
    settings = build_settings(DistillationSettings, {}, tuple(given.set), where="distill")
    found = []
    for seed in map(int, given.seeds.split(",")):
        run = Run(folder=given.out, seed=seed, device=given.device, precision=given.precision)
        experiment = Experiment(recipe, run, given.data)
        found.append(compare(experiment, given.student, given.weights, settings, labelled=given.labelled))
        print(table(found[-1:]), flush=True)
    steps = f"{settings.steps} steps of {settings.batch} images"
    return (
        f"{table(found)}\n\n{given.recipe}, row {given.row}, seeds {given.seeds}; the student: {steps}"
        f"{', with source labels' if given.labelled else ''}. Measured on {machine(given.device)}"
    )


if __name__ == "__main__":
    print(main())
