"""Cleaning captions: an explicit step that reports what it changed.

Captioners produce bullets, list numbers and loops, and for works of art they name the technique (``- a watercolor
painting of a dog``). The strategy adds the style, once; the caption should hold the content only. TADP does this with a
language model; here it is a list of readable rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from tadp_da.captions.text import agree, is_article, without_loop

Step = Callable[[str], str]

_NUMBER = r"(?:two|three|four|five|six|several|some|many|different|various|a (?:series|set|collection|group|pair) of)"
_DETERMINER = rf"(?:(?:this|here|there|it) is )?(?:(?:an?|the|{_NUMBER})\s+)*"
_MANNER = (
    r"(?:(?:black and white|watercolou?r|digital|pencil|ink|pen|oil|acrylic|charcoal|crayon|chalk|hand[- ]drawn|"
    r"stylized|colou?rful|colou?r|coloured|colored|line|vector|abstract|cartoon|comic|comic book|manga|anime|fan|"
    r"fine art)\s+)*"
)
_PIECE = (
    r"(?:paintings?|drawings?|depictions?|illustrations?|portraits?|sketch(?:es)?|renderings?|renditions?|images?|"
    r"pictures?|photos?|photographs?|cartoons?|caricatures?|prints?|posters?|artworks?|works? of art|art|"
    r"watercolou?rs?|"
    r"graphics?|sketch ?books?|comics?|manga|comic (?:strips?|books?|panels?|pages?|art)|strips?|panels?|pages?|"
    r"comic book pages?|(?:magazine )?covers?|clip ?arts?)"
)
_OUT_OF = (
    r"(?:\s+(?:from|of|in)\s+(?:an?\s+|the\s+)?"
    r"(?:comic books?|comics?|manga magazine|magazine|manga|graphic novel|sketch ?book))?"
)
_LINK = (
    r"(?:,?\s+(?:of|with|showing|shows?|depicting|depicts?|about|featuring|features|that shows|that depicts|"
    r"in which)\s+|:\s*)"
)
_STYLE_AT_START = re.compile(
    rf"^(?:how to draw|{_DETERMINER}{_MANNER}{_PIECE}{_OUT_OF}{_LINK})\s*(?=\w|[\"'])", re.IGNORECASE
)
_STYLE_AT_END = re.compile(
    rf"(?:,?\s+(?:shown|done|painted|drawn|rendered|made)?\s*in\s+(?:an?\s+|the\s+)?{_MANNER}"
    r"(?:watercolou?rs?|cartoon|comic|painting|drawing|sketch|portrait|illustration)"
    r"(?:\s+(?:style|effect|look|form|strip|book|panel|page|painting|drawing|illustration|portrait))?"
    r"|,?\s+(?:(?:watercolou?r|pencil|ink|digital|oil|cartoon|comic)\s+(?:paintings?|drawings?|portraits?|illustrations?|"
    r"sketch(?:es)?|prints?|strips?|art)|illustration|portrait|fine art print|comic art|comic strip))(?:\s+vector)?$",
    re.IGNORECASE,
)
_STYLE_WORD = re.compile(
    r"\b(?P<article>an?\s+)?(?:cartoon|watercolou?r|comic book|comic)\s+(?=(?P<noun>\w+))", re.IGNORECASE
)
_LINKING = frozenset(
    {"of", "by", "with", "and", "in", "on", "about", "is", "are", "for", "to", "from", "or", "as", "at"}
)
_WORDS_OF_STYLE = re.compile(
    r"\b(?:paint(?:ings?|ed)|watercolou?rs?|drawings?|comics?|depict\w*|portraits?|illustrat\w+|cartoons?|sketch\w*|"
    r"renderings?|caricatures?)\b",
    re.IGNORECASE,
)


def _plain_characters(text: str) -> str:
    """Control and format characters become spaces; zero-width characters are removed."""
    text = re.sub("[\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\u00ad]", "", text)
    return "".join(c if c.isprintable() else " " for c in text)


def _small_article(text: str) -> str:
    """``A car`` becomes ``a car``, for use inside a sentence."""
    first = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if is_article(first) and " " in text else text


def _without_style(text: str) -> str:
    """The content without the technique; a caption that holds nothing else, or whose last word would be left without
    what it belongs to (``a man in a``), is unchanged."""
    for short in (_STYLE_AT_START.sub("", text), _STYLE_AT_END.sub("", text), _STYLE_WORD.sub(_drop, text)):
        if short != text and short and not (_is_loose(short.split()[-1]) and not _is_loose(text.split()[-1])):
            return short
    return text


def _is_loose(word: str) -> bool:
    return is_article(word) or word.lower() in _LINKING


def _drop(match: re.Match[str]) -> str:
    """``a cartoon owl`` becomes ``an owl``; ``a cartoon of an owl`` is unchanged: there the word is the noun."""
    if match["noun"].lower() in _LINKING:
        return match[0]
    return agree(match["article"].strip(), match["noun"]) + " " if match["article"] else ""


_ALWAYS: tuple[tuple[str, Step], ...] = (
    ("control characters", _plain_characters),
    ("spaces", lambda text: " ".join(text.split())),
    # "- a dog", "* a dog" and the "12. a dog" of a numbered list become "a dog"
    ("bullets", partial(re.sub, r"^(?:[-*•\u2013\u2014]+\s+|\d{1,4}[.)]\s+)(?=\S)", "")),
    # a template may continue after the caption
    ("full stops", partial(re.sub, r"(?<=[\w\"')])\.$", "")),
    ("loops", without_loop),
    ("capital articles", _small_article),
)
_ART: tuple[tuple[str, Step], ...] = (("style phrases", _without_style),)


def _clean(caption: str, art: bool) -> tuple[str, list[str]]:
    kinds: dict[str, None] = {}  # an ordered set
    steps, before = _ALWAYS + _ART * art, None
    while before != caption:  # a phrase may hide another; no step lengthens the text, so this terminates
        before = caption
        for kind, step in steps:
            changed = step(caption)
            if changed != caption:
                kinds[kind] = None
            caption = changed
    return caption, list(kinds)


def clean(caption: str, *, art: bool = True) -> str:
    """A caption without control characters, extra spaces, bullets, list numbers, a final full stop and loops.

    Args:
        caption: as written by the captioner.
        art: whether the domain is art: then style phrases are removed too (``a depiction of``, ``a comic strip with``,
            ``cartoon`` before a noun). Choose False for photographs, where a drawing is an object in the image.

    Returns:
        The caption; cleaning is idempotent.
    """
    return _clean(caption, art)[0]


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning changed in a set of captions: ``(before, after)`` by key, how many each kind of step changed, and
    how many name a technique (painting, comic, portrait, ...)."""

    total: int
    changed: Mapping[str, tuple[str, str]]
    kinds: Mapping[str, int]
    style_before: int
    style_after: int

    def lines(self, examples: int = 3) -> list[str]:
        """For a terminal."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.kinds.items())
        lines = [
            f"{len(self.changed)} of {self.total} captions changed" + (f" ({kinds})" if kinds else ""),
            f"style words in {self.style_before} before, in {self.style_after} after",
        ]
        shown = list(self.changed.items())[:examples]
        return lines + [f"  {key}: {before!r} -> {after!r}" for key, (before, after) in shown]


def clean_all(captions: Mapping[str, str], *, art: bool = True) -> tuple[dict[str, str], CleaningReport]:
    """Clean captions by key (see :func:`clean`) and report what changed."""
    cleaned: dict[str, str] = {}
    kinds: Counter[str] = Counter()
    for key, caption in captions.items():
        cleaned[key], found = _clean(caption, art)
        kinds.update(found)
    report = CleaningReport(
        total=len(captions),
        changed={key: (captions[key], after) for key, after in cleaned.items() if after != captions[key]},
        kinds=dict(kinds.most_common()),
        style_before=sum(bool(_WORDS_OF_STYLE.search(text)) for text in captions.values()),
        style_after=sum(bool(_WORDS_OF_STYLE.search(text)) for text in cleaned.values()),
    )
    return cleaned, report
