"""Stage 2: a backbone, coloured by a concept or not, becomes a perception model on the source's labels.

model = FineTuning(steps=2000)(PerceptionModel.assemble(backbone, "semantic-fpn", labels), data, rewrite.source, run)
"""

from adapt.augmentation import Augmentation
from adapt.fine_tuning import FineTuning

__all__ = ["Augmentation", "FineTuning"]
