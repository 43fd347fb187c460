"""Stage 2 as every command runs it: a model is trained once per base, concept, data, prompts and settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from adapt.fine_tuning import FineTuning
from adapt.labelled_target import LabelledTarget
from adapt.objectives import objectives
from adapt.sources import Material, sources
from adapt.training_data import CaptionedImages
from tadp_da.base_model import BaseModel
from tadp_da.captions.loading import identity
from tadp_da.captions.provider import CaptionProvider
from tadp_da.captions.rewrite import Rewrite
from tadp_da.concept import Concept
from tadp_da.datasets import DataSource
from tadp_da.distributed.processes import is_main
from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.inference import InferenceSettings
from tadp_da.model_card import write_card
from tadp_da.perception_model import PerceptionModel
from tadp_da.provenance import digests, learned_from, write_provenance
from tadp_da.run import Run
from tadp_da.settings import Choice, as_json, keyed
from tadp_da.storage.files import digest
from tadp_da.types import Labeled, LabelSpace, Side, Unlabeled

_PROBES = ("a probe", "- a probe", "an oil painting of a probe in the style of a painter", "")
"""Captions that show how a rewrite differs from another."""


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Train a perception model on labelled images. Call it.

    Attributes:
        base: the model that is fine-tuned.
        concept: what is put into it first; None for nothing.
        data: labelled images.
        split: which of them.
        captions: captions of the images.
        rewrite: from captions to prompts.
        side: whose prompts the images get: those of the source, or, for the supervised upper bound, of the target.
        head: which head, and its settings.
        inference: at what size images are read.
        objectives: what is minimized, each with its settings.
        source_style: how labelled images are shown, with its settings.
        tuning: the training.
        run: seed, device, precision, and the folder for artifacts.
        unlabeled: target images without labels, for objectives and source styles that read them.
        labelled_target: labelled target images (``train``) that join the source's.
        labelled_share: their share of the labelled images that the training sees; half of them if None.
        text_adapter: whether a text adapter is trained with the head.
        pretrained: False draws the trainable weights anew: the same network without pretraining.
        folder: where the model is to be, instead of a name in the run's folder.
    """

    base: BaseModel
    data: DataSource
    captions: CaptionProvider
    rewrite: Rewrite
    head: Choice
    inference: InferenceSettings
    tuning: FineTuning
    run: Run
    objectives: Sequence[Choice]
    source_style: Choice
    unlabeled: DataSource | None = None
    labelled_target: DataSource | None = None
    labelled_share: float | None = None
    concept: Concept | None = None
    split: str = "train"
    side: Side = "source"
    pretrained: bool = True
    text_adapter: bool = False
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.split == "test":
            raise UsageError(
                f"the test split of {self.data.domain.name!r} is not to be trained on",
                fix="train on another split; test images are for `tadp-da evaluate`",
            )

    @property
    def _labels(self) -> LabelSpace:
        if not self.data.has(self.split) or self.data.domain.labels is None:
            raise UsageError(
                f"the images of {self.data.domain.name!r} ({self.split}) have no labels to learn from",
                fix="give masks or boxes",
            )
        found = self.data.domain.labels
        if self.labelled_target:
            refuse_other_labels(found, self.labelled_target.domain.labels)
        return found

    @property
    def _write(self) -> Callable[[str], str]:
        return self.rewrite.target if self.side == "target" else self.rewrite.source

    @cached_property
    def _captions(self) -> Mapping[str, str]:
        return self.data.captions(self.split, self.captions, self.run, from_labels=self.rewrite.label_quality)

    def inputs(self) -> dict[str, Any]:
        """What the model depends on, as JSON values: prompts as they are written, not the names that made them, so that
        rows of different tables that train alike share a model.

        Raises:
            UsageError: when a concept is nothing but a word that no prompt holds.
        """
        require_said(self.concept, self.rewrite)
        images = self.data.images(self.split)
        prompts = [self._write(self._captions[images.key(i)]) for i in range(len(images))]
        labels = self._labels
        return (
            self.base.facts(self.run, features=True)
            | {
                "pretrained": self.pretrained,
                "concept": self.concept.fingerprint if self.concept and not self.concept.is_empty else "",
                # styles are told the names of images
                "data": self.data.digest(self.split, names=not self.source_style.built(sources).identity),
                "labels": as_json(labels),
                "prompts": digest(json.dumps(prompts).encode()),
                # the model keeps the rewrite for images of both sides
                "rewrite": [
                    write(probe) for write in (self.rewrite.source, self.rewrite.target) for probe in _PROBES
                ],
                "captioner": identity(self.captions.captioner) if self.captions.captioner else "",
                "head": self.head.key(heads),
                "inference": keyed(InferenceSettings, self.inference),
                "objectives": [each.key(objectives) for each in self.objectives],
                "source_style": self.source_style.key(sources),
                "adapt": keyed(FineTuning, self.tuning),
            }
            | self._target_inputs()
            | self._labelled_inputs()
            | self._text_inputs()
        )

    def _text_inputs(self) -> dict[str, Any]:
        templates = self.rewrite.class_templates
        classes = list(self.rewrite.classes)
        found = (
            {"class_embeddings": digest(json.dumps([templates, classes, self.rewrite.class_tokens]).encode())}
            if templates
            else {}
        )
        if self.rewrite.prompt_templates:
            found["prompt_templates"] = digest(json.dumps(self.rewrite.prompt_templates).encode())
        return found | ({"text_adapter": True} if self.text_adapter else {})

    def _target_inputs(self) -> dict[str, Any]:
        if self.unlabeled is None:
            return {}
        images, captions = self._target_images()
        prompts = [self.rewrite.target(captions[images.key(i)]) for i in range(len(images))]
        return {
            "unlabeled": self.unlabeled.digest("unlabeled", labels=False),
            "target_prompts": digest(json.dumps(prompts).encode()),
        }

    def _labelled_inputs(self) -> dict[str, Any]:
        if self.labelled_target is None or self._labelled is None:
            return {}
        data = self._labelled.data
        prompts = [self.rewrite.target(data.captions[data.images.key(i)]) for i in range(len(data))]
        return {
            "labelled_target": self.labelled_target.digest("train"),
            "labelled_share": self._labelled.share,
            "labelled_prompts": digest(json.dumps(prompts).encode()),
        }

    @cached_property
    def _labelled(self) -> LabelledTarget | None:
        if (found := self.labelled_target) is None:
            return None
        images = found.images("train")
        captions = found.captions("train", self.captions, self.run, from_labels=self.rewrite.label_quality)
        return LabelledTarget(
            found.domain.labeled(found.root, "train", captions, images), self.labelled_share or 0.5
        )

    def _target_images(self) -> tuple[Unlabeled, Mapping[str, str]]:
        if self.unlabeled is None:
            raise UsageError(
                "an objective or source style reads unlabelled target images, and none were given",
                fix="name a target with unlabelled images",
            )
        labels = self.rewrite.label_quality
        captions = self.unlabeled.captions("unlabeled", self.captions, self.run, from_labels=labels)
        return self.unlabeled.images("unlabeled"), captions

    def __call__(self) -> PerceptionModel:
        """The model: found when it was made before, trained otherwise."""
        return self.run.get_or_create(
            "model",
            self.inputs(),
            self._make,
            PerceptionModel.load,
            folder=self.folder,
            may_change=("adapt.steps",),
        )

    def _make(self, folder: Path) -> None:
        backbone = self.base.load()
        origin = backbone.origin
        if self.concept:
            backbone.load_concept(self.concept)
        if not self.pretrained:
            backbone.reinitialize(self.run.seed)
        model = PerceptionModel.assemble(
            backbone,
            self.head.name,
            self._labels,
            rewrite=self.rewrite,
            inference=self.inference,
            captioner=self.captions.captioner,
            seed=self.run.seed,
            adapter=self.text_adapter,
            **self.head.settings,
        )
        images = self.data.images(self.split)
        data = self.data.domain.labeled(self.data.root, self.split, self._captions, images)
        known = digests(data.images) | self._seen_by_concept()
        target = None
        if self.unlabeled is not None:
            target = CaptionedImages(*self._target_images())
            known |= digests(target.images)
        chosen = [each.built(objectives) for each in self.objectives]
        if self._labelled is not None:
            known |= digests(self._labelled.data.images)
        style = self.source_style.built(sources)
        style.prepare(partial(self._material, model, data, target))
        trained = self.tuning(
            model,
            data,
            self._write,
            self.run.inside(folder),
            unlabeled=target,
            labelled_target=self._labelled,
            objectives=chosen,
            source=style,
        )
        if is_main():
            trained.save(folder)
            facts = {
                each.name: dict(built.facts()) for each, built in zip(self.objectives, chosen, strict=True)
            }
            write_provenance(folder, origin, known, facts)
            write_card(folder)

    def _material(self, model: PerceptionModel, data: Labeled, target: CaptionedImages | None) -> Material:
        """What the source style may make images from."""
        plain = replace(
            self,
            source_style=Choice(name="original").resolved(sources, "source_style"),
            objectives=(Choice(name="supervised").resolved(objectives, "objectives"),),
            tuning=replace(self.tuning, target_batch=None),
            unlabeled=None,
            labelled_target=None,
            folder=None,
        )
        prompts = {key: model.prompt(caption) for key, caption in data.captions.items()}
        inputs = plain.inputs() | self._target_inputs()
        return Material(
            model=model,
            data=data,
            prompts=prompts,
            target=target.images if target else None,
            judge=plain,
            inputs={"judge": inputs, "prompts": digest(json.dumps(prompts, sort_keys=True).encode())},
            run=self.run,
        )

    def _seen_by_concept(self) -> dict[str, str]:
        used = self.concept
        if used is None or used.folder is None or not (used.word or used.weights or used.lora):
            return {}
        return learned_from(used.folder)


