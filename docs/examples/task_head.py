"""A head for the task of ``task.py``: the mean of the coarsest features, mapped to a logit per class."""

import numpy as np
import torch.nn.functional as F
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from tadp_da.heads import heads
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace


@heads.add("pooled-linear")
class PooledLinear(nn.Module):
    """Logits ``(b, k)``."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """There are none."""

    task = "presence"
    use_attention = False

    def __init__(self, spec: FeatureSpec, labels: LabelSpace, settings: Settings | None = None) -> None:
        super().__init__()
        self.labels, self.settings = labels, settings or self.Settings()
        self.stride = max(spec.channels)
        self.classify = nn.Linear(spec.channels[self.stride], len(labels.classes))

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> Tensor:
        return self.classify(pyramid.features[self.stride].mean(dim=(2, 3)))

    def loss(self, raw: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(raw.float(), targets)

    def predict(self, raw: Tensor) -> list[np.ndarray]:
        return list((raw > 0).cpu().numpy())
