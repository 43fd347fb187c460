"""Source images without colour, some of the time: what is learned from colour does not hold at night."""

from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from adapt.sources import Source, sources


@sources.add("grey")
class Grey(Source):
    """Shows an image in shades of grey with some probability; its label stays as it is."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """
        Attributes:
            probability: of a grey image.
        """

        probability: Annotated[float, Field(ge=0, le=1)] = 0.5

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def __call__(
        self, key: str, image: np.ndarray, label: Any, target: Any, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        if rng.random() >= self.settings.probability:
            return image, label
        grey = image @ np.array([0.299, 0.587, 0.114])
        return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2), label
