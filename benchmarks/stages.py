"""What the three calls of the figure need: fresh backbones, captioned domains, and what each artifact depends on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.evaluate import Evaluation, Report, digests, evaluate, refuse_overlap
from benchmarks.in_common import in_common, noted
from benchmarks.places import Placed, digest, drawn, place
from benchmarks.recipe import Recipe
from tadp_da.backbones import DEFAULT, load_backbone
from tadp_da.captions.captioner import Captioner, caption_images
from tadp_da.captions.clean import clean_all
from tadp_da.captions.files import CaptionFile
from tadp_da.captions.rewrite import Rewrite, fit_and_tell
from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.registry import nearest
from tadp_da.run import Run
from tadp_da.storage.files import file_digest, write_json

_log = logging.getLogger(__name__)
_CAPTIONS = ("captioner", "captions", "caption_files", "clean_target")
"""Settings that decide what is said of an image."""
PROVENANCE = "provenance.json"
"""In a concept and in a model: where the base model came from, and which images it has learned from."""


class Stages:
    """One recipe at one seed.

    Args:
        recipe: what to do.
        run: where artifacts go, seed and device.
        data: folder that the registry's domains are looked for in.
    """

    def __init__(self, recipe: Recipe, run: Run, data: Path) -> None:
        self.recipe, self.run = recipe, run
        learned = ["train"] if recipe.train_on == "target" else []
        self.source = place(recipe.source, data, recipe.limit).checked(
            ["test"] if learned else ["train", "test"], run
        )
        self.target = place(recipe.target, data, recipe.limit).checked([*learned, "unlabeled", "test"], run)
        wanted = [n for n in (recipe.target_images, recipe.limit) if n is not None and recipe.target_images]
        self.learned = drawn(self.target, min(wanted, default=None), run.seed)
        # the supervised ceiling trains on labels of the target itself
        self.taught = self.target if recipe.train_on == "target" else self.source
        self.plain = recipe.as_json() | {"caption_files": self._caption_files()}

    def _caption_files(self) -> dict[str, str]:
        """Digests of the caption files that the recipe gives."""
        used = [f"{p.domain.name}/{split}" for p in (self.source, self.target) for split in p.domain.splits]
        for name, path in self.recipe.caption_files.items():
            if name not in used:
                raise UsageError(
                    f"no captions are read for {name!r}{nearest(name, used)}",
                    where="caption_files",
                    fix=f"choose from: {', '.join(used)}",
                )
            CaptionFile.read(path)
        return {name: file_digest(path) for name, path in self.recipe.caption_files.items()}

    @cached_property
    def backbone_fingerprint(self) -> str:
        """Fingerprint of the base model, whose weights are the same for every row."""
        return self._backbone().fingerprint

    def _backbone(self) -> Any:
        return load_backbone(DEFAULT, self.recipe.model, self.recipe.backbone)

    def _base(self) -> dict[str, Any]:
        keys = ("model", "backbone")
        return {
            "fingerprint": self.backbone_fingerprint,
            "seed": self.run.seed,
            "precision": self.run.precision,
        } | {k: self.plain[k] for k in keys}

    # -- captions

    def captions(self, placed: Placed, split: str) -> Mapping[str, str]:
        """Captions of a split, from its file or made once per set of images and captioner; those of the target cleaned
        if asked for."""
        images = placed.images(split)
        inputs = {"images": placed.contents(split, labels=False)} | {
            k: self.plain[k] for k in ("captioner", "captions")
        }

        def make(folder: Path) -> None:
            captioner = Captioner.from_pretrained(
                self.recipe.captioner, self.recipe.captions, self.run.torch_device
            )
            caption_images(images, captioner, folder / "captions.json", self.run)

        def read(file: Path) -> dict[str, str]:
            return CaptionFile.read(file).lookup(images)

        given = self.recipe.caption_files.get(f"{placed.domain.name}/{split}")
        found = (
            read(given)
            if given
            else self.run.get_or_create("captions", inputs, make, lambda f: read(f / "captions.json"))
        )
        cleaned = self.recipe.clean_target and placed.domain.name == self.target.domain.name
        return clean_all(found)[0] if cleaned else found

    def rewrite(self, concept: Concept) -> Rewrite:
        """The recipe's caption strategy with the concept's word."""
        labels = self.taught.domain.labels
        return Rewrite(
            strategy=self.recipe.strategy,
            side=self.recipe.sides,
            source_description=self.source.domain.description,
            target_description=self.target.domain.description,
            word=concept.prompt_word,
            classes=labels.classes if labels else (),
            clean=self.recipe.clean_target,
        )

    # -- stage 1

    def concept_inputs(self) -> dict[str, Any]:
        """What the concept depends on."""
        images = self.learned.contents("unlabeled", labels=False)
        keys = ("personalize", *(_CAPTIONS if self.recipe.personalize.needs_captions else ()))
        return self._base() | {"images": images} | {k: self.plain[k] for k in keys}

    def personalize(self, folder: Path) -> None:
        """Learn the concept from the target's unlabelled images and save it."""
        method = self.recipe.personalize
        captions = self.captions(self.learned, "unlabeled") if method.needs_captions else None
        images = self.learned.images("unlabeled")
        backbone, known = self._backbone(), digests(images)
        method(backbone, images, self.run.inside(folder), captions).save(folder)
        write_provenance(folder, backbone, known)

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
        require_said(self.used(concept), rewrite)
        write = self._write_training(rewrite)
        captions = self.captions(self.taught, "train")
        prompts = json.dumps({key: write(caption) for key, caption in sorted(captions.items())})
        keys = ("train_on", "pretrained", "viewing", "head", "adapt")
        return (
            self._base()
            | {"concept": self.used(concept).fingerprint, "data": self.taught.contents("train")}
            | {"prompts": digest(prompts.encode()), "target_prompt": rewrite.target("- a probe")}
            | {k: self.plain[k] for k in keys}
        )

    def _write_training(self, rewrite: Rewrite) -> Callable[[str], str]:
        return rewrite.target if self.recipe.train_on == "target" else rewrite.source

    def adapt(self, concept: Concept) -> Callable[[Path], None]:
        """Fine-tune on source labels; returns what makes the artifact."""

        def make(folder: Path) -> None:
            used = self.used(concept)
            rewrite = self.rewrite(used)
            backbone = self._backbone().load_concept(used)
            if not self.recipe.pretrained:
                backbone.reinitialize(self.run.seed)
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
                captioner=self.recipe.captioner,
                seed=self.run.seed,
                **head.settings,
            )
            data = self.taught.domain.labeled(self.taught.root, "train", self.captions(self.taught, "train"))
            write = self._write_training(rewrite)
            known = digests(data.images)
            if used.word or used.weights or used.lora:
                known |= digests(self.learned.images("unlabeled"))
            self.recipe.adapt(model, data, write, self.run.inside(folder)).save(folder)
            write_provenance(folder, backbone, known)

        return make

    # -- stage 3

    def report_inputs(self, concept: Concept) -> dict[str, Any]:
        """What the scores depend on."""
        sides = (("source", self.source), ("target", self.target))
        tests = {name: placed.contents("test") for name, placed in sides if placed.has("test")}
        keys = ("source", "target", *_CAPTIONS, "strategy", "sides", "evaluate")
        return self.model_inputs(concept) | {"tests": tests} | {k: self.plain[k] for k in keys}

    def evaluate(self, concept: Concept, model: PerceptionModel) -> Callable[[Path], None]:
        """Score on both test splits; returns what makes the artifact."""
        rewrite = self.rewrite(self.used(concept))
        model.to(self.run.torch_device)

        def score(placed: Placed, write: Callable[[str], str], folder: Path, side: str) -> Evaluation | None:
            if not placed.has("test"):
                return None
            domain, note = in_common(placed.domain, model.labels)
            data = domain.labeled(placed.root, "test", self.captions(placed, "test"))
            tokens, limit = model.backbone.count_tokens, model.backbone.token_limit

            def fitted(caption: str) -> str:
                return fit_and_tell(write, caption, tokens, limit)

            taken = self.run.inside(folder).unfinished / side
            found = evaluate(
                model, data, fitted, self.run, self.recipe.evaluate, pictures=folder / side, decisions=taken
            )
            return noted(found, note)

        def make(folder: Path) -> None:
            tested = self.target.has("test") and "unlabeled" in self.target.domain.splits
            if tested and not self.run.allow_overlap:
                refuse_overlap(digests(self.target.images("unlabeled")), self.target.images("test"))
            Report(
                source=score(self.source, rewrite.source, folder, "source"),
                target=score(self.target, rewrite.target, folder, "target"),
            ).save(folder)

        return make


