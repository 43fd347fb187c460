"""English grammar of prompts: repeated articles, ``a`` or ``an``, and captions that loop."""

from __future__ import annotations

import re
from collections.abc import Sequence

ARTICLES = frozenset({"a", "an", "the"})
_COUNTS = "one two three four five six seven eight nine ten some several many few"
_OWNERS = "this that these those his her its their my your our another each every no"
# a noun after one of these takes no article from the template: "a photo of a {caption}" with "two cars"
DETERMINERS = ARTICLES | frozenset(f"{_COUNTS} {_OWNERS}".split())
_SILENT_H = ("hour", "honest", "honour", "honor", "heir")
_YU_OR_WU = re.compile(r"uni(?!n|m)|use|usu|eu|ewe|one\b|once\b|ubiq|uto|ufo", re.IGNORECASE)
_LONGEST_LOOP = 8
_REPEATS = 3  # "a man and a man" is two men; the third time is a loop

_JOINING = frozenset({"and", "or", "with", "-", "|"})


def is_article(token: str) -> bool:
    """Whether a token is an article, in any case."""
    return token.lower() in ARTICLES


def sounds_vowel(token: str) -> bool:
    """Whether this token takes ``an``. Leading punctuation, as in ``<oil>``, is ignored."""
    letters = token.lower().lstrip("<\"'([*_-")
    if _YU_OR_WU.match(letters):
        return False
    return letters.startswith(("a", "e", "i", "o", "u", *_SILENT_H))


def agree(article: str, token: str) -> str:
    """``a`` or ``an`` as required by the next token; ``the`` is unchanged."""
    if article.lower() == "the":
        return article
    fitting = "an" if sounds_vowel(token) else "a"
    return fitting.capitalize() if article[0].isupper() else fitting


def single_articles(tokens: Sequence[str]) -> list[str]:
    """Of consecutive articles only the last, which belongs to the noun: ``a photo of a the car`` loses an ``a``."""
    ahead = [*tokens[1:], ""]
    return [t for t, after in zip(tokens, ahead, strict=False) if not (is_article(t) and is_article(after))]


def without_loop(text: str) -> str:
    """The text with a phrase that is repeated three times or more reduced to one, its truncated last copy included.

    ``golden eagle, golden eagle, golden eagle, golde`` becomes ``golden eagle``; text that does not loop is returned
    unchanged. Phrases of up to 8 words are considered.
    """
    words = text.split()
    plain = [w.lower().strip(",.;") for w in words]
    for start in range(len(words)):
        for period in range(1, min(_LONGEST_LOOP, (len(words) - start + 1) // _REPEATS) + 1):
            end = start + period
            while end < len(words) and plain[end] == plain[end - period]:
                end += 1
            # the last copy may lack its joining word: "a car and a car and a car"
            joined = period > 1 and plain[start + period - 1] in _JOINING
            if end - start < _REPEATS * period - joined:
                continue
            if end == len(words) - 1 and plain[end - period].startswith(plain[end]):
                end += 1  # cut off inside a word by the length limit
            kept = words[start : start + period - joined]
            kept[-1] = kept[-1].rstrip(",;")
            return " ".join([*words[:start], *kept, *words[end:]])
    return text


def loops(text: str) -> bool:
    """Whether a phrase is repeated three times in a row or more, a common failure of captioners."""
    return without_loop(text) != text
