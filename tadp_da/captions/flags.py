"""Unusual captions, and the fallback for missing ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from tadp_da.captions.text import loops
from tadp_da.errors import UsageError
from tadp_da.registry import nearest

FALLBACK = "class-names"
_MOST_WORDS = 75
"""A word has at least one token, and CLIP reads 77 including begin and end."""
_MARKUP = re.compile(
    r"</?(?:a|b|i|p|br|div|span|img|svg|style|script|iframe|html|body|table|td|tr|li|ul|h\d|font|strong|em)\b[^>]*>"
    r"|&(?:[a-z]{2,8}|#x?[0-9a-f]+);",
    re.IGNORECASE,
)


def flags(caption: str) -> tuple[str, ...]:
    """What is unusual about a caption: empty, looping (a phrase three times in a row), too long for any prompt, control
    characters or markup. All of it is harmless: nothing in a caption is executed, and reports escape it."""
    kinds = {
        "empty": not caption.strip(),
        "looping": loops(caption),
        f"longer than {_MOST_WORDS} words and will be cut": len(caption.split()) > _MOST_WORDS,
        "with control characters": not caption.isprintable(),
        "with markup": bool(_MARKUP.search(caption)),
    }
    return tuple(kind for kind, found in kinds.items() if found)


def notes(captions: Mapping[str, str]) -> list[str]:
    """One phrase per flag with its count and first key."""
    found = [(kind, key) for key, caption in captions.items() for kind in flags(caption)]
    first = dict(reversed(found))
    counts = Counter(kind for kind, _ in found).items()
    return [f"{count} of {len(captions)} captions are {kind}, e.g. {first[kind]}" for kind, count in counts]


def fallback_caption(choice: str, classes: Sequence[str]) -> str | None:
    """The caption of images that are missing in a caption file: ``"class-names"`` lists all classes; None if empty.

    Raises:
        UsageError: for another choice, or if there are no class names.
    """
    if not choice:
        return None
    if choice != FALLBACK:
        raise UsageError(
            f"unknown caption fallback {choice!r}{nearest(choice, [FALLBACK])}",
            where="--caption-fallback",
            fix=f"choose {FALLBACK}, or omit it: then missing captions are an error",
        )
    if not classes:
        raise UsageError(
            "the caption fallback needs class names, and there are none", fix="name the classes of the task"
        )
    return ", ".join(classes)
