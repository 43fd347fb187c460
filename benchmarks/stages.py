"""What the three calls of the figure need: fresh backbones, captioned domains, and what each artefact depends on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.evaluate import Evaluation, Report, evaluate, refuse_overlap
from benchmarks.recipe import OwnData, Recipe
from tadp_da.backbones import backbones
from tadp_da.captions.captioner import Captioner, caption_images
from tadp_da.captions.files import CaptionFile
from tadp_da.captions.rewrite import Rewrite, fit
from tadp_da.concept import Concept
from tadp_da.domains import Domain, domains
from tadp_da.domains.folder import folder_domain
from tadp_da.domains.preflight import preflight
from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run, file_digest
from tadp_da.types import Unlabeled

_READ: dict[Any, str] = {}


@dataclass(frozen=True)
class Placed:
    """A domain and the root its files lie under."""

    domain: Domain
    root: Path

    def images(self, split: str) -> Unlabeled:
        """The images of a split."""
        return self.domain.unlabeled(self.root, split)

    def contents(self, split: str, *, labels: bool = True) -> str:
        """One digest over the keys and bytes of the images of a split and, where it has them, over its labels."""
        images, label = self.images(split), self.domain.label if labels else None
        # every row of a table asks for the same folders: read again only when a time stamp or a size has changed
        stamps = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in images.paths)
        known = (self.domain.name, split, labels, stamps)
        if known not in _READ:
            parts = [
                f"{images.key(i)}:{file_digest(path)}:{digest(label(path).tobytes()) if label else ''}"
                for i, path in enumerate(images.paths)
            ]
            _READ[known] = digest("\n".join(parts).encode())
        return _READ[known]

    def checked(self, splits: Sequence[str], run: Run) -> Placed:
        """The same after a look at every file of those of these splits that the domain has."""
        used = [s for s in splits if s in self.domain.splits and (s == "unlabeled" or self.has(s))]
        return replace(self, domain=preflight(self.domain, self.root, used, run)) if used else self

    def has(self, split: str) -> bool:
        """Whether the split exists and is labelled."""
        return split in self.domain.splits and self.domain.labels is not None


def place(choice: str | OwnData, data: Path, limit: int | None = None) -> Placed:
    """A registered domain under the data root, or the user's own folders under their common parent.

    Args:
        choice: which domain.
        data: root of the registry's domains.
        limit: only the first so many images of every split.
    """
    placed = _place(choice, data)
    listed = placed.domain.images
    if limit is None:
        return placed
    return Placed(replace(placed.domain, images=lambda root, split: listed(root, split)[:limit]), placed.root)


def _place(choice: str | OwnData, data: Path) -> Placed:
    if isinstance(choice, str):
        return Placed(domains[choice], data)
    train = "train" if choice.masks else "unlabeled"
    images = {train: choice.images} | ({"test": choice.test_images} if choice.test_images else {})
    masks = {"train": choice.masks} if choice.masks else {}
    masks |= {"test": choice.test_masks} if choice.test_masks else {}
    domain = folder_domain(
        choice.name,
        images=images,
        masks=masks,
        classes=choice.classes,
        ignore=choice.ignore,
        words=choice.words,
    )
    root = Path(os.path.commonpath([os.path.abspath(path) for path in images.values()]))
    return Placed(domain, root)


class Stages:
    """One recipe at one seed.

    Args:
        recipe: what to do.
        run: where artefacts go, seed and device.
        data: folder that the registry's domains are looked for in.
    """

    def __init__(self, recipe: Recipe, run: Run, data: Path) -> None:
        self.recipe, self.run = recipe, run
        learned = ["train"] if recipe.train_on == "target" else []
        self.source = place(recipe.source, data, recipe.limit).checked(
            ["test"] if learned else ["train", "test"], run
        )
        self.target = place(recipe.target, data, recipe.limit).checked([*learned, "unlabeled", "test"], run)
        # the supervised ceiling trains on labels of the target itself
        self.taught = self.target if recipe.train_on == "target" else self.source
        self.plain = recipe.as_json()

    @cached_property
    def backbone_fingerprint(self) -> str:
        """Fingerprint of the base model, whose weights are the same for every row."""
        return self._backbone().fingerprint

    def _backbone(self) -> Any:
        return backbones["stable-diffusion"].from_pretrained(self.recipe.model, self.recipe.backbone)

    def _base(self) -> dict[str, Any]:
        keys = ("model", "backbone")
        return {
            "fingerprint": self.backbone_fingerprint,
            "seed": self.run.seed,
            "precision": self.run.precision,
        } | {k: self.plain[k] for k in keys}

    # -- captions

    def captions(self, placed: Placed, split: str) -> Mapping[str, str]:
        """Captions of a split, made once per set of images and captioner."""
        images = placed.images(split)
        inputs = {"images": placed.contents(split, labels=False)} | {
            k: self.plain[k] for k in ("captioner", "captions")
        }

        def make(folder: Path) -> None:
            captioner = Captioner.from_pretrained(
                self.recipe.captioner, self.recipe.captions, self.run.torch_device
            )
            caption_images(images, captioner, folder / "captions.json", self.run)

        return self.run.once(
            "captions", inputs, make, lambda f: CaptionFile.read(f / "captions.json").lookup(images)
        )

    def rewrite(self, concept: Concept) -> Rewrite:
        """The recipe's caption strategy with the concept's word."""
        labels = self.taught.domain.labels
        return Rewrite(
            strategy=self.recipe.strategy,
            side=self.recipe.sides,
            source_words=self.source.domain.words,
            target_words=self.target.domain.words,
            word=concept.prompt_word,
            classes=labels.classes if labels else (),
        )

    # -- stage 1

    def concept_inputs(self) -> dict[str, Any]:
        """What the concept depends on."""
        images = self.target.contents("unlabeled", labels=False)
        keys = (
            ("personalize", "captioner", "captions")
            if self.recipe.personalize.needs_captions
            else ("personalize",)
        )
        return self._base() | {"images": images} | {k: self.plain[k] for k in keys}

    def personalize(self, folder: Path) -> None:
        """Learn the concept from the target's unlabelled images and save it."""
        method = self.recipe.personalize
        captions = self.captions(self.target, "unlabeled") if method.needs_captions else None
        concept = method(self._backbone(), self.target.images("unlabeled"), self.run.inside(folder), captions)
        concept.save(folder)

    def used(self, concept: Concept) -> Concept:
        """The part of the concept that the recipe uses."""
        parts: dict[str, Callable[[], Concept]] = {
            "all": lambda: concept,
            "word": concept.only_word,
            "weights": concept.only_weights,
        }
        return parts[self.recipe.concept]()

    # -- stage 2

    def model_inputs(self, concept: Concept) -> dict[str, Any]:
        """What the adapted model depends on: prompts as they are said, not the names that made them, so that rows of
        different tables that train alike share a model."""
        rewrite = self.rewrite(self.used(concept))
        write = self._write_training(rewrite)
        captions = self.captions(self.taught, "train")
        prompts = json.dumps({key: write(caption) for key, caption in sorted(captions.items())})
        keys = ("train_on", "pretrained", "viewing", "head", "adapt")
        return (
            self._base()
            | {"concept": self.used(concept).fingerprint, "data": self.taught.contents("train")}
            | {"prompts": digest(prompts.encode()), "target_prompt": rewrite.target("a probe")}
            | {k: self.plain[k] for k in keys}
        )

    def _write_training(self, rewrite: Rewrite) -> Callable[[str], str]:
        return rewrite.target if self.recipe.train_on == "target" else rewrite.source

    def adapt(self, concept: Concept) -> Callable[[Path], None]:
        """Fine-tune on source labels; returns what makes the artefact."""

        def make(folder: Path) -> None:
            used = self.used(concept)
            rewrite = self.rewrite(used)
            backbone = self._backbone().install(used)
            if not self.recipe.pretrained:
                forget(backbone.unet, self.run.seed)
            labels = self.taught.domain.labels
            if labels is None:
                raise UsageError(
                    f"domain {self.taught.domain.name!r} has no labels to learn from", fix="give masks"
                )
            head = self.recipe.head
            model = PerceptionModel.assemble(
                backbone,
                head.name,
                labels,
                rewrite=rewrite,
                viewing=self.recipe.viewing,
                seed=self.run.seed,
                **head.settings,
            )
            data = self.taught.domain.labeled(self.taught.root, "train", self.captions(self.taught, "train"))
            write = self._write_training(rewrite)
            self.recipe.adapt(model, data, write, self.run.inside(folder)).save(folder)

        return make

    # -- stage 3

    def report_inputs(self, concept: Concept) -> dict[str, Any]:
        """What the scores depend on."""
        sides = (("source", self.source), ("target", self.target))
        tests = {name: placed.contents("test") for name, placed in sides if placed.has("test")}
        keys = ("source", "target", "captioner", "captions", "strategy", "sides", "evaluate")
        return self.model_inputs(concept) | {"tests": tests} | {k: self.plain[k] for k in keys}

    def evaluate(self, concept: Concept, model: PerceptionModel) -> Callable[[Path], None]:
        """Score on both test splits; returns what makes the artefact."""
        rewrite = self.rewrite(self.used(concept))
        model.to(self.run.torch_device)

        def score(placed: Placed, write: Callable[[str], str], pictures: Path) -> Evaluation | None:
            if not placed.has("test"):
                return None
            data = placed.domain.labeled(placed.root, "test", self.captions(placed, "test"))
            tokens, limit = model.backbone.count_tokens, model.backbone.token_limit

            def fitted(caption: str) -> str:
                return fit(write, caption, tokens, limit).prompt

            return evaluate(model, data, fitted, self.run, self.recipe.evaluate, pictures=pictures)

        def make(folder: Path) -> None:
            tested = self.target.has("test") and "unlabeled" in self.target.domain.splits
            if tested and not self.run.allow_overlap:
                refuse_overlap(self.target.images("unlabeled"), self.target.images("test"))
            Report(
                source=score(self.source, rewrite.source, folder / "source"),
                target=score(self.target, rewrite.target, folder / "target"),
            ).save(folder)

        return make


def digest(content: bytes) -> str:
    """blake2b of some bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def forget(unet: Any, seed: int) -> None:
    """Draw a UNet's weights anew, in place: the same network without diffusion pretraining."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(unet).from_config(unet.config)
    unet.load_state_dict(fresh.state_dict())
