"""Captions: what is said about an image, and the strategies that make prompts of it.

A strategy is a pure function from a caption and a cue to a prompt: it sees no model, no file and no training
flag. One file per kind of strategy. ``rewrite.py`` applies a strategy on both sides, ``clean.py`` prepares
captions, ``files.py`` reads and writes them, ``captioner.py`` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tadp_da.captions._template import FIELDS, parse
from tadp_da.errors import UsageError
from tadp_da.registry import Registry, nearest
from tadp_da.types import Side, Wording


@dataclass(frozen=True, kw_only=True)
class Cue:
    """What a strategy may know.

    Attributes:
        side: whose image the caption belongs to.
        source: words of the source domain.
        target: words of the target domain.
        word: the concept's word as it stands in a prompt (several vectors: several placeholder tokens separated
            by blanks), or None when nothing was personalized.
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
        needs_classes: whether ``cue.classes`` must be set.
        summary: one line for listings.
    """

    rewrite: Callable[[str, Cue], str]
    needs_concept: bool = False
    needs_classes: bool = False
    summary: str = ""

    def __call__(self, caption: str, cue: Cue) -> str:
        return self.rewrite(caption, cue)


strategies: Registry[CaptionStrategy] = Registry("caption strategy", "tadp_da.captions")


def templated(
    name: str, default: str, *, summary: str, holds: tuple[str, ...] = ("caption",)
) -> CaptionStrategy:
    """A strategy that fills a template: the target's own (``Wording.templates[name]``) where it has one.

    Args:
        name: name of the strategy.
        default: template for domains that have none of their own.
        summary: one line for listings.
        holds: fields that every template of this strategy must have, the domain's own too.
    """
    fallback = parse(default, holds=holds)

    def rewrite(caption: str, cue: Cue) -> str:
        own = cue.target.templates.get(name)
        return (parse(own, holds=holds) if own is not None else fallback).fill(caption, cue)

    return _needing(holds, rewrite, summary)


def _needing(fields: Collection[str], rewrite: Callable[[str, Cue], str], summary: str) -> CaptionStrategy:
    return CaptionStrategy(
        rewrite=rewrite, needs_concept="word" in fields, needs_classes="classes" in fields, summary=summary
    )


def find(name_or_template: str) -> CaptionStrategy:
    """The strategy of that name, or one made of a template such as ``"a {style} photo of {caption}"``.

    Raises:
        UsageError: for an unknown name or a template that cannot be used; the message names the nearest match.
    """
    if "{" in name_or_template or "}" in name_or_template:
        template = parse(name_or_template)
        return _needing(template.fields, template.fill, f"your template {template.text!r}")
    if name_or_template not in strategies:
        known = list(strategies)
        raise UsageError(
            f"unknown caption strategy {name_or_template!r}{nearest(name_or_template, known)}",
            fix=f"choose one of: {', '.join(known)}; or write a template with {{caption}} and any of "
            + ", ".join(f"{{{field}}}" for field in FIELDS[1:]),
        )
    return strategies[name_or_template]


__all__ = ["CaptionStrategy", "Cue", "find", "strategies", "templated"]
