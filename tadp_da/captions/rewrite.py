"""Applying a strategy: captions of source and target become prompts that fit the tokenizer.

rewrite = Rewrite(strategy="simple", target_description=DomainDescription(style="dark night"))
rewrite.target("a car on a street")                       # 'a dark night photo of a car on a street'
prompts, shortened = fit_all(rewrite.target, captions, backbone.count_tokens, backbone.token_limit)
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cache
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings

from tadp_da.captions.clean import clean
from tadp_da.captions.strategies import CaptionStrategy, PromptContext, find, strategies
from tadp_da.captions.template import NAME_CLASSES, PERSONALIZE
from tadp_da.errors import DataError, UsageError
from tadp_da.registry import nearest
from tadp_da.types import DomainDescription, Side

CountTokens = Callable[[str], int]
Write = Callable[[str], str]

_log = logging.getLogger(__name__)
_SIDES: tuple[Side, Side] = ("source", "target")
_LOOSE_ENDS = frozenset(
    {"a", "an", "the", "and", "or", "of", "with", "in", "on", "at", "by", "to", "from", "for", "that", "next"}
)


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Rewrite:
    """How captions become prompts on the source and the target.

    Attributes:
        strategy: a strategy's name, or a template with ``{caption}``.
        side: ``"both"`` rewrites source and target in the same way, so that training and test prompts agree;
            ``"target"`` leaves the source with plain captions.
        source_description: how captions describe the source domain.
        target_description: how captions describe the target domain; templates use it on both sides.
        word: the concept's word (``Concept.prompt_word``), if the strategy uses it.
        classes: class names of the task, if the strategy lists them.
        clean: remove bullets and style phrases from target captions, for domains of art
            (:func:`tadp_da.captions.clean.clean`).

    Raises:
        UsageError: if the strategy or a template of the domain is unknown or cannot be filled.
    """

    strategy: str = "null"
    side: Literal["both", "target"] = "both"
    source_description: DomainDescription = field(default_factory=DomainDescription)
    target_description: DomainDescription = field(default_factory=DomainDescription)
    word: str | None = None
    classes: tuple[str, ...] = ()
    clean: bool = False

    def __post_init__(self) -> None:
        for name in self.target_description.templates:
            if name not in strategies:
                raise UsageError(
                    f"the target's description has a template for an unknown strategy {name!r}"
                    f"{nearest(name, list(strategies))}",
                    fix=f"name one of: {', '.join(strategies)}",
                )
        if lack := _lack(self._strategy, self.word, self.classes):
            raise UsageError(f"strategy {self.strategy!r} {lack[0]}, and none was given", fix=lack[1])
        if self.side == "target" and (self.reads_labels or self.embeds):
            raise UsageError(
                f"strategy {self.strategy!r} replaces captions, and is to be used on the target's side alone",
                where="sides",
                fix="use sides: both, so that the network is tested with what it was trained with",
            )
        self.target("a probe")  # refuse a template that cannot be filled now, not after an hour of training

    @property
    def _strategy(self) -> CaptionStrategy:
        return find(self.strategy)

    @property
    def reads_labels(self) -> bool:
        """Whether captions are the classes in the images' own labels (:class:`CaptionStrategy`)."""
        return self._strategy.reads_labels

    @property
    def label_quality(self) -> tuple[float, float] | None:
        """Precision and recall of those classes; None where captions are not from labels."""
        return self._strategy.label_quality if self.reads_labels else None

    @property
    def class_templates(self) -> tuple[str, ...]:
        """Templates of class embeddings, which the network gets instead of a prompt; usually none."""
        return self._strategy.class_templates

    @property
    def class_tokens(self) -> bool:
        """Whether these are the tokens of the class names."""
        return self._strategy.class_tokens

    @property
    def prompt_templates(self) -> tuple[str, ...]:
        """Templates over which a prompt is embedded as a whole; usually none."""
        return self._strategy.prompt_templates

    @property
    def embeds(self) -> bool:
        """Whether the network is given averaged embeddings instead of the tokens of a prompt."""
        return bool(self.class_templates or self.prompt_templates)

    def text_length(self, count_tokens: CountTokens) -> int | None:
        """How many embeddings the network is given instead of a prompt; usually None."""
        return self._strategy.text_length(self.classes, count_tokens)

    def counted(self, count_tokens: CountTokens) -> CountTokens:
        """Counts the tokens of a prompt in the longest of :attr:`prompt_templates`, where it is embedded in these."""
        if not self.prompt_templates:
            return count_tokens
        longest = max(self.prompt_templates, key=lambda template: count_tokens(template.format("a")))
        return lambda prompt: count_tokens(longest.format(prompt))

    def _write(self, strategy: CaptionStrategy, caption: str, side: Side) -> str:
        context = PromptContext(
            side=side,
            source=self.source_description,
            target=self.target_description,
            word=self.word,
            classes=self.classes,
        )
        return strategy(caption, context)

    def source(self, caption: str) -> str:
        """The prompt of a source image."""
        return self._write(self._strategy if self.side == "both" else strategies["null"], caption, "source")

    def target(self, caption: str) -> str:
        """The prompt of a target image."""
        return self._write(self._strategy, clean(caption) if self.clean else caption, "target")


