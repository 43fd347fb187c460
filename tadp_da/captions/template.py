"""Templates such as ``"a {style} {medium} of {caption}"``, filled with correct English articles.

Only plain field names are allowed: no attribute, index or format specification, so a template from a recipe cannot
reach anything else. ``{caption!r}`` inserts the caption unchanged and disables the corrections, to reproduce prompts
that were published with doubled articles.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from functools import lru_cache

from tadp_da.captions.text import DETERMINERS, agree, is_article, single_articles
from tadp_da.class_names import spoken
from tadp_da.errors import UsageError
from tadp_da.registry import nearest
from tadp_da.types import DomainDescription, Side


@dataclass(frozen=True, kw_only=True)
class PromptContext:
    """What a strategy may use besides the caption.

    Attributes:
        side: whether the caption belongs to a source or a target image.
        source: description of the source domain.
        target: description of the target domain.
        word: the concept's word as written in a prompt (several vectors: several placeholder tokens separated by
            spaces), or None without personalization.
        classes: class names of the task.
    """

    side: Side
    source: DomainDescription
    target: DomainDescription
    word: str | None = None
    classes: tuple[str, ...] = ()


FIELDS = ("caption", "style", "medium", "word", "classes", "nearby", "unrelated")
_DANGLING = re.compile(
    r"(?:(?:^|\s)(?:of|with|showing|shows|depicting|about|from|in)(?:\s+(?:a|an|the))?|:)\s*$", re.IGNORECASE
)
PERSONALIZE = (
    "learn one from unlabelled target images: tadp-da personalize IMAGES --method textual-inversion --out CONCEPT "
    "(or --method dreambooth), and pass it with --concept CONCEPT"
)
NAME_CLASSES = "name the classes of the task; a labelled domain has them"


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
        text: the source text.
        parts: pairs of literal text and the field that follows; the last field may be empty.
        raw: whether the caption is inserted unchanged.
    """

    text: str
    parts: tuple[tuple[str, str], ...]
    raw: bool

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields in the template."""
        return frozenset(field for _, field in self.parts if field)

    def fill(self, caption: str, context: PromptContext) -> str:
        """The prompt for a caption, without doubled articles, repeated spaces or a dangling ``of``.

        Fields describe the target on both sides: TADP trains with the words that it tests with.

        Raises:
            UsageError: if it has ``{word}`` or ``{classes}`` and the context does not.
        """
        values = _values(self, caption, context)
        if self.raw:
            return "".join(literal + values.get(field, "") for literal, field in self.parts)
        return _correct(*_join(self.parts, values))


@lru_cache(maxsize=256)
def parse(text: str, *, holds: tuple[str, ...] = ("caption",)) -> Template:
    """Parse a template.

    Args:
        text: the template.
        holds: required fields.

    Raises:
        UsageError: for unbalanced braces, an unknown or missing field, an attribute, an index, or a format
            specification.
    """
    try:
        found = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UsageError(
            f"template {text!r} cannot be parsed: {error}",
            fix="pair the braces, e.g. 'a {style} photo of {caption}'",
        ) from None
    raw = False
    for _, field, spec, conversion in found:
        if field is None:
            continue
        if field not in FIELDS:
            raise UsageError(
                f"template {text!r} has an unknown field {field!r}{nearest(field, list(FIELDS))}",
                fix=f"use only: {', '.join(f'{{{name}}}' for name in FIELDS)}",
            )
        if spec or (conversion and (field, conversion) != ("caption", "r")):
            raise UsageError(
                f"template {text!r} formats field {field!r}",
                fix=f"write {{{field}}} without a format; only {{caption}} may be {{caption!r}}",
            )
        raw = raw or conversion == "r"
    template = Template(text, tuple((literal, field or "") for literal, field, _, _ in found), raw)
    if missing := [name for name in holds if name not in template.fields]:
        raise UsageError(
            f"template {text!r} has no field {{{missing[0]}}}",
            fix="add it, e.g. 'a {style} photo of {caption}'",
        )
    return template


def _values(template: Template, caption: str, context: PromptContext) -> dict[str, str]:
    fields, target = template.fields, context.target
    for field, lacks, what, fix in (
        ("word", not context.word, "a concept's word, and no concept was given", PERSONALIZE),
        ("classes", not context.classes, "class names, and none were given", NAME_CLASSES),
    ):
        if field in fields and lacks:
            raise UsageError(f"template {template.text!r} needs {what}", fix=fix)
    values = {
        "caption": caption,
        "style": target.style,
        "medium": target.medium,
        "word": context.word or "",
        "classes": ", ".join(map(spoken, context.classes)),
        "nearby": target.nearby,
        "unrelated": target.unrelated,
    }
    return values if template.raw else {name: " ".join(value.split()) for name, value in values.items()}


def _join(parts: tuple[tuple[str, str], ...], values: dict[str, str]) -> tuple[str, list[bool]]:
    """The filled text, and for each character whether it comes from the template."""
    text = ""
    written: list[bool] = []
    for literal, field in parts:
        value = values.get(field, "")
        text, written = text + literal, written + [True] * len(literal)
        if field == "caption":
            first = value.split(" ", 1)[0].lower()
            if not value:
                text = _DANGLING.sub("", text)
            elif first in DETERMINERS or first.isdecimal():
                text = re.sub(r"(^|\s)(a|an|the)(\s+)$", r"\1", text, flags=re.IGNORECASE)
            written = written[: len(text)]
        text, written = text + value, written + [False] * len(value)
    return text, written


def _correct(text: str, written: list[bool]) -> str:
    """One space between tokens, one article before a noun, ``a`` or ``an`` as required by the inserted word."""
    found = list(re.finditer(r"\S+", text))
    tokens = [match[0] for match in found]
    for i in range(len(found) - 1):
        if is_article(tokens[i]) and written[found[i].start()] and not is_article(tokens[i + 1]):
            filled = not all(written[slice(*found[i + 1].span())])
            tokens[i] = agree(tokens[i], tokens[i + 1]) if filled else tokens[i]
    return re.sub(r"\s+([,.;:])(?=\s|$)", r"\1", " ".join(single_articles(tokens)))
