"""A small student learns a trained model's predictions on unlabelled target images (Hinton et al., 2015)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings_class
from torch import Tensor

from adapt.augmentation import Augmentation
from adapt.batches import raw_outputs
from adapt.objectives import Objective, objectives
from adapt.parameters import parameter_groups, polynomial, trainable
from adapt.stage import refuse_other_labels
from adapt.student_views import StudentViews
from adapt.students import students
from adapt.teaching import TaughtDataset, Teaching, divergence
from adapt.training_data import CaptionedImages, ImageDataset, PromptEmbeddings, SourceDataset
from tadp_da.captions.provider import CaptionProvider
from tadp_da.datasets import DataSource
from tadp_da.distributed.processes import is_main
from tadp_da.errors import UsageError
from tadp_da.model_card import write_card
from tadp_da.perception_model import PerceptionModel
from tadp_da.provenance import digests, learned_from, write_provenance
from tadp_da.run import Run
from tadp_da.settings import Choice, Effect, keyed
from tadp_da.storage.files import digest, file_digest
from tadp_da.training.loop import Count, LoopSettings, Positive, fit, recorded
from tadp_da.training.objective import Generators, seeded
from tadp_da.types import Labeled, Unlabeled

NAME = "distillation"


@settings_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class DistillationSettings(LoopSettings):
    """How a student is trained.

    Attributes:
        steps, batch, accumulate, clip, ema, workers, checkpoint_every: see
            :class:`~tadp_da.training.loop.LoopSettings`.
        lr: learning rate of all weights; it rises over ``warmup`` of the steps and then falls to 0.
        weight_decay: of AdamW; norms and biases have none.
        warmup: share of the steps.
        temperature: of both softmaxes, for masks (Hinton et al., 2015).
        score: least score of a teacher's box that is an object for the student.
        labelled_weight: of the loss on labelled source images, where they are given.
        views: how the student sees images that its teacher sees as they are.
        augment: crops, scales and flips, of images and of what the teacher says of them alike.
        head: settings of the student's head that differ from the teacher's or the student's own.
        teacher_batch: images of one size in one forward pass of the teacher.
        cache_images: gigabytes of memory for the images of each stream with their labels.
    """

    steps: Positive = 4000
    batch: Positive = 8
    checkpoint_every: Annotated[Count, Effect.SPEED] = 500
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    score: Annotated[float, Field(ge=0, le=1)] = 0.5
    labelled_weight: Annotated[float, Field(gt=0)] = 1.0
    views: StudentViews = StudentViews()
    augment: Augmentation = Augmentation()
    head: Mapping[str, Any] = Field(default_factory=dict)
    teacher_batch: Annotated[Positive, Effect.SPEED] = 1
    cache_images: Annotated[float, Field(ge=0), Effect.SPEED] = 2.0


class Imitation(Objective):
    """The distance of a student, on changed images, from what its teacher says of them unchanged: of classes the
    divergence of softened probabilities; of boxes and depth the head's own loss."""

    streams = frozenset({"target"})

    def __init__(self, settings: DistillationSettings) -> None:
        self.settings = settings

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        batch, noise = batches["target"], generators["target"]
        seen = {**batch, "pixels": self.settings.views(batch["pixels"], noise)}
        target = batch["target"]
        with seeded(noise[0], model.device):
            raw = raw_outputs(model, seen, noise)
            if isinstance(target, Tensor) and target.ndim == 4:
                return {NAME: divergence(raw, target, self.settings.temperature)}
            return {NAME: model.head.loss(raw, target)}


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Train a student. Call it.

    Attributes:
        teacher: a saved model's folder.
        student: name in the registry.
        weights: that the student starts from; empty for its pretrained ones, see :meth:`Student.load`.
        data: unlabelled target images.
        split: which of them.
        captions: of the images, for the teacher.
        labelled: labelled source images (``train``) that it learns from besides; None for none.
        settings: the training.
        run: seed, device, precision, and the folder for artifacts.
        folder: where the student is to be, instead of a name in the run's folder.
    """

    teacher: Path
    student: str
    data: DataSource
    captions: CaptionProvider
    settings: DistillationSettings
    run: Run
    weights: str = ""
    split: str = "unlabeled"
    labelled: DataSource | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.split == "test":
            raise UsageError(
                f"the test split of {self.data.domain.name!r} is not to be learned from",
                fix="distil on another split; test images are for `tadp-da evaluate`",
            )

    @cached_property
    def _images(self) -> Unlabeled:
        return self.data.images(self.split)

    @cached_property
    def _captions(self) -> Mapping[str, str]:
        return self.captions(self._images, self.split, self.run)

    @cached_property
    def _backbone(self) -> Any:
        return students[self.student].load(self.weights, self.run.seed)

    @cached_property
    def _teacher(self) -> PerceptionModel:
        return PerceptionModel.load(self.teacher)

    def inputs(self) -> dict[str, Any]:
        """What the student depends on, as JSON values."""
        captions = [self._captions[self._images.key(i)] for i in range(len(self._images))]
        found = {
            "teacher": file_digest(self.teacher / "model.json"),
            "student": self.student,
            "weights": str(self._backbone.fingerprint),
            "images": self.data.digest(self.split, labels=False),
            "captions": digest(json.dumps(captions).encode()),
            "distill": keyed(DistillationSettings, self.settings),
            "seed": self.run.seed,
            "precision": self.run.precision,
        }
        return found | ({"labelled": self.labelled.digest("train")} if self.labelled else {})

    def __call__(self) -> PerceptionModel:
        """The student: found when it was trained before, trained otherwise."""
        return self.run.get_or_create(
            "student",
            self.inputs(),
            self._make,
            PerceptionModel.load,
            folder=self.folder,
            may_change=("distill.steps",),
        )

    def _make(self, folder: Path) -> None:
        teacher = self._teacher
        model = students[self.student].build(teacher, self._backbone, self.settings.head, self.run.seed)
        said = Teaching(
            teacher=self.teacher,
            images=self._images,
            captions=self._captions,
            run=self.run,
            batch=self.settings.teacher_batch,
        )()
        source = self._source(teacher)
        self._train(model, self._streams(model, said, source), self.run.inside(folder))
        if is_main():
            model.save(folder)
            known = learned_from(self.teacher) | digests(self._images)
            known |= digests(source.images) if source else {}
            write_provenance(folder, self._backbone.origin, known)
            write_card(folder)

    def _source(self, teacher: PerceptionModel) -> Labeled | None:
        if self.labelled is None:
            return None
        if self.labelled.domain.labels is None:
            raise UsageError("the labelled images have no labels", fix="give masks, boxes or depth maps")
        refuse_other_labels(teacher.labels, self.labelled.domain.labels)
        images = self.labelled.images("train")
        captions = dict.fromkeys(map(images.key, range(len(images))), "")
        return self.labelled.domain.labeled(self.labelled.root, "train", captions, images)

    def _streams(self, model: PerceptionModel, said: Path, source: Labeled | None) -> dict[str, ImageDataset]:
        made, size = self.settings, model.inference.size
        images = self._images
        blank = CaptionedImages(images, dict.fromkeys(map(images.key, range(len(images))), ""))
        text = PromptEmbeddings(model, blank, str, self.run)
        streams: dict[str, ImageDataset] = {
            "target": TaughtDataset(
                said,
                model.labels,
                images,
                text,
                size,
                made.augment,
                score=made.score,
                even=made.batch > 1,
            )
        }
        if source:
            text = PromptEmbeddings(model, source, str, self.run)
            streams["source"] = SourceDataset(
                source, model.head, text, size, made.augment, even=made.batch > 1
            )
        for each in streams.values():
            each.cache_images(made.cache_images, self.run)
        return streams

    def _train(self, model: PerceptionModel, streams: dict[str, ImageDataset], run: Run) -> None:
        made = self.settings
        chosen: list[Objective] = [Imitation(made)]
        if "source" in streams:
            chosen.append(
                Choice(name="supervised", settings={"weight": made.labelled_weight}).built(objectives)
            )
        model.to(run.torch_device)
        inputs = self.inputs()
        del inputs["distill"]["steps"]
        with trainable(model.backbone, model.head, "full", rank=1, seed=run.seed) as moving:
            steps = fit(
                model,
                parameter_groups(
                    moving, model.head, backbone_lr=made.lr, head_lr=made.lr, weight_decay=made.weight_decay
                ),
                streams,
                made,
                run,
                objectives=chosen,
                schedule=polynomial(made.steps, int(made.warmup * made.steps), 1.0),
                checkpoints=run.inside(run.unfinished).artifact_path(NAME, inputs),
            )
            model.backbone.eval()
            model.head.train()
            for _ in recorded(steps, made.steps, run, "distilling"):
                pass
        model.eval()
