"""Stage 1 as every command runs it: a concept is learned once per set of images, method and base model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from personalize import Personalizer, personalizers
from personalize.training import PICTURE
from tadp_da.base_model import BaseModel
from tadp_da.captions.provider import CaptionProvider
from tadp_da.concept import Concept
from tadp_da.datasets import DataSource
from tadp_da.distributed.processes import is_main
from tadp_da.model_card import write_card
from tadp_da.provenance import digests, write_provenance
from tadp_da.run import Run
from tadp_da.settings import Choice
from tadp_da.storage.files import digest
from tadp_da.tracking import log_images
from tadp_da.types import Unlabeled


@dataclass(frozen=True, kw_only=True)
class Personalization:
    """Learn a concept from unlabelled images. Call it.

    Attributes:
        method: which personalizer, and its settings.
        base: the model that it is learned on.
        data: the images.
        split: which of them.
        captions: captions of the images, for methods whose templates hold ``{caption}``.
        run: seed, device, precision, and the folder for artifacts.
        folder: where the concept is to be, instead of a name in the run's folder.
    """

    method: Choice
    base: BaseModel
    data: DataSource
    captions: CaptionProvider
    run: Run
    split: str = "unlabeled"
    folder: Path | None = None

    @cached_property
    def personalizer(self) -> Personalizer:
        """The method with its settings."""
        found: Personalizer = personalizers[self.method.name](**self.method.settings)
        return found

    @cached_property
    def _images(self) -> Unlabeled:
        if self.personalizer.needs_images:
            return self.data.images(self.split)
        return Unlabeled(domain=self.data.domain.name, root=self.data.root, paths=())

    @cached_property
    def _captions(self) -> dict[str, str] | None:
        if not self.personalizer.needs_captions:
            return None
        return self.captions(self._images, self.split, self.run)

    def inputs(self) -> dict[str, Any]:
        """What the concept depends on, as JSON values."""
        texts = (
            [self._captions[self._images.key(i)] for i in range(len(self._images))] if self._captions else []
        )
        return self.base.facts(self.run, features=False) | {
            "method": self.method.key(personalizers),
            "images": self.data.digest(self.split, labels=False) if self.personalizer.needs_images else "",
            "captions": digest(json.dumps(texts).encode()) if texts else "",
        }

    def __call__(self) -> Concept:
        """The concept: found when it was made before, learned otherwise."""

        def make(folder: Path) -> None:
            backbone, known = self.base.load(), digests(self._images)
            origin = backbone.origin
            concept = self.personalizer(
                backbone.to(self.run.torch_device), self._images, self.run.inside(folder), self._captions
            )
            if is_main():
                log_images(self.run.tracker, folder, {"before and after": folder / PICTURE})
                concept.save(folder)
                write_provenance(folder, origin, known)
                write_card(folder)

        return self.run.get_or_create(
            "concept",
            self.inputs(),
            make,
            Concept.load,
            folder=self.folder,
            may_change=("method.settings.steps",),
        )
