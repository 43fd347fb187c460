"""Objectives: what stage 2 minimizes, on labelled source images, on unlabelled target images, or on both."""

from __future__ import annotations

from typing import Any

from tadp_da.registry import Registry
from tadp_da.training.objective import Objective as AnyObjective


class Objective(AnyObjective):
    """Base class of stage 2's objectives.

    Attributes:
        pixels: whether it must have pixels, so that latents are not cached in their place.
        tasks: names of the tasks that it works with; empty for all.
    """

    pixels: bool = False
    tasks: frozenset[str] = frozenset()

    @property
    def passes(self) -> tuple[int, int]:
        """Forward passes for each target image, without and with a backward pass, for `tadp-da plan`."""
        return 0, int("target" in self.streams)

    def needs_pixels(self, stream: str) -> bool:
        """:attr:`pixels` of a stream, by its settings."""
        return self.pixels


objectives: Registry[Any] = Registry("objective", "adapt.objectives")
"""Built by ``objectives[name](settings: Settings)``, where ``Settings`` is the class's attribute of that name, a frozen
pydantic dataclass whose defaults can be trained with; the instance keeps them as ``settings``.

A member derives from :class:`Objective`, and one instance trains one model:

- ``streams`` names what it reads: ``"source"``, ``"target"`` or both. A source batch holds ``text (b, t, d)``, either
  ``pixels (b, 3, h, w)`` or cached ``latents (b, c, u, v)``, their ``size`` and the ``target`` of ``head.loss``. A
  target batch holds ``valid``, ``bool (b, h, w)``, in place of the label: True on the image, False on padding.
- ``pixels`` is True if cached latents are not enough.
- ``reads(step)`` may leave out streams at some steps; ``facts`` are written to ``metrics.jsonl``.
- ``adapt.batches.raw_outputs`` returns the model's outputs for a batch of either kind.
- all of its randomness comes from the generators: the same step twice gives the same losses.
- the losses are finite scalars, and at least one has a gradient for the model's trainable parameters.
- its own networks, such as an EMA teacher, are created in ``setup``, updated in ``after_step`` and never reached by the
  optimizer; ``state_dict`` holds them, so that a resumed run ends at the same bits.
"""

__all__ = ["Objective", "objectives"]
