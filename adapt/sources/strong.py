"""Strong changes of light and colour, blind to the target."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from adapt.sources import Source, sources
from adapt.student_views import StudentViews
from tadp_da.images import normalize

if TYPE_CHECKING:
    from tadp_da.types import Unlabeled

Share = Annotated[float, Field(ge=0, le=1)]
Reach = Annotated[float, Field(ge=0, le=3)]


@sources.add("strong")
class Strong(Source):
    """Darker and brighter, tinted, noisy, blurred, grey: one distribution of changes for every target.

    It looks at no target image, and its ranges are symmetric, so it is the baseline that methods which do look at some
    have to be compared with (ALDI, Kay et al., 2024).
    """

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
    class Settings:
        """
        Attributes:
            gamma: the logarithm of the exponent is drawn from +- this.
            gain: the logarithm of the factor on all channels is drawn from +- this.
            cast: the logarithm of a further factor on each channel is drawn from +- this.
            noise: the standard deviation of pixel noise is drawn from 0 to this share of white.
            grey: probability of losing all colour.
            view: contrast, saturation, hue and blur.
        """

        gamma: Reach = 0.9
        gain: Reach = 1.0
        cast: Reach = 0.45
        noise: Share = 0.06
        grey: Share = 0.1
        view: StudentViews = dataclasses.field(default_factory=StudentViews)

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def __call__(
        self, key: str, image: np.ndarray, label: Any, target: Unlabeled | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        chosen = self.settings
        exponent = math.exp(rng.uniform(-chosen.gamma, chosen.gamma))
        gain = rng.uniform(-chosen.gain, chosen.gain) + rng.uniform(-chosen.cast, chosen.cast, 3)
        levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None] ** exponent * np.exp(gain)
        table = (255 * levels.clip(0, 1)).round().astype(np.uint8)
        changed = np.stack([table[image[..., channel], channel] for channel in range(3)])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pixels = chosen.view(normalize(torch.from_numpy(changed))[None], [generator])[0]
        if rng.random() < chosen.grey:
            pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
        if std := 2 * chosen.noise * rng.random():
            pixels = pixels + std * torch.randn(pixels.shape, generator=generator)
        shown = (127.5 * (pixels + 1)).round().clamp(0, 255).to(torch.uint8)
        return shown.permute(1, 2, 0).contiguous().numpy(), label
