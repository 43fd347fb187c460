"""Segmentation by a linear map of every level of the pyramid: what do the features know by themselves?"""

import torch
import torch.nn.functional as F
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from tadp_da.heads import heads
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace


@heads.add("linear-probe")
class LinearProbe(nn.Module):
    """Logits ``(b, k, h, w)``: the sum over strides of a 1x1 convolution, enlarged bilinearly."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """
        Attributes:
            use_attention: read the cross-attention maps behind the features.
        """

        use_attention: bool = True

    task = "segmentation"

    def __init__(self, spec: FeatureSpec, labels: LabelSpace, settings: Settings | None = None) -> None:
        super().__init__()
        self.labels, self.settings = labels, settings or self.Settings()
        self.use_attention = self.settings.use_attention
        widths = spec.widths(use_attention=self.use_attention)
        self.maps = nn.ModuleDict(
            {str(stride): nn.Conv2d(width, len(labels.classes), 1) for stride, width in widths.items()}
        )

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> Tensor:
        levels = pyramid.levels() if self.use_attention else pyramid.features
        logits = [self.maps[str(stride)](level) for stride, level in levels.items()]
        return torch.stack([F.interpolate(x.float(), size, mode="bilinear") for x in logits]).sum(0)

    def loss(self, raw: Tensor, targets: Tensor) -> Tensor:
        """Mean over labelled pixels, 0 when there is none."""
        total = F.cross_entropy(raw, targets, ignore_index=self.labels.ignore, reduction="sum")
        return total / (targets != self.labels.ignore).sum().clamp(min=1)

    def predict(self, raw: Tensor) -> list:
        """``uint8 (h, w)`` class ids of each image."""
        return list(raw.argmax(dim=1).to(torch.uint8).cpu().numpy())
