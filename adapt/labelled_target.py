"""A few labelled images of the target beside those of the source, for people who can afford to label some."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from adapt.batches import Sample, collate
from adapt.training_data import SourceDataset, common_size, sizes_of
from tadp_da.custom_dataset import CustomDataset
from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import STRICT
from tadp_da.types import Labeled

Share = Annotated[float, Field(gt=0, lt=1)]


@settings(frozen=True, kw_only=True, config=STRICT)
class TargetLabelled:
    """Labelled target images that join the supervised stream; a bare number stands for :attr:`images`.

    Attributes:
        images: how many of the target's labelled training images, drawn by the seed; or a folder of your own.
        share: of them among all labelled images that a training sees.
    """

    images: Annotated[int, Field(ge=1)] | CustomDataset
    share: Share = 0.5

    @classmethod
    def parse(cls, value: Any) -> Any:
        """What pydantic is to validate: ``5`` means ``{"images": 5}``."""
        return {"images": value} if isinstance(value, int) else value


def with_labels(images: str | Path | None, labels: str | Path | None) -> Path:
    """The folder of labelled target images, refused without its labels, as they are without it."""
    if images is None or (labels is None and Path(images).is_dir()):
        raise UsageError(
            "labelled target images and their labels go together",
            fix="give both: --target-labelled FOLDER --target-labels PATH",
        )
    return Path(images)


@dataclass(frozen=True)
class LabelledTarget:
    """Labelled, captioned target images, and their share of the samples."""

    data: Labeled
    share: float


@dataclass
class JoinedDataset:
    """Labelled images of source and target as one data set. Each image occurs at least once an epoch, and as often as
    makes ``share`` of the samples the target's.

    Attributes:
        parts: source and target.
        share: of the target.
        even: pad images of several sizes to the largest of both.
    """

    parts: tuple[SourceDataset, SourceDataset]
    share: float
    _: KW_ONLY
    even: bool

    def __post_init__(self) -> None:
        if self.even and self.parts[0].augment.crop is None:
            common = common_size({size for part in self.parts for size in sizes_of(part.images, part.size)})
            for part in self.parts:
                part.common = common

    @property
    def text(self) -> Any:
        """Embeddings of the prompts of both, and their rows."""
        first, second = (part.text for part in self.parts)
        rows = [*first.rows, *(row + len(first.embeddings) for row in second.rows)]
        return SimpleNamespace(embeddings=torch.cat([first.embeddings, second.embeddings]), rows=rows)

    def _counts(self) -> tuple[int, int]:
        """Samples of each part in an epoch."""
        source, target = map(len, self.parts)
        total = max(source / (1 - self.share), target / self.share)
        return round(total * (1 - self.share)), round(total * self.share)

    def _at(self, index: int) -> tuple[SourceDataset, int]:
        source, _ = self._counts()
        part, index = (self.parts[0], index) if index < source else (self.parts[1], index - source)
        return part, index % len(part)

    def __len__(self) -> int:
        return sum(self._counts())

    def key(self, index: int) -> str:
        """Key of the image of sample ``index``."""
        part, index = self._at(index)
        return part.key(index)

    def fetch(self, index: int, rng: np.random.Generator) -> Sample:
        """See :meth:`ImageDataset.fetch`."""
        part, index = self._at(index)
        return part.fetch(index, rng)

    def cache_images(self, gigabytes: float, run: Run) -> None:
        """See :meth:`ImageDataset.cache_images`."""
        for part in self.parts:
            part.cache_images(gigabytes, run)

    def cache_latents(self, model: PerceptionModel, gigabytes: float, run: Run) -> None:
        """See :meth:`ImageDataset.cache_latents`; of both or of neither, as a batch has one form."""
        for part in self.parts:
            part.cache_latents(model, gigabytes, run)
            if not part.latents:
                break
        if not all(part.latents for part in self.parts):
            self.parts[0].latents.clear()

    collate = staticmethod(collate)
