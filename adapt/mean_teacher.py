"""The course of self-training, whatever is taught: when it starts, who its teacher is, what is reported, and when it is
given up (Mean Teacher, Tarvainen and Valpola, 2017)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt.health import Health, Running
from adapt.objectives import Objective
from adapt.student_views import StudentViews
from adapt.teacher import Teacher
from tadp_da.run import Run

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class MeanTeacherSettings:
    """
    Attributes:
        weight: of the loss.
        start: when it starts: a share of the steps if under 1, or else a number of steps.
        decay: of the teacher.
        student: how the student sees an image.
        guard: when the teacher's labels collapse or a class vanishes, go back to the source-only model and leave this
            loss out.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0
    start: Annotated[float, Field(ge=0)] = 0.25
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    student: StudentViews = StudentViews()
    guard: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Any:
        if self.start >= 1 and self.start != int(self.start):
            raise ValueError(f"start {self.start} is neither a share under 1 nor a whole number of steps")
        return self


class MeanTeacher(Objective):
    """Base class of objectives in which a student learns from a moving average of itself.

    Attributes:
        teacher, health: exist after :meth:`setup`.
        counts: further counts by name, which belong to the checkpoint.
        fallback: number of the step at which the loss was given up, 0 before.
    """

    streams = frozenset({"source", "target"})
    settings: Any

    def __init__(self) -> None:
        self.teacher: Any = None
        self.counts: dict[str, Running] = {}
        self.found: dict[str, float] = {}
        self.warned: set[str] = set()

    @property
    def start(self) -> int:
        """The first step, counted from 0, with this loss."""
        start = self.settings.start
        return int(start * self.steps) if start < 1 else int(start)

    @property
    def passes(self) -> tuple[int, int]:
        return 1, 1

    def rests(self, step: int) -> bool:
        """Whether there is no loss at a step."""
        return step < self.start or bool(self.fallback)

    def reads(self, step: int) -> frozenset[str]:
        return self.streams if step >= self.start else frozenset()

    def setup(self, model: Any, run: Run) -> None:
        if self.start >= self.steps:
            _log.warning(
                "self-training would start after %d steps and never does in %d; set a smaller start, or a share",
                self.start,
                self.steps,
            )
        self.teacher = Teacher(model, self.settings.decay, self.start)
        self.kept = Teacher(model, 0, name="source_only") if self.settings.guard else None
        self.health = Health(model.labels.classes, model.device)
        self.fallback = torch.zeros((), dtype=torch.int64)

    def after_step(self, model: Any, step: int) -> bool:
        if self.fallback:
            self.found = {}  # of the teacher that was given up
            return False
        self.teacher.update(model, step)
        if step == self.start - 1 and self.kept:
            self.kept.copy_from(self.teacher)
        if step < self.start:
            return False
        for each in self.counts.values():
            each.step()
        self.found, wrong = self.health.step()
        advice = (
            "compare with a model without self-training; trust less of it, start later or lower the weight"
        )
        if wrong and self.kept:
            self.kept.copy_to(model)
            self.fallback += step + 1
            advice = "training goes back to the source-only model and goes on without self-training"
        for kind in wrong.keys() - self.warned:
            _log.warning("step %d of self-training: %s; %s", step + 1, wrong[kind], advice)
        self.warned |= wrong.keys()
        return bool(self.fallback)

    def facts(self) -> Mapping[str, float]:
        return self.found | ({"fallback": float(self.fallback)} if self.fallback else {})

    def state_dict(self) -> Mapping[str, Tensor]:
        if not self.teacher:
            return {}
        parts = [self.teacher, self.health, *([self.kept] if self.kept else [])]
        state = {name: value for part in parts for name, value in part.state_dict().items()}
        counts = {name: each.value for name, each in self.counts.items()}
        return state | counts | {"fallback": self.fallback}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        for name, value in self.state_dict().items():
            value.copy_(state[name])
