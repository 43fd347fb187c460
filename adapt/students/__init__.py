"""Students: small networks that learn a large model's predictions, one file each.

A member is a :class:`Student`, registered by name: a backbone and, for each task that it can learn, a head, both of
their registries. So a student is a perception model like any other. ``tests/contract/test_students.py`` covers a new
member from the moment its file exists.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tadp_da.backbones import Backbone, load_backbone
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.registry import Registry
from tadp_da.settings import Choice

_log = logging.getLogger(__name__)
RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Student:
    """A small network.

    Attributes:
        backbone: a backbone that reads no text, knows the model ``random``, and its settings.
        weights: pretrained weights that it starts from, as the backbone names them.
        heads: by task, which head reads it, and its settings.
    """

    backbone: Choice
    weights: str
    heads: Mapping[str, Choice]

    def load(self, weights: str, seed: int) -> Backbone:
        """The backbone with pretrained weights, or with random ones, a function of the seed, where there are none.

        Args:
            weights: which; empty for :attr:`weights`, or, with a warning, random ones where those cannot be had.
            seed: of random weights.
        """
        name, settings = self.backbone.name, self.backbone.settings
        try:
            backbone = load_backbone(name, weights or self.weights, settings)
        except EnvironmentSetupError as error:
            if weights:
                raise
            _log.warning(
                "the student starts from random weights, because its pretrained ones are not here (%s); to start from "
                "pretrained ones give --weights FILE",
                error.what,
            )
            weights, backbone = RANDOM, load_backbone(name, RANDOM, settings)
        if weights == RANDOM:
            backbone.reinitialize(seed)
        return backbone

    def build(
        self, teacher: PerceptionModel, backbone: Backbone, changes: Mapping[str, Any], seed: int
    ) -> PerceptionModel:
        """The untrained student of a teacher: the same labels, and the same sizes of images.

        Args:
            teacher: where it has the same head, its settings of it hold too.
            backbone: of :meth:`load`.
            changes: further settings of the head.
            seed: of the head's first weights.

        Raises:
            UsageError: when it cannot learn the teacher's task.
        """
        head = self.heads.get(teacher.labels.task)
        if head is None:
            able = [name for name in students if teacher.labels.task in students[name].heads]
            raise UsageError(
                f"this student cannot learn {teacher.labels.task}, only {' and '.join(self.heads)}",
                where="--student",
                fix=f"choose from: {', '.join(able) or 'none yet; add one in adapt/students'}",
            )
        same = teacher.head_settings if teacher.head_name == head.name else {}
        settings: dict[str, Any] = {**same, **head.settings, "use_attention": False, **changes}
        return PerceptionModel.assemble(
            backbone, head.name, teacher.labels, inference=teacher.inference, seed=seed, **settings
        )


students: Registry[Student] = Registry("student", "adapt.students")
