"""An experiment: one recipe at one seed, with the inputs of its three stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from adapt.stage import Adaptation, reads_target
from benchmarks.recipe import Recipe
from benchmarks.scoring import Scoring, TestSet
from personalize import personalizers
from personalize.stage import Personalization
from tadp_da.base_model import BaseModel
from tadp_da.captions.files import CaptionFile
from tadp_da.captions.loading import identity
from tadp_da.captions.provider import CaptionProvider
from tadp_da.captions.rewrite import Rewrite
from tadp_da.concept import Concept
from tadp_da.datasets import DataSource, resolve
from tadp_da.domains import domains
from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.registry import nearest
from tadp_da.run import Run
from tadp_da.storage.files import file_digest, folder_digest
from tadp_da.types import Side


class Experiment:
    """What the stages of a recipe are given.

    Args:
        recipe: what to do.
        run: where artifacts go, seed and device.
        data: folder of the registered domains.
    """

    def __init__(self, recipe: Recipe, run: Run, data: Path) -> None:
        self.recipe, self.run = recipe, run
        source = resolve(recipe.source, data, recipe.limit)
        target = source if recipe.target is None else resolve(recipe.target, data, recipe.limit)
        needed: dict[Side, list[str]] = {"source": ["test"], "target": ["test"]}
        needed[recipe.train_on].append("train")
        few = recipe.target_labelled.images if recipe.target_labelled else None
        if isinstance(few, int):
            needed["target"].append("train")
        # what is skipped must be skipped for every row: each notes the content of all splits
        if self.reads_unlabeled or (run.skip_bad and "unlabeled" in target.domain.splits):
            needed["target"].append("unlabeled")
        self.source = source.checked(needed["source"], run)
        self.target = self.source if recipe.target is None else target.checked(needed["target"], run)
        self.target = self.target.part(recipe.held_out or 0, held_out=False)
        self.labelled_target: DataSource | None = None
        if isinstance(few, int):
            fewer = min(few, recipe.limit or few)
            self.labelled_target = self.target.subsample(fewer, run.seed, "train", "target_labelled")
        elif few is not None:
            self.labelled_target = resolve(few, data, recipe.limit).checked(["train"], run)
        self.training_data = self.target if recipe.train_on == "target" else self.source
        self.base = BaseModel(backbone=recipe.backbone, model=recipe.model)

    @property
    def _sides(self) -> dict[str, DataSource]:
        return {"source": self.source} | ({"target": self.target} if self.recipe.target is not None else {})

    @property
    def _adaptation_reads_target(self) -> bool:
        return reads_target(self.recipe.objectives, self.recipe.source_style)

    @property
    def reads_unlabeled(self) -> bool:
        """Whether a stage reads unlabelled images of the target."""
        personalizer = personalizers[self.recipe.personalize.name]
        return bool(personalizer.needs_images) or self._adaptation_reads_target

    @cached_property
    def unlabeled(self) -> DataSource:
        """The target with as many unlabelled images as the recipe learns from."""
        asked = self.recipe.target_images
        wanted = None if asked is None else min(asked, self.recipe.limit or asked)
        return self.target.subsample(wanted, self.run.seed)

    @cached_property
    def captions(self) -> CaptionProvider:
        """Captions of both domains.

        Raises:
            UsageError: when the recipe names the file of a split that no domain has.
        """
        known = [self.source, self.target, *([self.labelled_target] if self.labelled_target else [])]
        used = [f"{s.domain.name}/{split}" for s in known for split in s.domain.splits]
        for name, path in self.recipe.caption_files.items():
            if name not in used:
                raise UsageError(
                    f"no captions are read for {name!r}{nearest(name, used)}",
                    where="caption_files",
                    fix=f"choose from: {', '.join(used)}",
                )
            CaptionFile.read(path)
        return CaptionProvider(
            captioner=self.recipe.captioner,
            settings=self.recipe.captions,
            files=self._true_captions() | self.recipe.caption_files,
            cleaned=[self.target.domain.name] if self.recipe.clean_target else [],
            shuffled=self.recipe.caption_source == "shuffled",
            scenes=self._scenes(),
        )

    def _scenes(self) -> dict[str, Callable[[Path], str]]:
        """How the data sets name the scenes of images, if the recipe asks for these instead of captions."""
        if self.recipe.caption_source != "scene":
            return {}
        found = {}
        for data in {self.source.domain.name: self.source, self.target.domain.name: self.target}.values():
            if data.domain.scene is None:
                having = ", ".join(name for name in domains if domains[name].scene)
                raise UsageError(
                    f"the images of {data.domain.name!r} are not sorted by scene",
                    where="caption_source",
                    fix=f"omit caption_source, or use one of: {having}",
                )
            found[data.domain.name] = data.domain.scene
        return found

    def _true_captions(self) -> dict[str, Path]:
        """Caption files that come with the data sets, if the recipe asks for them."""
        if self.recipe.caption_source != "dataset":
            return {}
        found = {}
        for data in (self.source, self.target):
            if data.domain.captions is None:
                having = [name for name in domains if domains[name].captions]
                raise UsageError(
                    f"the data set {data.domain.name!r} comes without captions",
                    where="caption_source",
                    fix=f"use caption_source: captioner, or one of: {', '.join(having)}",
                )
            for split in data.domain.splits:
                found[f"{data.domain.name}/{split}"] = data.domain.captions(data.root, split)
        return found

    def personalization(self) -> Personalization:
        """Stage 1."""
        return Personalization(
            method=self.recipe.personalize,
            base=self.base,
            data=self.unlabeled,
            captions=self.captions,
            run=self.run,
        )

    def _used(self, concept: Concept) -> Concept:
        """The part of the concept that the recipe uses."""
        parts: Mapping[str, Callable[[], Concept]] = {
            "all": lambda: concept,
            "word": concept.only_word,
            "weights": concept.only_weights,
        }
        return parts[self.recipe.concept]()

    def rewrite(self, concept: Concept) -> Rewrite:
        """The recipe's caption strategy with the concept's word."""
        labels = self.training_data.domain.labels
        return Rewrite(
            strategy=self.recipe.strategy,
            side=self.recipe.sides,
            source_description=self.source.domain.description,
            target_description=self.target.domain.description,
            word=self._used(concept).prompt_word,
            classes=labels.classes if labels else (),
            clean=self.recipe.clean_target,
        )

    def adaptation(self, concept: Concept) -> Adaptation:
        """Stage 2."""
        return Adaptation(
            base=self.base,
            concept=self._used(concept),
            pretrained=self.recipe.pretrained,
            data=self.training_data,
            captions=self.captions,
            rewrite=self.rewrite(concept),
            side=self.recipe.train_on,
            head=self.recipe.head,
            text_adapter=self.recipe.text_adapter,
            inference=self.recipe.inference,
            objectives=self.recipe.objectives,
            source_style=self.recipe.source_style,
            tuning=self.recipe.adapt,
            unlabeled=self.target if self._adaptation_reads_target else None,
            labelled_target=self.labelled_target,
            labelled_share=self.recipe.target_labelled.share if self.recipe.target_labelled else None,
            run=self.run,
        )

    def scoring(self, model: PerceptionModel) -> Scoring:
        """Stage 3, on the test images of every domain whose test images are labelled."""
        sides = {"test": self.source} if self.recipe.target is None else self._sides
        writers = {"source": model.rewrite.source}
        return Scoring(
            model=model,
            tests={
                name: TestSet(data=data, write=writers.get(name, model.rewrite.target))
                for name, data in sides.items()
                if data.has("test")
            },
            captions=self.captions,
            settings=self.recipe.evaluate,
            run=self.run,
        )

    def facts(self) -> dict[str, Any]:
        """What the numbers depend on that the recipe does not hold: precision, and digests of files."""
        data = {f"{self.recipe.train_on}/train": self.training_data.digest("train")}
        if (few := self.recipe.target_labelled) and self.labelled_target:
            whole = self.target if isinstance(few.images, int) else self.labelled_target
            data["target/train" if whole is self.target else "target_labelled/train"] = whole.digest("train")
        for side, found in self._sides.items():
            # also where a row reads none of them: every row of a table has the same target
            if side == "target" and "unlabeled" in found.domain.splits:
                data["target/unlabeled"] = found.digest("unlabeled", labels=False)
            if found.has("test"):
                data[f"{side}/test"] = found.digest("test", names=True)
        files = {
            name: folder_digest(path) if path.is_dir() else file_digest(path)
            for name, path in self.recipe.caption_files.items()
        }
        return {
            "precision": self.run.precision,
            "caption_files": files,
            "weights": self.base.fingerprint,
            "captioner": identity(self.recipe.captioner),
            "data": data,
        }
