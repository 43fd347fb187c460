"""Truthful captions in a small grammar, and the way back from a caption to its counts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

NUMBERS = ("no", "a", "two", "three", "four", "five", "six")
NOUNS = {"car": ("car", "cars"), "person": ("person", "people"), "tree": ("tree", "trees")}
PLACES: dict[tuple[bool, bool], tuple[str, ...]] = {
    (True, True): (
        "a street between buildings",
        "a city street",
        "a road between buildings",
        "a street in a city",
    ),
    (True, False): ("a street with buildings on the left", "a road with buildings on the left"),
    (False, True): ("a street with buildings on the right", "a road with buildings on the right"),
    (False, False): ("a road through a park", "a road between green fields", "a street in a park"),
}
TALL_PLACES = ("a street between tall buildings", "a road between tall buildings", "a city street")
PLAIN_PLACES = ("a street", "a road")

_COUNT = re.compile(
    r"\b(an empty (?:street|road)|(?:" + "|".join(NUMBERS) + r") (?:" + "|".join(
        form for forms in NOUNS.values() for form in forms) + r"))\b"
)  # fmt: skip


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def phrase(noun: str, count: int) -> str:
    """``phrase("car", 2) == "two cars"``."""
    one, many = NOUNS[noun]
    return f"{NUMBERS[count]} {one if count == 1 else many}"


def make_caption(
    rng: np.random.Generator,
    counts: dict[str, int],
    built: tuple[bool, bool],
    tall: bool,
    cloudy: bool,
    crosswalk: bool,
) -> str:
    """A caption that mentions every car, person and tree, and some of the other facts."""
    places = PLAIN_PLACES if rng.random() < 0.3 else TALL_PLACES if tall and all(built) else PLACES[built]
    place = places[int(rng.integers(len(places)))]
    facts = [phrase(noun, counts[noun]) for noun in NOUNS if counts[noun]]
    rng.shuffle(facts)
    if crosswalk and rng.random() < 0.6:
        facts.append("a crosswalk")
    link = " and " if " with " in place else " with "
    if counts["car"] == 0 and counts["person"] == 0 and rng.random() < 0.6:
        place = re.sub(r"^a (city )?(street|road)", r"an empty \2", place)
    elif facts and rng.random() < 0.15:
        missing = [phrase(noun, 0) for noun in NOUNS if not counts[noun]]
        if missing:
            facts.append(missing[int(rng.integers(len(missing)))])
    if not facts:
        text = place
    elif rng.random() < 0.25 and " with " not in place and "empty" not in place:
        text = f"{_join(facts)} on {place}"
    else:
        text = f"{place}{link}{_join(facts)}"
    if cloudy and rng.random() < 0.5:
        text += " under a cloudy sky"
    return text


def parse_counts(caption: str) -> dict[str, int]:
    """Counts of car, person and tree that a caption states; what it does not mention counts 0.

    Style words around the caption ("a photo of ...") do not disturb.
    """
    counts = dict.fromkeys(NOUNS, 0)
    for match in _COUNT.findall(caption.lower()):
        number, name = match.split(" ")[0], match.split(" ")[-1]
        for noun, forms in NOUNS.items():
            if name in forms:
                counts[noun] = NUMBERS.index(number)
    return counts


def sentences() -> Iterator[str]:
    """Sentences which together contain every word of the grammar, for training a tokenizer."""
    places = [p for group in PLACES.values() for p in group] + list(TALL_PLACES) + list(PLAIN_PLACES)
    for place in places:
        yield place
        yield re.sub(r"^a (city )?(street|road)", r"an empty \2", place)
        for number in range(len(NUMBERS)):
            facts = [phrase(noun, number) for noun in NOUNS]
            yield f"{place} with {_join(facts)} under a cloudy sky"
            yield f"{_join([*facts, 'a crosswalk'])} on {place}"
