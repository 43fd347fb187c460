"""What heads of depth share: metres from the last layer, loss and prediction."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tadp_da.errors import UsageError
from tadp_da.types import LabelSpace


class MetricDepth:
    """Raw outputs are metres ``float32 (b, 1, h, w)`` between 0 and the end of the label space's range."""

    task = "depth"

    def accept(self, labels: LabelSpace) -> None:
        """Keep the label space.

        Raises:
            UsageError: when it is not of depth, or states no range.
        """
        if labels.task != self.task or labels.range is None:
            raise UsageError(
                f"{type(self).__name__} cannot read {labels.task} labels with the range {labels.range}",
                fix="give depth labels with a range such as 0.001 to 10 m",
            )
        self.labels, (self.nearest, self.furthest) = labels, labels.range

    def metres(self, x: Tensor) -> Tensor:
        """The furthest depth times the sigmoid of the last layer (AdaBins' successors; TADP's code)."""
        return self.furthest * x.float().sigmoid()

    def loss(self, raw: Tensor, targets: Tensor) -> Tensor:
        """Scale-invariant logarithmic loss (Eigen et al., 2014; weight 0.5) against metres ``(b, h, w)``, 0 where
        unknown: the root of mean(d^2) - 0.5 mean(d)^2 over the known pixels of the batch, d the difference of the
        logarithms; zero when there is none."""
        counted = (targets > self.nearest) & (targets < self.furthest)
        if not counted.any():
            return 0 * raw.sum()
        d = raw[:, 0][counted].clamp(min=1e-6).log() - targets[counted].log()
        # the root has no slope at 0
        return (d.square().mean() - 0.5 * d.mean().square()).clamp(min=1e-12).sqrt()

    @torch.no_grad()
    def predict(self, raw: Tensor) -> list[np.ndarray]:
        """Metres: one ``float32 (h, w)`` array per image."""
        return list(raw[:, 0].float().cpu().numpy())
