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
from adapt.health import count_classes
from adapt.mean_teacher import MeanTeacher, MeanTeacherSettings
from adapt.objectives import objectives
from tadp_da.errors import UsageError
from tadp_da.heads.detection.regions import Anchors, RegionHead, Regions, Sampling
from tadp_da.run import Run
from tadp_da.training.objective import Generators, seeded

Share = Annotated[float, Field(ge=0, le=1)]
NAME = "self-training-boxes"
BETA = 1 / 9  # of the smooth L1 loss, torchvision's


@objectives.add(NAME)
class SelfTrainingBoxes(MeanTeacher):
    """The student, on changed target images, is drawn to its teacher on the same images unchanged.

    Its loss is 0, with no gradient, where both say the same. Anchors and regions are weighted by the probability with
    which the head's own loss would draw them, if what the teacher trusts were labels.
    """

    tasks = frozenset({"detection"})

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
    class Settings(MeanTeacherSettings):
        """Those of every teacher, and:

        Attributes:
            form: ``soft`` distils scores on the student's proposals; ``hard`` trains on boxes that the teacher finds,
                and everything else is background.
            low: an anchor or region is background where the teacher's foreground probability is at most this.
            high: and an object where it is at least this; between, it has no influence.
            score: least score of a pseudo-box of the hard form.
            regression: whether boxes are regressed to those of the teacher.
        """

        form: Literal["soft", "hard"] = "soft"
        low: Share = 0.1
        high: Share = 0.5
        score: Share = 0.8
        regression: bool = True

        @model_validator(mode="after")
        def _ordered(self) -> Any:
            if self.low > self.high:
                raise ValueError(f"low {self.low} must not be above high {self.high}")
            return self

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.settings = settings or self.Settings()

    def needs_pixels(self, stream: str) -> bool:
        return stream == "target"

    def setup(self, model: Any, run: Run) -> None:
        if not isinstance(model.head, RegionHead):
            raise UsageError(
                f"self-training-boxes needs a head that proposes regions, and {type(model.head).__name__} does not",
                where="objectives",
                fix="choose the head faster-rcnn for boxes, or the objective self-training for masks",
            )
        super().setup(model, run)

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        if self.rests(step):
            return {NAME: torch.zeros((), device=model.device)}
        batch, noise = batches["target"], generators["target"]
        for each in batches["source"]["target"]:
            self.health.source.new += count_classes(each["labels"], len(model.labels.classes))
        student = {**batch, "pixels": self.settings.student(batch["pixels"], noise)}
        with seeded(noise[0], model.device):
            raw = raw_outputs(model, student, noise)
            losses = (self._soft if self.settings.form == "soft" else self._hard)(model, raw, batch, noise)
        kept = [loss for name, loss in losses.items() if self.settings.regression or "box_reg" not in name]
        return {NAME: self.settings.weight * torch.stack(kept).sum()}

    def _hard(self, model: Any, raw: Any, batch: Any, noise: Any) -> dict[str, Tensor]:
        """The head's losses against the boxes that the teacher is sure of."""
        from torchvision.ops import box_iou

        found = self.teacher.apply(model, lambda own: own.head.predict(raw_outputs(own, batch, noise)))
        targets = []
        for teacher, student in zip(found, model.head.predict(raw), strict=True):
            boxes, labels, scores, others, classes = (
                torch.from_numpy(x).to(model.device)
                for x in (teacher.xyxy, teacher.labels, teacher.scores, student.xyxy, student.labels)
            )
            sure, every = scores >= self.settings.score, torch.ones_like(labels)
            same = (box_iou(boxes, others) >= 0.5) & (labels[:, None] == classes)
            self.health.observe(labels, scores, sure, same.any(1), every == 1)
            target = {"boxes": boxes, "labels": labels, "difficult": every == 0, "visible": every}
            targets.append({name: value[sure] for name, value in target.items()})
        losses: dict[str, Tensor] = model.head.losses(raw, targets)
        return losses

    def _soft(self, model: Any, raw: Any, batch: Any, noise: Any) -> dict[str, Tensor]:
        """Distances to the teacher's outputs, on anchors and on the student's proposals."""
        head: RegionHead = model.head
        own = head.anchors(raw)
        boxes = [some[: head.region_sampling.count] for some in head.proposals(raw, own)]

        def taught(teacher: Any) -> tuple[Anchors, Regions]:
            outputs = raw_outputs(teacher, batch, noise)
            return teacher.head.anchors(outputs), teacher.head.classify(outputs, boxes)

        anchors, regions = self.teacher.apply(model, taught)
        found, trust = head.classify(raw, boxes), (self.settings.low, self.settings.high)
        sure = regions.logits.softmax(-1)
        objects, likeliest = 1 - sure[:, 0], sure[:, 1:].argmax(-1)
        agree = found.logits.argmax(-1) == sure.argmax(-1)
        self.health.observe(likeliest, objects, objects >= trust[1], agree, objects > trust[0])
        counts = [len(some) for some in boxes]
        return anchor_losses(own, anchors, head.anchor_sampling, *trust) | region_losses(
            found, regions, counts, head.region_sampling, *trust
        )


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
