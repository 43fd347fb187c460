"""Caption strategies: pure functions from a caption and a cue to a prompt. One file per kind of strategy.

A strategy sees the caption and the cue, nothing else: no model, no file, no training flag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tadp_da.registry import Registry
from tadp_da.types import Side, Wording


@dataclass(frozen=True, kw_only=True)
class Cue:
    """What a strategy may know.

    Attributes:
        side: whose image the caption belongs to.
        source: words of the source domain.
        target: words of the target domain.
        word: the concept's word as it stands in a prompt (several vectors: several placeholder tokens
            separated by blanks), or None when nothing was personalized.
        classes: class names of the task.
    """

    side: Side
    source: Wording
    target: Wording
    word: str | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CaptionStrategy:
    """A named way to write prompts.

    Attributes:
        rewrite: ``(caption, cue) -> prompt``, pure.
        needs_concept: whether ``cue.word`` must be set.
        summary: one line for listings.
    """

    rewrite: Callable[[str, Cue], str]
    needs_concept: bool = False
    summary: str = ""

    def __call__(self, caption: str, cue: Cue) -> str:
        return self.rewrite(caption, cue)


strategies: Registry[CaptionStrategy] = Registry("caption strategy", "tadp_da.captions")
