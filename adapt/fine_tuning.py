"""Stage 2: fine-tune backbone and head on the source's labels (TADP, section 3.3 and appendix D)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from adapt.augmentation import Augmentation
from adapt.parameters import Mode, parameter_groups, polynomial, trainable
from adapt.training_data import TextTable, TrainingExamples, collate
from tadp_da.concept import digest_tensors
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.training.loop import LoopSettings, OptimizerName, fit, recorded
from tadp_da.training.monitor import check_embeddings
from tadp_da.types import Labeled

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FineTuning:
    """Train a perception model on labelled, captioned images. Call it.

    Defaults are those of the paper's text and, where it is silent, of the authors' code, for Cityscapes and Stable
    Diffusion 1.5; the random scale is ours.

    Attributes:
        steps: optimizer steps.
        batch: images per forward pass.
        accumulate: forward passes per step.
        backbone: how much of the network moves: all of it, low-rank layers that are fused at the end, or nothing.
        backbone_lr: its learning rate.
        head_lr: the head's learning rate.
        weight_decay: of AdamW; norms and biases have none.
        warmup: share of the steps in which the rates rise in a line.
        power: of the polynomial by which they then fall to 0 at the last step.
        clip: largest gradient norm, 0 for none.
        optimizer: AdamW, or its 8-bit form.
        lora_rank: rank of the low-rank layers.
        augment: what may happen to a training image, at the model's working size.
        ema: decay of a moving average of the weights, which then becomes the result; 0 for none.
        gradient_checkpointing: compute the network's activations twice instead of keeping them.
        keep: gigabytes of memory for images, and again for latents, so that they are read and encoded only once.
        keep_latents: encode images once where augmentation allows it (flips only).
        strict: an error, not a warning, where text embeddings tell nothing.
        workers: processes that prepare samples; changes speed only.
        checkpoint_every: steps between checkpoints; 0 saves one only at the end and when a signal stops the training.
    """

    steps: Count = 40_000
    batch: Count = 2
    accumulate: Count = 1
    backbone: Mode = "full"
    backbone_lr: Rate = 8e-6
    head_lr: Rate = 8e-5
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0375
    power: Annotated[float, Field(gt=0, le=10)] = 1.0
    clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    optimizer: OptimizerName = "adamw"
    lora_rank: Annotated[int, Field(ge=1, le=1024)] = 16
    augment: Augmentation = Augmentation(
        scale=(0.5, 2.0), crop=(512, 512), cat_max_ratio=0.75, photometric=True
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gradient_checkpointing: bool = False
    keep: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    keep_latents: bool = True
    strict: bool = False
    workers: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Annotated[int, Field(ge=0)] = 1000

    @model_validator(mode="after")
    def _one_size(self) -> FineTuning:
        if self.batch > 1 and self.augment.crop is None and self.augment.scale != (1.0, 1.0):
            raise ValueError(
                f"images scaled by {self.augment.scale} and not cropped differ in size and make no batch of "
                f"{self.batch}; set augment.crop, or batch to 1"
            )
        return self

    def __call__(
        self, model: PerceptionModel, data: Labeled, rewrite: Callable[[str], str], run: Run
    ) -> PerceptionModel:
        """Train ``model`` in place and return it, ready to predict.

        Text and, where possible, latents are computed once: text encoder and autoencoder are frozen. One line per step
        goes to ``metrics.jsonl`` in the run's folder, checkpoints to its ``unfinished/``: the same call there goes on
        where an earlier one was interrupted.

        Args:
            model: its viewing settings say at what size images are read.
            data: source images with labels and captions.
            rewrite: from caption to prompt, as the strategy does on the source side.
            run: seed, device, precision, folder.

        Raises:
            DataError: when an image and its label do not fit, or nothing is labelled.
            UsageError: when no parameter would move.
            DivergedError: when the loss is not finite, no gradient arrives or no parameter moves.
            InterruptedRunError: after a signal and a checkpoint.
        """
        model.to(run.torch_device)
        examples = self._examples(model, data, rewrite, run)
        with (
            trainable(
                model.backbone, model.head, self.backbone, rank=self.lora_rank, seed=run.seed
            ) as moving,
            model.backbone.gradient_checkpointing(self.gradient_checkpointing),
        ):
            groups = parameter_groups(
                moving,
                model.head,
                backbone_lr=self.backbone_lr,
                head_lr=self.head_lr,
                weight_decay=self.weight_decay,
            )
            self._train(model, groups, examples, run)
        return model.eval()

    def _examples(
        self, model: PerceptionModel, data: Labeled, rewrite: Callable[[str], str], run: Run
    ) -> TrainingExamples:
        text = TextTable(model, data, rewrite, run)
        if model.backbone.reads_text:
            check_embeddings(text.embeddings, text.prompts, strict=self.strict)
        size, even = model.viewing.size, self.batch > 1
        examples = TrainingExamples(data, model.head, text, size, self.augment, even=even)
        examples.keep(self.keep, run)
        if self.keep_latents:
            examples.keep_latents(model, self.keep, run)
        return examples

    def _train(
        self, model: PerceptionModel, groups: list[dict[str, Any]], examples: TrainingExamples, run: Run
    ) -> None:
        objective = _Objective(model)
        steps = fit(
            objective,
            groups,
            examples,
            self._loop(),
            run,
            collate=collate,
            schedule=polynomial(self.steps, int(self.warmup * self.steps), self.power),
            optimizer=self.optimizer,
            checkpoints=self._checkpoints(model, examples, run),
        )
        model.backbone.eval()
        model.head.train()
        for _ in recorded(steps, self.steps, run, "fine-tuning"):
            pass

    def _loop(self) -> LoopSettings:
        names = {f.name for f in dataclasses.fields(LoopSettings)}
        return LoopSettings(**{name: getattr(self, name) for name in names})

    def _checkpoints(self, model: PerceptionModel, examples: TrainingExamples, run: Run) -> Path:
        """A folder of its own for everything that decides the course of the training except its length, so that none
        goes on from another's."""
        digest = hashlib.blake2b(digest_size=16)
        digest_tensors(digest, model.state_dict() | {"text": examples.text.embeddings})
        keys = [examples.key(i) for i in range(len(examples))]
        inputs: dict[str, Any] = TypeAdapter(FineTuning).dump_python(self, mode="json")
        del inputs["steps"]
        inputs |= {"seed": run.seed, "precision": run.precision, "start": digest.hexdigest()}
        inputs |= {"images": keys, "text": examples.text.rows, "viewing": dataclasses.asdict(model.viewing)}
        return run.inside(run.unfinished).artifact_path("fine-tuning", inputs)


class _Objective(nn.Module):
    """Loss of a batch."""

    def __init__(self, model: PerceptionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Any], generators: list[torch.Generator]) -> Tensor:
        """``batch`` is what :meth:`TrainingExamples.fetch` gives, stacked.

        Dropout can take no generator: it runs from a seed that the first one draws, apart from the global stream.
        """
        seed = int(torch.randint(2**62, (1,), generator=generators[0]))
        device = batch["text"].device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            if "latents" in batch:
                outputs = self.model.from_latents(batch["latents"], batch["text"], tuple(batch["size"]))
            else:
                outputs = self.model(batch["pixels"], batch["text"], generators)
            loss: Tensor = self.model.head.loss(outputs, batch["target"])
        return loss