def reads_target(chosen: Sequence[Choice], source_style: Choice) -> bool:
    """Whether one of these objectives, or the source style, reads unlabelled target images."""
    streams = [objectives[each.name].streams for each in chosen]
    return any("target" in each for each in streams) or bool(source_style.built(sources).reads_target)


def require_task(chosen: Sequence[Choice], head: Choice) -> None:
    """Refuse objectives that are for another task than the head's.

    Raises:
        UsageError: with those that would do.
    """
    task = heads[head.name].task
    for index, each in enumerate(chosen):
        tasks = objectives[each.name].tasks
        if tasks and task not in tasks:
            others = [name for name in objectives if task in (objectives[name].tasks or {task})]
            raise UsageError(
                f"objective {each.name!r} is for {' and '.join(sorted(tasks))}, the head {head.name!r} for {task}",
                where=f"objectives.{index}",
                fix=f"choose from: {', '.join(others)}",
            )


def refuse_other_labels(source: LabelSpace, target: LabelSpace | None) -> None:
    """Refuse labels of target images that do not mean the same as those of the source."""
    meaning = [space and (space.task, space.classes, space.ignore, space.range) for space in (source, target)]
    if meaning[0] != meaning[1]:
        told = [
            f"{space.task} of {', '.join(space.classes) or space.range}" if space else "nothing"
            for space in (target, source)
        ]
        raise UsageError(
            f"the labelled target images are labelled with {told[0]}; the source with {told[1]}",
            fix="give both the same classes in the same order, with --classes or a legend, and one --ignore-index",
        )


def require_said(concept: Concept | None, rewrite: Rewrite) -> None:
    """Refuse a concept that is nothing but words where no prompt holds one: it would change nothing.

    Args:
        concept: as it is used. One with weights works without its word.
        rewrite: writes the prompts.

    Raises:
        UsageError: with what the strategy writes.
    """
    if concept is None or not concept.word or concept.weights or concept.lora:
        return
    prompt = rewrite.target("a probe")
    if not any(word in prompt for word in concept.tokens or (concept.word,)):
        raise UsageError(
            f"the concept is the word {concept.prompt_word!r} alone, and the strategy {rewrite.strategy!r} never "
            f"writes it: 'a probe' becomes {prompt!r}",
            where="strategy",
            fix="choose a strategy that writes the word, such as textual-inversion, or a template with {word}; or omit "
            "the concept",
        )
