"""The common course of stage 1: look at the samples, train, record every step, look again."""

from __future__ import annotations

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
    ema: float = 0.0,
) -> None:
    """Train the parameters and no others, one line of ``metrics.jsonl`` per step.

    Checkpoints lie in the run's ``unfinished/``, in a folder of their own for each combination of settings,
    seed, base, latents and sentences, so that training never goes on from another one's; the length alone may change.

    Args:
        objective: holds the backbone; everything in it but ``parameters`` is frozen here.
        ema: decay of a running average that the parameters become at the end; 0 keeps the last values.
    """
    objective.requires_grad_(False).eval()
    for parameter in parameters:
        parameter.requires_grad_(True)
    groups = [{"params": list(parameters), "lr": chosen.learning_rate, "weight_decay": chosen.weight_decay}]
    loop = LoopSettings(
        steps=chosen.steps,
        batch=chosen.batch,
        accumulate=chosen.accumulate,
        clip=chosen.clip,
        ema=ema,
        checkpoint_every=chosen.checkpoint_every,
    )
    inputs = keyed(type(chosen), chosen, Effect.SPEED, Effect.ILLUSTRATION)
    del inputs["steps"]
    inputs |= {"seed": run.seed, "precision": run.precision, "latents": views.latents.digest}
    inputs |= {"backbone": objective.backbone.fingerprint, "prompts": views.prompts.all()}
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
    with objective.backbone.gradient_checkpointing(chosen.gradient_checkpointing):
        for _ in recorded(steps, chosen.steps, run, method):
            pass


@contextmanager
def as_it_came(backbone: nn.Module) -> Iterator[None]:
    """Leave every parameter as trainable, and the modules in the mode, that they were in."""
    trainable = {name: p.requires_grad for name, p in backbone.named_parameters()}
    training = backbone.training
    yield
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(trainable[name])
    backbone.train(training)


@contextmanager
def global_seed(run: Run) -> Iterator[None]:
    """For a library that knows no generator: torch's own streams as a function of the run's seed, and
    afterwards as they were."""
    device = run.torch_device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(mix(run.seed))
        yield


@dataclass(frozen=True)
class BeforeAfterLogger:
    """Looks at the model before and after training, with the same prompts, seeds and noise.

    Attributes:
        backbone: the model.
        images: the domain's images, for the picture's last row.
        views: the training set, whose loss is measured.
        chosen: which picture to draw.
        run: seed and folder.
    """

    backbone: Any
    images: Unlabeled
    views: LatentDataset
    chosen: TrainingSettings
    run: Run

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Look, let the caller train, look again; writes ``summary.json`` and ``before_after.png``."""
        before, loss_before = self._samples(), self.loss()
        yield
        after, loss_after = self._samples(), self.loss()
        self.run.folder.mkdir(parents=True, exist_ok=True)
        write_json(
            self.run.folder / SUMMARY,
            {"images": len(self.images), "loss_before": loss_before, "loss_after": loss_after},
        )
        if before:
            self._draw(before, after).save(self.run.folder / PICTURE)

    @property
    def prompts(self) -> list[str]:
        """What is sampled: one prompt per picture.

        Raises:
            UsageError: when one asks for what cannot be filled in.
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

    def _samples(self) -> list[Image]:
        if not self.chosen.previews.images:
            return []
        return self.backbone.sample(
            self.prompts,
            seed=self.run.seed,
            steps=self.chosen.previews.steps,
            guidance=self.chosen.previews.guidance,
            size=target_size(self.chosen, self.backbone),
        )

    def _draw(self, before: list[Image], after: list[Image]) -> Image:
        size = target_size(self.chosen, self.backbone)
        real = [crops(image, size)[0] for image in spread(self.images, len(before))]
        labels = ["before", "after", f"real images: {self.images.domain}"]
        return grid([before, after, real], labels, self.prompts)

    @torch.no_grad()
    def loss(self) -> float:
        """Denoising loss over the first images at noise and time steps that are the same every time."""
        count = min(_PROBES, len(self.views))
        objective = NoisePrediction(self.backbone, self.backbone.encode_text)
        device, seed = self.run.torch_device, self.run.seed
        total = 0.0
        for i in range(count):  # several noises of one image at a time
            latents = self.views.latents.mean[i, :1].to(device).expand(_DRAWS, -1, -1, -1)
            generators = [torch.Generator().manual_seed(mix(seed, i, draw)) for draw in range(_DRAWS)]
            total += float(
                objective(Batch(latents, None, [self.views.prompts.say(i, i)] * _DRAWS), generators)
            )
        return total / count
