"""English at the seams of a prompt: articles that meet, runs of blanks, captions that loop."""

from __future__ import annotations

import re
from collections.abc import Sequence

ARTICLES = frozenset({"a", "an", "the"})
_COUNTS = "one two three four five six seven eight nine ten some several many few"
_OWNERS = "this that these those his her its their my your our another each every no"
# a noun behind one of these takes no article of the template's: "a photo of a {caption}" with "two cars"
DETERMINERS = ARTICLES | frozenset(f"{_COUNTS} {_OWNERS}".split())
_SILENT_H = ("hour", "honest", "honour", "honor", "heir")
_YU_OR_WU = re.compile(r"uni(?!n|m)|use|usu|eu|ewe|one\b|once\b|ubiq|uto|ufo", re.IGNORECASE)
_LONGEST_LOOP = 8
_REPEATS = 3  # "a man and a man" is two men; the third time is a loop

_JOINING = frozenset({"and", "or", "with", "-", "|"})


def is_article(token: str) -> bool:
    """Whether a blank-separated token is an article, in any case."""
    return token.lower() in ARTICLES


def sounds_vowel(token: str) -> bool:
    """Whether ``an`` stands before this token. Marks in front, as in ``<oil>``, are not spoken."""
    letters = token.lower().lstrip("<\"'([*_-")
    if _YU_OR_WU.match(letters):
        return False
    return letters.startswith(("a", "e", "i", "o", "u", *_SILENT_H))


def agree(article: str, token: str) -> str:
    """``a`` or ``an`` as the next token sounds; ``the`` stays."""
    if article.lower() == "the":
        return article
    fitting = "an" if sounds_vowel(token) else "a"
    return fitting.capitalize() if article[0].isupper() else fitting


def single_articles(tokens: Sequence[str]) -> list[str]:
    """Of articles in a row only the last, which the noun brought along: ``a photo of a the car`` loses an ``a``."""
    ahead = [*tokens[1:], ""]
    return [t for t, after in zip(tokens, ahead, strict=False) if not (is_article(t) and is_article(after))]


def without_loop(text: str) -> str:
    """The text with a phrase that comes three times in a row or more said once, and its broken last copy gone.

    ``golden eagle, golden eagle, golden eagle, golde`` becomes ``golden eagle``; text that does not loop is
    returned as it is. Phrases of up to 8 words count.
    """
    words = text.split()
    spoken = [w.lower().strip(",.;") for w in words]
    for start in range(len(words)):
        for period in range(1, min(_LONGEST_LOOP, (len(words) - start + 1) // _REPEATS) + 1):
            end = start + period
            while end < len(words) and spoken[end] == spoken[end - period]:
                end += 1
            # the last copy may lack its joining word: "a car and a car and a car"
            joined = period > 1 and spoken[start + period - 1] in _JOINING
            if end - start < _REPEATS * period - joined:
                continue
            if end == len(words) - 1 and spoken[end - period].startswith(spoken[end]):
                end += 1  # cut off inside a word by the length limit
            kept = words[start : start + period - joined]
            kept[-1] = kept[-1].rstrip(",;")
            return " ".join([*words[:start], *kept, *words[end:]])
    return text


def loops(text: str) -> bool:
    """Whether a phrase comes three times in a row or more: the captioner lost its way."""
    return without_loop(text) != text
