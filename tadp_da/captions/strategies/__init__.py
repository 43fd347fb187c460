"""Caption strategies: pure functions from a caption and its context to a prompt. One file per kind of strategy.

A plug-in registers a :class:`CaptionStrategy`, usually made by :func:`templated`. A strategy has no access to models,
files or the training mode.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tadp_da.captions.template import FIELDS, PromptContext, parse
from tadp_da.class_names import spoken
from tadp_da.errors import UsageError
from tadp_da.registry import Registry, nearest


@dataclass(frozen=True, kw_only=True)
class CaptionStrategy:
    """A named way to turn captions into prompts.

    Attributes:
        rewrite: ``(caption, context) -> prompt``, pure.
        needs_concept: whether ``context.word`` must be set.
        needs_classes: whether ``context.classes`` must be set.
        reads_labels: whether captions are the names of the classes in the image's own label, of test images too: what
            perfect captions would bring, and no method. Every report of such a model says so.
        label_quality: precision and recall of these names; errors are a function of the image
            (:func:`tadp_da.captions.imperfect.imperfect`).
        class_templates: prompts with ``{}`` for a class name. If there are any, the network is given no prompt but one
            embedding for each class, the mean over these templates of the embedding of the end mark.
        class_tokens: of the first template, all tokens of every class name instead, and no end marks.
        prompt_templates: prompts with ``{}`` for the prompt. If there are any, the network is given no tokens but one
            embedding, the mean over these templates of the embedding of the end mark.
        summary: one line for listings.
    """

    rewrite: Callable[[str, PromptContext], str]
    needs_concept: bool = False
    needs_classes: bool = False
    reads_labels: bool = False
    label_quality: tuple[float, float] = (1.0, 1.0)
    class_templates: tuple[str, ...] = ()
    class_tokens: bool = False
    prompt_templates: tuple[str, ...] = ()
    summary: str = ""

    def __call__(self, caption: str, context: PromptContext) -> str:
        return self.rewrite(caption, context)

    def text_length(self, classes: Sequence[str], count_tokens: Callable[[str], int]) -> int | None:
        """How many embeddings the network is given for these classes; None where it reads prompts."""
        if self.prompt_templates:
            return 1
        if not self.class_tokens:
            return len(classes) if self.class_templates else None
        return 1 + sum(count_tokens(self.class_templates[0].format(spoken(name))) for name in classes)


strategies: Registry[CaptionStrategy] = Registry("caption strategy", "tadp_da.captions.strategies")
"""All strategies by name. The contract tests require that a member has a summary, uses the concept's word exactly if it
needs one, never doubles an article, leaves nothing dangling for an empty caption, and uses the template of the domain
unless it is a baseline or a control.
"""


def templated(
    name: str, default: str, *, summary: str, holds: tuple[str, ...] = ("caption",)
) -> CaptionStrategy:
    """A strategy that fills a template: that of the target (``DomainDescription.templates[name]``) if it has one.

    Args:
        name: name of the strategy.
        default: template for domains without one.
        summary: one line for listings.
        holds: fields that every template of this strategy must have, including those of domains.
    """
    fallback = parse(default, holds=holds)

    def rewrite(caption: str, context: PromptContext) -> str:
        own = context.target.templates.get(name)
        return (parse(own, holds=holds) if own is not None else fallback).fill(caption, context)

    return _needing(holds, rewrite, summary)


def _needing(
    fields: Collection[str], rewrite: Callable[[str, PromptContext], str], summary: str
) -> CaptionStrategy:
    return CaptionStrategy(
        rewrite=rewrite, needs_concept="word" in fields, needs_classes="classes" in fields, summary=summary
    )


def find(name_or_template: str) -> CaptionStrategy:
    """A registered strategy, or one from a template such as ``"a {style} photo of {caption}"``.

    Raises:
        UsageError: for an unknown name or an invalid template; the message names the nearest match.
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


__all__ = ["CaptionStrategy", "PromptContext", "find", "strategies", "templated"]
