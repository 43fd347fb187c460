"""Several source styles, with probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from adapt.sources import Material, Source, sources
from tadp_da.settings import Choice

if TYPE_CHECKING:
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Part(Choice):
    """A style of a mix.

    Attributes:
        name, settings: of the style.
        share: of the changed images that get it; where one style is drawn for each, its weight.
    """

    share: Share = 1.0


@sources.add("mix")
class Mix(Source):
    """Some images stay as they are; each of the others goes through the styles in turn, or through one of them."""

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """
        Attributes:
            styles: the styles, each with its settings.
            changed: share of the images that are changed.
            draw: ``"all"`` applies the styles in turn, each to its share of the images; ``"one"`` draws one of them.
        """

        styles: tuple[Annotated[Part, BeforeValidator(Part.parse)], ...] = (Part(name="strong"),)
        changed: Share = 0.5
        draw: Literal["all", "one"] = "all"

        @model_validator(mode="after")
        def _resolved(self) -> Any:
            if not self.styles or (self.draw == "one" and not sum(part.share for part in self.styles)):
                raise ValueError("no style is drawn; name at least one, with a share above 0")
            whole = tuple(part.resolved(sources, f"styles.{i}") for i, part in enumerate(self.styles))
            object.__setattr__(self, "styles", whole)
            return self

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()
        self.styles = [part.built(sources) for part in self.settings.styles]
        self.reads_target = any(style.reads_target for style in self.styles)
        self.passes = sum(style.passes for style in self.styles)
        self.identity = all(style.identity for style in self.styles)

    def prepare(self, material: Callable[[], Material]) -> None:
        for style in self.styles:
            style.prepare(material)

    def setup(self, model: PerceptionModel, images: Unlabeled, target: Unlabeled | None, run: Run) -> None:
        for style in self.styles:
            style.setup(model, images, target, run)

    def __call__(
        self, key: str, image: np.ndarray, label: Any, target: Unlabeled | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        if rng.random() >= self.settings.changed:
            return image, label
        shares = np.array([part.share for part in self.settings.styles])
        if self.settings.draw == "one":
            drawn = [int(rng.choice(len(shares), p=shares / shares.sum()))]
        else:
            drawn = np.flatnonzero(rng.random(len(shares)) < shares).tolist()
        for style, own in ((self.styles[i], rng.spawn(1)[0]) for i in drawn):
            image, label = style(key, image, label, target, own)
        return image, label
