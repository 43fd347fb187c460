"""The figure: personalize on unlabelled target images, adapt on labelled source images, score on the target.

Three calls in the paper's order (Kondapaneni et al., CVPR 2024, section 4); each makes its artifact once and meets the
others only through it. Read ``stages.py`` for where inputs come from.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.recipe import Recipe
from benchmarks.results import Report
from benchmarks.stages import Stages
from tadp_da.concept import Concept
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run


def adapted(stages: Stages) -> tuple[Concept, PerceptionModel]:
    """The first two calls: a concept of the target, and a model that was trained with it on the source."""
    run = stages.run
    concept = run.get_or_create("concept", stages.concept_inputs(), stages.personalize, Concept.load)
    model = run.get_or_create(
        "model", stages.model_inputs(concept), stages.adapt(concept), PerceptionModel.load
    )
    return concept, model


def reproduce(recipe: Recipe, run: Run, data: Path) -> Report:
    """One row of a table at one seed.

    Args:
        recipe: what to do.
        run: where artifacts go, seed and device.
        data: folder that the registry's domains are looked for in.

    Returns:
        Scores on the source's test images and on the target's.
    """
    stages = Stages(recipe, run, data)
    concept, model = adapted(stages)
    return run.get_or_create(
        "report", stages.report_inputs(concept), stages.evaluate(concept, model), Report.load
    )
