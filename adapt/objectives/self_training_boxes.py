"""Detection on target images with an EMA teacher: soft distillation on the student's regions, as in ALDI (Kay et al.,
2024), with uncertain regions left out; or pseudo-boxes, as in Adaptive Teacher (Li et al., 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt.batches import raw_outputs
from adapt.objectives import Objective, objectives
from adapt.student_views import StudentViews
from adapt.teacher import Teacher
from tadp_da.errors import UsageError
from tadp_da.heads.detection.regions import Anchors, RegionHead, Regions, Sampling
from tadp_da.run import Run
from tadp_da.training.objective import Generators, seeded

Share = Annotated[float, Field(ge=0, le=1)]
BETA = 1 / 9  # of the smooth L1 loss, torchvision's


@objectives.add("self-training-boxes")
class SelfTrainingBoxes(Objective):
    """The student, on changed target images, is drawn to its teacher on the same images unchanged.

    Its loss is 0, with no gradient, where both say the same. Anchors and regions are weighted by the probability with
    which the head's own loss would draw them, if what the teacher trusts were labels.
    """

    streams = frozenset({"target"})
    pixels = True
    tasks = frozenset({"detection"})

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
    class Settings:
        """
        Attributes:
            form: ``soft`` distils scores on the student's proposals; ``hard`` trains on boxes that the teacher finds,
                and everything else is background.
            weight: of the loss.
            start: steps before the first one with this loss; the teacher starts half way to it.
            decay: of the teacher.
            low: an anchor or region is background where the teacher's foreground probability is at most this.
            high: and an object where it is at least this; between, it has no influence.
            score: least score of a pseudo-box of the hard form.
            regression: whether boxes are regressed to those of the teacher.
            student: how the student sees an image.
        """

        form: Literal["soft", "hard"] = "soft"
        weight: Annotated[float, Field(gt=0)] = 1.0
        start: Annotated[int, Field(ge=0)] = 100
        decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
        low: Share = 0.1
        high: Share = 0.5
        score: Share = 0.8
        regression: bool = True
        student: StudentViews = StudentViews()

        @model_validator(mode="after")
        def _ordered(self) -> Any:
            if self.low > self.high:
                raise ValueError(f"low {self.low} must not be above high {self.high}")
            return self

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()
        self.teacher: Any = None

    def setup(self, model: Any, run: Run) -> None:
        if not isinstance(model.head, RegionHead):
            raise UsageError(
                f"self-training-boxes needs a head that proposes regions, and {model.head_name} does not",
                where="objectives",
                fix="choose the head faster-rcnn for boxes, or the objective self-training for masks",
            )
        self.teacher = Teacher(model, self.settings.decay, self.settings.start)

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        batch, noise = batches["target"], generators["target"]
        zero = batch["text"].new_zeros(())
        if step < self.settings.start:
            return {"self-training-boxes": zero}
        with seeded(noise[0], batch["text"].device):
            student = batch | {"pixels": self.settings.student(batch["pixels"], noise)}
            raw = raw_outputs(model, student, noise)
            losses = (self._soft if self.settings.form == "soft" else self._hard)(model, raw, batch, noise)
        kept = [loss for name, loss in losses.items() if self.settings.regression or "box_reg" not in name]
        return {"self-training-boxes": self.settings.weight * torch.stack(kept).sum()}

    def after_step(self, model: Any, step: int) -> None:
        self.teacher.update(model, step)

    def state_dict(self) -> Mapping[str, Tensor]:
        return self.teacher.state_dict() if self.teacher else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        if self.teacher:
            self.teacher.load_state_dict(state)

    def _hard(self, model: Any, raw: Any, batch: Any, noise: Any) -> dict[str, Tensor]:
        """The head's losses against the boxes that the teacher is sure of."""
        found = self.teacher.apply(model, lambda own: own.head.predict(raw_outputs(own, batch, noise)))
        targets, device = [], batch["text"].device
        for each in found:
            sure = each.scores >= self.settings.score
            boxes, labels = (torch.from_numpy(x[sure]).to(device) for x in (each.xyxy, each.labels))
            every = torch.ones_like(labels)
            targets.append({"boxes": boxes, "labels": labels, "difficult": every == 0, "visible": every})
        losses: dict[str, Tensor] = model.head.losses(raw, targets)
        return losses

    def _soft(self, model: Any, raw: Any, batch: Any, noise: Any) -> dict[str, Tensor]:
        head: RegionHead = model.head
        own = head.anchors(raw)
        boxes = [some[: head.region_sampling.count] for some in head.proposals(raw, own)]

        def taught(teacher: Any) -> tuple[Anchors, Regions]:
            outputs = raw_outputs(teacher, batch, noise)
            return teacher.head.anchors(outputs), teacher.head.classify(outputs, boxes)

        anchors, regions = self.teacher.apply(model, taught)
        trust = self.settings.low, self.settings.high
        losses = anchor_losses(own, anchors, head.anchor_sampling, *trust)
        counts = [len(some) for some in boxes]
        found = head.classify(raw, boxes)
        return losses | region_losses(found, regions, counts, head.region_sampling, *trust)


def anchor_losses(
    student: Anchors, teacher: Anchors, sampling: Sampling, low: float, high: float
) -> dict[str, Tensor]:
    """Divergence of objectness, and distance of boxes where the teacher sees an object."""
    probability = teacher.objectness.sigmoid()
    foreground, background = probability >= high, probability <= low
    pairs = zip(foreground, background, strict=True)
    weight = torch.stack([sampling.expected(*each) for each in pairs]) / (sampling.count * len(probability))
    logits = student.objectness, teacher.objectness
    cross, own = (F.binary_cross_entropy_with_logits(each, probability, reduction="none") for each in logits)
    distance = F.smooth_l1_loss(student.moves, teacher.moves, beta=BETA, reduction="none").sum(-1)
    return {
        "anchors": (weight * (cross - own)).sum(),
        "anchors_box_reg": (weight * foreground * distance).sum(),
    }


def region_losses(
    student: Regions, teacher: Regions, counts: list[int], sampling: Sampling, low: float, high: float
) -> dict[str, Tensor]:
    """Divergence of classes, and distance of the likeliest class's box where the teacher sees an object."""
    sure = teacher.logits.log_softmax(-1)
    objects = 1 - sure[:, 0].exp()
    foreground, background = objects >= high, objects <= low
    pairs = zip(foreground.split(counts), background.split(counts), strict=True)
    weight = torch.cat([sampling.expected(*each) for each in pairs]) / (sampling.count * len(counts))
    divergence = F.kl_div(student.logits.log_softmax(-1), sure, reduction="none", log_target=True).sum(-1)
    likeliest = 1 + sure[:, 1:].argmax(-1)
    every = torch.arange(len(likeliest), device=likeliest.device)
    moves = student.moves[every, likeliest], teacher.moves[every, likeliest]
    distance = F.smooth_l1_loss(*moves, beta=BETA, reduction="none").sum(-1)
    return {
        "regions": (weight * divergence).sum(),
        "regions_box_reg": (weight * foreground * distance).sum(),
    }