def require_said(concept: Concept, rewrite: Rewrite) -> None:
    """Refuse a concept that is nothing but words where no prompt says one: it would change nothing.

    Args:
        concept: as it is used. One with weights works without its word.
        rewrite: writes the prompts.

    Raises:
        UsageError: with what the strategy writes.
    """
    words, prompt = concept.tokens or (concept.word,), rewrite.target("a probe")
    if concept.word and not concept.weights and not concept.lora and not any(w in prompt for w in words):
        raise UsageError(
            f"the concept is the word {concept.prompt_word!r} alone, and the strategy {rewrite.strategy!r} never says "
            f"it: 'a probe' becomes {prompt!r}",
            where="strategy",
            fix="choose a strategy that says the word, such as textual-inversion, or a template with {word}; or go on "
            "without the concept",
        )


def write_provenance(folder: Path, backbone: Any, images: Mapping[str, str]) -> None:
    """Write :data:`PROVENANCE` into an artifact. It is no input: a model that moved is the same model.

    Args:
        folder: the artifact.
        backbone: its ``origin`` is kept.
        images: what was learned from, as :func:`benchmarks.evaluate.digests` gives it.
    """
    write_json(folder / PROVENANCE, {"base": backbone.origin, "images": dict(images)})


def learned_from(folder: Path) -> dict[str, str]:
    """Paths by digest of the images that a concept or a model has learned from; none, and a warning, where it does not
    say, because it was made elsewhere.

    Raises:
        ArtifactError: when what it says cannot be read.
    """
    file = folder / PROVENANCE
    if not file.exists():
        _log.warning(
            "%s does not say which images it has learned from: test images among them cannot be found", folder
        )
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"cannot read what was learned from: {error!r}",
            where=file,
            fix="delete the folder and make it again",
        ) from error