def _lack(strategy: CaptionStrategy, word: str | None, classes: Sequence[str]) -> tuple[str, str] | None:
    """What a strategy needs and does not have, and how to get it."""
    if strategy.needs_concept and not word:
        return "needs a concept's word", PERSONALIZE
    if strategy.needs_classes and not classes:
        return "needs class names", NAME_CLASSES
    return None


class Fitted(NamedTuple):
    """A prompt within the tokenizer's limit, the part of the caption in it, and the end that does not fit."""

    prompt: str
    kept: str
    dropped: str = ""


def fit(write: Write, caption: str, count_tokens: CountTokens, limit: int) -> Fitted:
    """The prompt of a caption, which is shortened word by word from its end until the prompt fits.

    Only the caption is shortened: truncation by the tokenizer would cut the end of the prompt, and with it a concept's
    word there. A dangling article or preposition at the end is removed too.

    Args:
        write: from caption to prompt, ``rewrite.source`` or ``rewrite.target``.
        caption: the caption.
        count_tokens: tokens of a prompt without begin and end marks.
        limit: the maximum number of tokens.

    Raises:
        UsageError: if the prompt is too long even without a caption.
    """
    prompt = write(caption)
    if count_tokens(prompt) <= limit:
        return Fitted(prompt, caption)
    words = caption.split()

    def tokens(count: int) -> int:
        return count_tokens(write(" ".join(words[:count])))

    kept = max(bisect_right(range(len(words) + 1), limit, key=tokens) - 1, 0)
    # with tokenizers that merge across spaces, fewer words can be more tokens
    while kept and (words[kept - 1].lower().strip(",.;") in _LOOSE_ENDS or tokens(kept) > limit):
        kept -= 1
    short = " ".join(words[:kept]).rstrip(",;")
    prompt = write(short)
    if (count := count_tokens(prompt)) > limit:
        raise UsageError(
            f"a prompt has {count} tokens without any caption, and the limit of the tokenizer is {limit}",
            where=prompt if len(prompt) <= 200 else prompt[:200] + "...",
            fix="shorten the template, learn the concept with fewer vectors, or name fewer classes",
        )
    return Fitted(prompt, short, " ".join(words[kept:]))


def fit_and_tell(write: Write, caption: str, count_tokens: CountTokens, limit: int) -> str:
    """The prompt of :func:`fit`; warns once per process when a caption is shortened."""
    fitted = fit(write, caption, count_tokens, limit)
    if fitted.dropped:
        _warn_shortened(limit)
    return fitted.prompt


@cache
def _warn_shortened(limit: int) -> None:
    _log.warning(
        "captions that do not fit into the tokenizer's %d tokens with their prompt are shortened", limit
    )


def fit_all(
    write: Write, captions: Mapping[str, str], count_tokens: CountTokens, limit: int
) -> tuple[dict[str, str], str]:
    """Prompts by key, each within the limit, and one line about captions that were shortened, empty if none was.

    Raises:
        UsageError: if a prompt is too long even without a caption.
    """
    fitted = {key: fit(write, caption, count_tokens, limit) for key, caption in captions.items()}
    prompts = {key: one.prompt for key, one in fitted.items()}
    shortened = {key: one for key, one in fitted.items() if one.kept != captions[key]}
    if not shortened:
        return prompts, ""
    key, first = next(iter(shortened.items()))
    return prompts, (
        f"{len(shortened)} of {len(fitted)} captions were shortened to fit {limit} tokens; "
        f"the first, {key}, lost {first.dropped!r} after {first.kept!r}"
    )


class RewrittenCaption(NamedTuple):
    """One line of ``tadp-da rewrite``. If a strategy lacks something, or reads labels, ``prompt`` is empty and ``note``
    says so."""

    strategy: str
    side: Side
    caption: str
    prompt: str
    note: str = ""


def rewrite_rows(
    captions: Sequence[str],
    target_description: DomainDescription,
    *,
    names: Sequence[str] = (),
    word: str | None = None,
    classes: tuple[str, ...] = (),
    **settings: Any,
) -> list[RewrittenCaption]:
    """The prompt of each strategy for each caption on each side.

    Args:
        captions: the captions to show.
        target_description: description of the target.
        names: strategy names or templates; empty for all registered ones.
        word: a concept's word. Without ``names``, strategies that need a missing word are listed with a note.
        classes: class names of the task, in the same way.
        settings: further ones of :class:`Rewrite`.

    Raises:
        UsageError: if ``names`` has an unknown strategy or one that cannot be filled.
        DataError: if there is no caption.
    """
    if not captions:
        raise DataError(
            "there is no caption to rewrite", fix="give captions, or a caption file that is not empty"
        )
    rows = []
    # imperfect oracles differ from the oracle in names that they leave out or add, which needs a label to show
    known = [name for name in strategies if strategies[name].label_quality == (1.0, 1.0)]
    for name in names or known:
        if find(name).reads_labels:
            note = "the classes in each image's label"
            rows += [RewrittenCaption(name, s, text, "", note) for s in _SIDES for text in captions]
            continue
        if not names and (lack := _lack(strategies[name], word, classes)):
            rows += [RewrittenCaption(name, s, text, "", lack[0]) for s in _SIDES for text in captions]
            continue
        one = Rewrite(
            strategy=name, target_description=target_description, word=word, classes=classes, **settings
        )
        rows += [RewrittenCaption(name, s, text, getattr(one, s)(text)) for s in _SIDES for text in captions]
    return rows
