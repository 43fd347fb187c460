"""The common course of stage 1: sample, train and record every step, sample again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from personalize.denoising import Batch, LatentDataset, NoisePrediction
from personalize.latents import crops, target_size
from personalize.previews import grid, spread
from personalize.settings import TrainingSettings
from tadp_da.errors import UsageError
from tadp_da.run import Run
from tadp_da.settings import Effect, keyed
from tadp_da.storage.files import write_json
from tadp_da.tracking import log_images, logs_during_training
from tadp_da.training.data import mix
from tadp_da.training.loop import LoopSettings, fit, recorded

if TYPE_CHECKING:
    from PIL.Image import Image

    from tadp_da.types import Unlabeled

SUMMARY, PICTURE = "summary.json", "before_after.png"
_PROBES, _DRAWS = 16, 4  # images whose loss is measured before and after, noises for each


def train(
    objective: NoisePrediction,
    parameters: Sequence[nn.Parameter],
    views: LatentDataset,
    chosen: TrainingSettings,
    run: Run,
    method: str,
) -> None:
    """Train the parameters and no others, with one line of ``metrics.jsonl`` per step.

    Checkpoints are in the run's ``unfinished/``, in a folder for each combination of settings (except the number of
    steps), seed, base, latents and prompts, so that no training resumes another one.

    Args:
        objective: holds the backbone; everything in it but ``parameters`` is frozen here.
    """
    objective.requires_grad_(False).eval()
    for parameter in parameters:
        parameter.requires_grad_(True)
    groups = [{"params": list(parameters), "lr": chosen.learning_rate, "weight_decay": chosen.weight_decay}]
    names = [f.name for f in dataclasses.fields(LoopSettings) if hasattr(chosen, f.name)]
    inputs = keyed(type(chosen), chosen, Effect.SPEED, Effect.ILLUSTRATION)
    del inputs["steps"]
    inputs |= {"seed": run.seed, "precision": run.precision, "latents": views.latents.digest}
    inputs |= {"backbone": objective.backbone.fingerprint, "prompts": views.prompts.all()}
    loop = LoopSettings(**{name: getattr(chosen, name) for name in names})
    steps = fit(
        objective,
        groups,
        {"source": views},
        loop,
        run,
        schedule=chosen.factor,
        optimizer=chosen.optimizer,
        checkpoints=run.inside(run.unfinished).artifact_path(method.replace(" ", "-"), inputs),
    )
    samples = Samples(objective.backbone, views, chosen, run)
    with objective.backbone.gradient_checkpointing(chosen.gradient_checkpointing):
        for step in recorded(steps, chosen.steps, run, method):
            if loop.due(step.index) and logs_during_training(run.tracker):
                samples.log(samples.draw(), step.index)


@dataclass(frozen=True)
class Samples:
    """Images sampled with the same prompts and seeds before, during and after training.

    Attributes:
        backbone: the model.
        views: the training set, whose prompts are used.
        chosen: number and prompts of the samples.
        run: seed, folder and tracker.
    """

    backbone: Any
    views: LatentDataset
    chosen: TrainingSettings
    run: Run

    @property
    def prompts(self) -> list[str]:
        """One prompt per sample.

        Raises:
            UsageError: when one has a field that cannot be filled in.
        """
        count, own = self.chosen.previews.images, self.chosen.previews.prompts
        if own:
            return [self._fill_in(own[i % len(own)], i) for i in range(count)]
        return [self.views.prompts.say(i, i) for i in range(count)]

    def _fill_in(self, template: str, image: int) -> str:
        known = {"word": self.views.prompts.word}
        if captions := self.views.prompts.captions:
            known["caption"] = captions[image % len(captions)]
        try:
            return template.format(**known)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            can = " and ".join(f"{{{name}}}" for name in known)
            more = "" if captions else "; {caption} only where what is learned from holds it too"
            raise UsageError(
                f"the prompt {template!r} asks for what cannot be filled in ({error})",
                where="previews.prompts",
                fix=f"use {can}{more}",
            ) from error

    def draw(self) -> list[Image]:
        """As many as the settings ask for, always with the same noise."""
        if not self.chosen.previews.images:
            return []
        return self.backbone.sample(
            self.prompts,
            seed=self.run.seed,
            steps=self.chosen.previews.steps,
            guidance=self.chosen.previews.guidance,
            size=target_size(self.chosen, self.backbone),
        )

    def log(self, drawn: Sequence[Image], step: int) -> None:
        """Tell the run's tracker."""
        if drawn:
            shown = {"samples": grid([drawn], [f"step {step}"], self.prompts)}
            log_images(self.run.tracker, self.run.folder, shown, step)


@dataclass(frozen=True)
class BeforeAfterLogger(Samples):
    """Samples images and measures the loss before and after training, with the same prompts, seeds and noise.

    Attributes:
        images: the domain's images, for the last row of the image grid.
    """

    images: Unlabeled

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Train inside the block; writes ``summary.json`` and ``before_after.png``, and restores the
        backbone's mode and which parameters are trainable."""
        before, loss_before = self.draw(), self.loss()
        if logs_during_training(self.run.tracker):
            self.log(before, 0)
        trainable = {name: p.requires_grad for name, p in self.backbone.named_parameters()}
        training = self.backbone.training
        yield
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(trainable[name])
        self.backbone.train(training)
        after, loss_after = self.draw(), self.loss()
        self.run.folder.mkdir(parents=True, exist_ok=True)
        losses = {"loss_before": loss_before, "loss_after": loss_after}
        write_json(self.run.folder / SUMMARY, {"images": len(self.images), **losses})
        if before:
            size = target_size(self.chosen, self.backbone)
            real = [crops(image, size)[0] for image in spread(self.images, len(before))]
            labels = ["before", "after", f"real images: {self.images.domain}"]
            grid([before, after, real], labels, self.prompts).save(self.run.folder / PICTURE)

    @torch.no_grad()
    def loss(self) -> float:
        """Denoising loss of the first images, always with the same noise and time steps."""
        count = min(_PROBES, len(self.views))
        objective = NoisePrediction(self.backbone, self.backbone.encode_text)
        device, seed = self.run.torch_device, self.run.seed
        total = 0.0
        for i in range(count):  # several noises of one image at a time
            latents = self.views.latents.mean[i, :1].to(device).expand(_DRAWS, -1, -1, -1)
            generators = [torch.Generator().manual_seed(mix(seed, i, draw)) for draw in range(_DRAWS)]
            batch = Batch(latents, None, [self.views.prompts.say(i, i)] * _DRAWS)
            total += float(objective(batch, generators))
        return total / count
