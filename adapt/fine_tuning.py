"""Stage 2: fine-tune backbone and head on the source's labels (TADP, section 3.3 and appendix D)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from adapt.augmentation import Augmentation
from adapt.labelled_target import JoinedDataset, LabelledTarget
from adapt.objectives import Objective
from adapt.objectives import objectives as known_objectives
from adapt.parameters import Mode, parameter_groups, polynomial, trainable
from adapt.previews import PredictionLogger
from adapt.sources import Source, sources
from adapt.training_data import (
    CaptionedImages,
    ImageDataset,
    PromptEmbeddings,
    SourceDataset,
    TargetDataset,
)
from tadp_da.concept import digest_tensors
from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import Effect, as_json, keyed
from tadp_da.training.loop import Count, LoopSettings, OptimizerName, Positive, fit, recorded
from tadp_da.training.monitor import check_embeddings
from tadp_da.types import Labeled

Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class FineTuning(LoopSettings):
    """Train a perception model on labelled, captioned images. Call it.

    Defaults are those of the paper's text and, where it is silent, of the authors' code, for Cityscapes and Stable
    Diffusion 1.5; the random scale and the clipped gradient are ours.

    Attributes:
        steps, batch, accumulate, clip, ema, workers, checkpoint_every: see
            :class:`~tadp_da.training.loop.LoopSettings`.
        target_batch: target images per forward pass, where an objective reads them; as many as ``batch`` if None.
        backbone: what is trained of the backbone: all of it, low-rank layers that are fused at the end, or nothing.
        backbone_lr: its learning rate.
        head_lr: the head's learning rate.
        weight_decay: of AdamW; norms and biases have none.
        warmup: share of the steps in which the learning rates rise linearly.
        power: of the polynomial by which they then fall to 0 at the last step.
        optimizer: AdamW, or its 8-bit form.
        lora_rank: rank of the low-rank layers.
        augment: augmentation at the model's working size.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        cache_images: gigabytes of memory for the images of each stream, and again for their latents, so that they are
            read and encoded only once.
        cache_latents: encode images once where augmentation allows it (flips only).
        strict: raise, instead of warn, when text embeddings hold no information.
    """

    steps: Positive = 40_000
    batch: Positive = 2
    checkpoint_every: Annotated[Count, Effect.SPEED] = 1000
    target_batch: Positive | None = None
    backbone: Mode = "full"
    backbone_lr: Rate = 8e-6
    head_lr: Rate = 8e-5
    weight_decay: Annotated[float, Field(ge=0)] = 5e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0375
    power: Annotated[float, Field(gt=0, le=10)] = 1.0
    optimizer: OptimizerName = "adamw"
    lora_rank: Annotated[int, Field(ge=1, le=1024)] = 16
    augment: Augmentation = Augmentation(
        scale=(0.5, 2.0), crop=(512, 512), cat_max_ratio=0.75, photometric=True
    )
    gradient_checkpointing: Annotated[bool, Effect.SPEED] = False
    cache_images: Annotated[float, Field(ge=0), Effect.SPEED] = 2.0
    cache_latents: Annotated[bool, Effect.SPEED] = True
    strict: bool = False

    @model_validator(mode="after")
    def _one_size(self) -> FineTuning:
        several = max(self.batch, self.target_batch or 1) > 1
        if several and self.augment.crop is None and self.augment.scale != (1.0, 1.0):
            raise ValueError(
                f"images scaled by {self.augment.scale} and not cropped differ in size and make no batch of "
                f"{self.batch}; set augment.crop, or batch to 1"
            )
        return self

    def __call__(
        self,
        model: PerceptionModel,
        data: Labeled,
        rewrite: Callable[[str], str],
        run: Run,
        *,
        unlabeled: CaptionedImages | None = None,
        labelled_target: LabelledTarget | None = None,
        objectives: Sequence[Objective] | None = None,
        source: Source | None = None,
    ) -> PerceptionModel:
        """Train ``model`` in place and return it, ready to predict.

        The run's folder gets ``metrics.jsonl`` and, in ``unfinished/``, checkpoints from which the same call resumes.

        Args:
            model: its inference settings give the size of images, its ``rewrite`` the prompts of target images.
            data, rewrite, run: source images with labels and captions; from their captions to prompts; seed, folder.
            unlabeled: target images with captions, for objectives and source styles that read them.
            labelled_target: labelled target images, which join ``data`` as they are.
            objectives: what to minimize, each instance in one training only; the head's loss on ``data`` if None.
            source: style of source images; unchanged if None.

        Raises:
            DataError: when an image and its label do not fit, or nothing is labelled.
            UsageError: when no parameter is trainable, or target images are needed and not given.
            DivergedError: when the loss is not finite, no gradient arrives or no parameter changes.
            InterruptedRunError: after a signal and a checkpoint.
        """
        source = source or sources["original"]()
        objectives = _complete(objectives, source, unlabeled, labelled_target)
        model.to(run.torch_device)
        streams = self._streams(model, data, rewrite, run, unlabeled, objectives, source, labelled_target)
        with (
            trainable(
                model.backbone, model.head, self.backbone, rank=self.lora_rank, seed=run.seed
            ) as moving,
            model.backbone.gradient_checkpointing(self.gradient_checkpointing),
        ):
            rates = {"backbone_lr": self.backbone_lr, "head_lr": self.head_lr}
            steps = fit(
                model,
                parameter_groups(moving, model.head, weight_decay=self.weight_decay, **rates),
                streams,
                self,
                run,
                objectives=objectives,
                batches={"target": self.target_batch or self.batch},
                schedule=polynomial(self.steps, int(self.warmup * self.steps), self.power),
                optimizer=self.optimizer,
                checkpoints=self._checkpoints(model, streams, objectives, source, run),
            )
            model.backbone.eval()
            model.head.train()
            watch = PredictionLogger(model, data, rewrite, unlabeled, run, self.due)
            watch(recorded(steps, self.steps, run, "fine-tuning"))
        return model.eval()

    def _streams(
        self,
        model: PerceptionModel,
        data: Labeled,
        rewrite: Callable[[str], str],
        run: Run,
        unlabeled: CaptionedImages | None,
        objectives: Sequence[Objective],
        source: Source,
        labelled_target: LabelledTarget | None,
    ) -> dict[str, ImageDataset | JoinedDataset]:
        """Data sets of the streams that the objectives read, the source first."""
        size = model.inference.size
        streams: dict[str, ImageDataset | JoinedDataset] = {}
        read = frozenset[str]().union(*(objective.streams for objective in objectives))
        if "source" in read:
            target = unlabeled.images if unlabeled else None
            source.setup(model, data.images, target, run)
            text = self._text(model, data, rewrite, run)
            even = self.batch > 1
            style: dict[str, Any] = {"style": source, "target": target, "even": even and not labelled_target}
            labelled = SourceDataset(data, model.head, text, size, self.augment, **style)
            streams["source"] = labelled
            if labelled_target:
                text = self._text(model, labelled_target.data, model.rewrite.target, run)
                more = SourceDataset(labelled_target.data, model.head, text, size, self.augment, even=False)
                streams["source"] = JoinedDataset((labelled, more), labelled_target.share, even=even)
        if "target" in read and unlabeled:
            text = self._text(model, unlabeled, model.rewrite.target, run)
            even = (self.target_batch or self.batch) > 1
            streams["target"] = TargetDataset(unlabeled.images, text, size, self.augment, even=even)
        for name, dataset in streams.items():
            dataset.cache_images(self.cache_images, run)
            if self.cache_latents and not any(o.needs_pixels(name) for o in objectives if name in o.streams):
                dataset.cache_latents(model, self.cache_images, run)
        return streams

    def _text(
        self, model: PerceptionModel, data: Labeled | CaptionedImages, rewrite: Callable[[str], str], run: Run
    ) -> PromptEmbeddings:
        text = PromptEmbeddings(model, data, rewrite, run)
        if model.backbone.reads_text:
            check_embeddings(text.embeddings, text.prompts, strict=self.strict)
        return text

    def _checkpoints(
        self,
        model: PerceptionModel,
        streams: Mapping[str, ImageDataset | JoinedDataset],
        objectives: Sequence[Objective],
        source: Source,
        run: Run,
    ) -> Path:
        """A folder for everything that the training depends on except its length, so that none resumes another one."""
        digest = hashlib.blake2b(digest_size=16)
        text = {name: dataset.text for name, dataset in streams.items()}
        texts = {f"text {name}": each.embeddings for name, each in text.items()}
        digest_tensors(digest, model.state_dict() | texts)
        inputs = keyed(FineTuning, self)
        del inputs["steps"]
        inputs |= {"seed": run.seed, "precision": run.precision, "start": digest.hexdigest()}
        inputs |= {"objectives": [_facts(o) for o in objectives], "source": _facts(source)}
        inputs["images"] = {n: [d.key(i) for i in range(len(d))] for n, d in streams.items()}
        inputs["text"] = {name: each.rows for name, each in text.items()}
        inputs["inference"] = keyed(type(model.inference), model.inference)
        return run.inside(run.unfinished).artifact_path("fine-tuning", inputs)


def _facts(plug_in: Any) -> dict[str, Any]:
    """Class and settings of an objective or a source style, as JSON."""
    kind = type(plug_in)
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "settings": as_json(plug_in.settings)}


def _complete(
    objectives: Sequence[Objective] | None,
    source: Source,
    unlabeled: CaptionedImages | None,
    labelled_target: LabelledTarget | None,
) -> Sequence[Objective]:
    """What to minimize, once nothing is missing that it reads."""
    objectives = [known_objectives["supervised"]()] if objectives is None else objectives
    if not objectives:
        raise UsageError("there is no objective", fix="give at least one, such as supervised")
    if labelled_target and not any("source" in o.streams for o in objectives):
        raise UsageError(
            "no objective reads labelled images, and labelled target images are given",
            fix="add the objective supervised, or omit them",
        )
    readers = [o for o in objectives if "target" in o.streams] + [source] * source.reads_target
    if readers and unlabeled is None:
        raise UsageError(
            f"{type(readers[0]).__name__} reads target images, and none are given",
            fix="give unlabelled target images, or choose objectives and a source style that need none",
        )
    return objectives
