from __future__ import annotations

import pytest

from personalize.templates import TEMPLATES, check, fields_of, wants_caption


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_sentence_holds_the_word_once_and_no_article_twice(kind: str) -> None:
    sentences = TEMPLATES[kind]
    repeated = 2 if kind == "style" else 0  # as published
    assert len(set(sentences)) + repeated == len(sentences) >= 8
    for sentence in sentences:
        assert sentence.count("{word}") == 1
        spoken = sentence.format(word="<night> <night>_1", caption="a street with cars")
        assert " a a " not in f" {spoken} "
        assert " a an " not in f" {spoken} "


def test_captions_are_wanted_by_the_captioned_sentences_alone() -> None:
    assert {kind for kind, sentences in TEMPLATES.items() if wants_caption(sentences)} == {"captioned"}
    assert all("caption" in fields_of(sentence) for sentence in TEMPLATES["captioned"])


@pytest.mark.parametrize(
    ("templates", "advice"),
    [
        ((), "give at least one"),
        (("a photo",), "put it where the new word belongs"),
        (("a {word} {style}",), r"use \{word\} and \{caption\}"),
    ],
)
def test_a_template_without_the_word_is_refused(templates: tuple[str, ...], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        check(templates)
