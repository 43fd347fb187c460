"""Stage 2: train a perception model, on a backbone with or without a concept, on the source's labels.

model = FineTuning(steps=2000)(PerceptionModel.assemble(backbone, "semantic-fpn", labels), data, rewrite.source, run)
"""

from adapt.augmentation import Augmentation
from adapt.fine_tuning import FineTuning

__all__ = ["Augmentation", "FineTuning"]
