"""Segmentation of target images with an EMA teacher (Mean Teacher, Tarvainen and Valpola, 2017), whose labels are
trusted class by class (CBST, Zou et al., 2018); optionally with ClassMix (DACS, Tranheden et al., 2021) and masked
consistency (MIC, Hoyer et al., 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt.batches import raw_outputs
from adapt.health import Running, count_classes
from adapt.mean_teacher import MeanTeacher, MeanTeacherSettings
from adapt.objectives import objectives
from adapt.student_views import StudentViews
from tadp_da.run import Run
from tadp_da.training.objective import Generators, seeded

Share = Annotated[float, Field(ge=0, le=1)]
NAME, MASKED = "self-training", "self-training-masked"


class Taught(NamedTuple):
    """What a student is taught: an image ``pixels (b, 3, h, w)``, class ``labels (b, h, w)`` or, if soft, their
    probabilities ``(b, k, h, w)``, and the ``weight (b, h, w)`` of each pixel."""

    pixels: Tensor
    labels: Tensor
    weight: Tensor


@objectives.add(NAME)
class SelfTraining(MeanTeacher):
    """Cross-entropy of the student, on changed target images, against the labels of its teacher on the same images
    unchanged; the mean over all pixels, so that those without trust count as 0."""

    tasks = frozenset({"segmentation"})

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
    class Settings(MeanTeacherSettings):
        """Those of every teacher, and:

        Attributes:
            trust: which of the teacher's labels have weight 1: ``class-wise`` those above a quantile of their class's
                confidence or above the threshold, ``fixed`` those above the threshold; ``image-wide`` weighs all
                pixels of an image by the share of those above the threshold (DACS, MIC).
            quantile: for class-wise trust: 0.5 trusts the surer half of each class.
            threshold: of confidence.
            soft: teach the teacher's probabilities, not its likeliest class.
            align: correct the teacher's probabilities by the source's shares of classes over its own.
            classmix: paste half of the classes of a source image onto the target image.
            masked: a second student's view with a loss of its own, such as ``{mask: 0.7}`` (MIC); None for none.
        """

        trust: Literal["class-wise", "fixed", "image-wide"] = "class-wise"
        quantile: Share = 0.5
        threshold: Share = 0.95
        soft: bool = False
        align: bool = False
        classmix: bool = False
        masked: StudentViews | None = None

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.settings = settings or self.Settings()

    @property
    def passes(self) -> tuple[int, int]:
        return 1, 2 if self.settings.masked else 1

    def needs_pixels(self, stream: str) -> bool:
        return stream == "target" or self.settings.classmix

    def setup(self, model: Any, run: Run) -> None:
        super().setup(model, run)
        count = len(model.labels.classes)
        self.soft = self.counts["soft"] = Running(count, device=model.device, dtype=torch.float32)

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        zero = torch.zeros((), device=model.device)
        losses = {NAME: zero} | ({MASKED: zero} if self.settings.masked else {})
        if self.rests(step):
            return losses
        batch, noise = batches["target"], generators["target"]
        source = batches["source"]
        self.health.source.new += count_classes(source["target"], len(model.labels.classes))
        with seeded(noise[0], model.device):
            labels, confidence, probabilities = self._teach(model, batch, noise)
            valid, weight = batch["valid"], self._weights(labels, confidence, batch["valid"])
            taught = Taught(batch["pixels"], probabilities if self.settings.soft else labels, weight)
            pasted = torch.zeros_like(valid)
            if self.settings.classmix:
                taught, pasted = classmix(taught, source, model.labels.ignore, noise)
            scale = self.settings.weight / (valid | pasted).sum().clamp(min=1)
            loss, found = self._learn(model, batch, taught, self.settings.student, noise)
            losses[NAME] = scale * loss
            if self.settings.masked:
                losses[MASKED] = scale * self._learn(model, batch, taught, self.settings.masked, noise)[0]
        self.health.observe(labels, confidence, weight, found == labels, valid & ~pasted)
        return losses

    def _learn(
        self, model: Any, batch: Mapping[str, Any], taught: Taught, view: StudentViews, noise: Any
    ) -> tuple[Tensor, Tensor]:
        """The sum of the pixels' losses, and the student's classes ``(b, h, w)``."""
        raw = raw_outputs(model, {**batch, "pixels": view(taught.pixels, noise)}, noise).float()
        loss = (F.cross_entropy(raw, taught.labels, reduction="none") * taught.weight).sum()
        return loss, raw.detach().argmax(1)

    @torch.no_grad()
    def _teach(
        self, model: Any, batch: Mapping[str, Any], noise: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's classes, its confidence in them, both ``(b, h, w)``, and its probabilities ``(b, k, h, w)``."""
        probabilities = self.teacher.raw(model, batch, noise).float().softmax(1)
        if self.settings.align:
            self.soft.new += (probabilities * batch["valid"][:, None]).sum((0, 2, 3))
            source, own = self.health.source.shares, self.soft.shares
            ratio = torch.where((source > 0) & (own > 0), source / own.clamp(min=1e-12), 1.0)
            probabilities = probabilities * ratio[:, None, None]
            probabilities = probabilities / probabilities.sum(1, keepdim=True)
        confidence, labels = probabilities.max(1)
        return labels, confidence, probabilities

    def _weights(self, labels: Tensor, confidence: Tensor, valid: Tensor) -> Tensor:
        """Weight of each pixel, ``(b, h, w)``; 0 on padding."""
        limit = confidence.new_tensor(self.settings.threshold)
        if self.settings.trust == "class-wise":
            limit = self.health.thresholds(self.settings.quantile).clamp(max=limit)[labels]
        sure = ((confidence >= limit) & valid).float()
        if self.settings.trust != "image-wide":
            return sure
        return valid * (sure.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1))[:, None, None]


def classmix(
    taught: Taught, source: Mapping[str, Any], ignore: int, generators: Sequence[torch.Generator]
) -> tuple[Taught, Tensor]:
    """Paste half of the classes of a source image, rounded up, onto each target image, where both have pixels.

    Returns:
        What is taught, and ``bool (b, h, w)``: True where a source pixel is, whose label has weight 1.
    """
    mixed = Taught(*(value.clone() for value in taught))
    pasted = torch.zeros_like(taught.weight, dtype=torch.bool)
    ids: Tensor = source["target"]
    height, width = (min(a, b) for a, b in zip(ids.shape[-2:], pasted.shape[-2:], strict=True))
    for index, generator in enumerate(generators):
        other = index % len(ids)
        label = ids[other, :height, :width]
        present = label.unique()
        present = present[present != ignore]
        order = torch.randperm(len(present), generator=generator).to(present.device)
        chosen = torch.isin(label, present[order[: math.ceil(len(present) / 2)]])
        pasted[index, :height, :width] = chosen
        at = (index, ..., slice(height), slice(width))
        mixed.pixels[at] = torch.where(chosen, source["pixels"][other, :, :height, :width], mixed.pixels[at])
        hard = taught.labels.ndim == 3
        known = label if hard else F.one_hot(label * chosen, taught.labels.shape[1]).movedim(-1, 0)
        mixed.labels[at] = torch.where(chosen, known.to(mixed.labels), mixed.labels[at])
    return mixed._replace(weight=mixed.weight.masked_fill(pasted, 1.0)), pasted
