"""The figure: personalize on unlabelled target images, adapt on labelled source images, score on the target.

Three stages in the paper's order (Kondapaneni et al., CVPR 2024, section 4). Each makes its artifact once and meets the
others only through it; ``experiment.py`` says what each is given.
"""

from __future__ import annotations

from benchmarks.evaluate import Report
from benchmarks.experiment import Experiment


def reproduce(experiment: Experiment) -> Report:
    """One row of a table at one seed.

    Returns:
        Scores on the test images of source and target.
    """
    concept = experiment.personalization()()
    model = experiment.adaptation(concept)()
    return experiment.scoring(model)()
