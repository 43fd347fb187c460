"""Cleaning: what goes, what stays, and that it is told."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tadp_da.captions.clean import clean, clean_all
from tadp_da.captions.files import CaptionFile
from tadp_da.captions.rewrite import Rewrite
from tadp_da.captions.text import loops, without_loop
from tadp_da.domains.shared.paper_description import AS_PUBLISHED, paper_description

#: ``tests`` reads the captions published with the TADP paper where this variable says they lie.
PUBLISHED = Path(os.environ.get("TADP_CAPTIONS", "captions-of-tadp"))
published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="set TADP_CAPTIONS to the folder of TADP's published captions"
)


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("- a depiction of a baby wearing a blue hat", "a baby wearing a blue hat"),
        ("a watercolor painting of a dog ", "a dog"),
        ("a drawing of two people", "two people"),
        ("A comic strip with a man in a suit.", "a man in a suit"),
        ("- a portrait of a woman smiling", "a woman smiling"),
        ("an illustration of three cats", "three cats"),
        ("two sketches of people in purple clothes", "people in purple clothes"),
        ("four comic panels depicting a woman in a boat", "a woman in a boat"),
        ("a page from the comic book, with a woman", "a woman"),
        ("a sketchbook with drawings of ducks", "ducks"),
        ("20. Drawing of man with glasses", "man with glasses"),
        ("a cartoon owl on a branch", "an owl on a branch"),
        ("two cartoon people with carrots", "two people with carrots"),
        ("a cartoon of three women", "three women"),
        ("hummingbird watercolor painting", "hummingbird"),
        ("a woman's face shown in a watercolor effect", "a woman's face"),
        ("a man\tand\na \x07dog\u200b", "a man and a dog"),
        ("* a  street  ", "a street"),
        ("a man and his wife in a comic strip", "a man and his wife"),
        ("a dog in a cartoon illustration", "a dog"),
    ],
)
def test_what_a_captioner_left_behind_goes(caption: str, cleaned: str) -> None:
    assert clean(caption) == cleaned


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a car driving down a street",
        "a person holding a painting of a bird",
        "a person painting a bird on paper",
        "a girl with a sketch in her hand",
        "black and white dog",
        "1919 indian motorcycle - lot 1",
        "a t-shirt of the u.s. team",
        "an x-ray of an mri scanner",
        "a painting",
        "the watercolor",
        "a drawing by Jason",
        "a man and a man",
        "a very very old car",
        "a woman is in a painting",
        "a woman posing for a portrait",
    ],
)
def test_content_stays(caption: str) -> None:
    assert clean(caption) == caption


def test_in_photographs_a_painting_is_a_thing() -> None:
    assert clean("- a painting of a dog.", art=False) == "a painting of a dog"


@pytest.mark.parametrize(
    ("looping", "once"),
    [
        ("golden eagle, golden eagle, golden eagle, golden eagle, golde", "golden eagle"),
        ("a car and a car and a car", "a car"),
        ("a street with a car and a car and a car and a car and", "a street with a car"),
        ("cattle dog - cattle dog - cattle dog - cat", "cattle dog"),
        ("no no no no", "no"),
        ("the cat sat on the mat the cat sat on the mat the cat sat on the mat", "the cat sat on the mat"),
    ],
)
def test_a_loop_is_said_once(looping: str, once: str) -> None:
    assert loops(looping)
    assert without_loop(looping) == once
    assert not loops(once)


def test_a_report_says_what_changed() -> None:
    captions = {"1": "- a drawing of a cat", "2": "a dog", "3": "a cartoon"}
    cleaned, report = clean_all(captions)
    assert cleaned == {"1": "a cat", "2": "a dog", "3": "a cartoon"}
    assert (report.style_before, report.style_after) == (2, 1)
    assert report.lines() == [
        "1 of 3 captions changed (bullets 1, style phrases 1)",
        "style words in 2 before, in 1 after",
        "  1: '- a drawing of a cat' -> 'a cat'",
    ]


def test_nothing_changed_is_said_too() -> None:
    assert clean_all({"1": "a dog"})[1].lines()[0] == "0 of 1 captions changed"


_PARTS = st.sampled_from(
    [
        "- ",
        "12. ",
        "a ",
        "an ",
        "A ",
        "drawing ",
        "painting ",
        "of ",
        "with ",
        "cartoon ",
        "watercolor ",
        "comic ",
        "strip ",
        "in ",
        "style ",
        "owl ",
        "car ",
        "and ",
        ", ",
        ". ",
        " ",
        "\n",
        "\x00",
        "\u200b",
        "two ",
        "black and white ",
        "a car and ",
        "page ",
    ]
)


@given(caption=st.lists(_PARTS | st.text(max_size=4), max_size=14).map("".join), art=st.booleans())
def test_cleaning_again_changes_nothing(caption: str, art: bool) -> None:
    once = clean(caption, art=art)
    assert clean(once, art=art) == once
    assert once == " ".join(once.split())
    assert once.isprintable()
    assert not loops(once)


@pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="set TADP_CAPTIONS to the folder of TADP's published captions"
)
@pytest.mark.parametrize(("name", "most"), [("comic", 0.06), ("watercolor", 0.08)])
def test_style_words_leave_the_published_captions(name: str, most: float) -> None:
    file = CaptionFile.read(PUBLISHED / f"{name}_captions.json")
    cleaned, report = clean_all({key: entry.caption for key, entry in file.entries.items()})
    assert report.style_before > 250
    assert report.style_after < most * report.style_before
    assert all(cleaned.values())
    assert sum(caption.startswith("- ") for caption in cleaned.values()) == 0


@published
@pytest.mark.parametrize("domain", ["dark-zurich", "nighttime-driving", "watercolor2k", "comic2k"])
def test_no_published_caption_doubles_an_article_in_the_papers_words(domain: str) -> None:
    stem = domain.replace("-", "_").removesuffix("2k")
    captions = [e.caption for e in CaptionFile.read(PUBLISHED / f"{stem}_captions.json").entries.values()]
    for name in ("simple", "textual-inversion", "dreambooth", "nearby", "unrelated"):
        said = {
            articles: Rewrite(
                strategy=name, target_description=paper_description(domain, articles), word="sks"
            ).target
            for articles in ("keep", "fix")
        }
        assert not any(
            re.search(r"\b(a|an|the) (a|an|the)\b", said["fix"](c), re.IGNORECASE) for c in captions
        )
        doubled = sum(" of a a " in said["keep"](caption) for caption in captions)
        assert (doubled > 0.5 * len(captions)) == ("of a {" in AS_PUBLISHED[domain][name])
