"""What every strategy must do, and what each says; templates of the paper and of users."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tadp_da.captions.strategies import PromptContext, find, strategies, templated
from tadp_da.captions.text import ARTICLES, sounds_vowel
from tadp_da.domains.shared.paper_description import AS_PUBLISHED, PAPER_TEMPLATES, paper_description
from tadp_da.errors import UsageError
from tadp_da.types import DomainDescription

NIGHT = DomainDescription(
    medium="photo", style="dark night", nearby="a foggy photo", unrelated="a watercolor painting"
)
CAPTION = "a car driving down a street"


def context(
    target: DomainDescription = NIGHT, side: str = "target", word: str | None = "<night>"
) -> PromptContext:
    return PromptContext(
        side=side, source=DomainDescription(), target=target, word=word, classes=("road", "car")
    )  # type: ignore[arg-type]


def doubled(prompt: str) -> bool:
    tokens = prompt.lower().split()
    return any(a in ARTICLES and b in ARTICLES for a, b in itertools.pairwise(tokens))


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("no-text", ""),
        ("null", CAPTION),
        ("simple", f"a dark night photo of {CAPTION}"),
        ("textual-inversion", f"a <night> photo of {CAPTION}"),
        ("dreambooth", f"a <night> style photo of {CAPTION}"),
        ("nearby", f"a foggy photo of {CAPTION}"),
        ("unrelated", f"a watercolor painting of {CAPTION}"),
        ("class-names", "road, car"),
        ("class-embeddings", "one embedding for each of 2 classes"),
        ("class-tokens", "the tokens of the names of 2 classes"),
        ("caption-embedding", CAPTION),
        ("nouns", "car, street"),
        ("oracle", CAPTION),
        ("unrelated-caption", "a bowl of fruit on a wooden table"),
    ],
)
def test_says_what_its_name_promises_on_both_sides(name: str, prompt: str) -> None:
    assert find(name)(CAPTION, context(side="target")) == prompt
    assert find(name)(CAPTION, context(side="source")) == prompt


def test_all_registered_strategies_are_pinned_above() -> None:
    assert set(strategies) == {
        "no-text", "null", "simple", "textual-inversion", "dreambooth", "nearby", "unrelated", "class-names",
        "class-embeddings", "class-tokens", "caption-embedding", "nouns", "oracle", "unrelated-caption",
    } | {f"oracle-p{p}-r{r}" for p in (50, 75, 100) for r in (50, 75, 100)} - {"oracle-p100-r100"}  # fmt: skip


@pytest.mark.parametrize("name", list(strategies))
class TestEveryStrategy:
    def test_has_a_summary_for_listings(self, name: str) -> None:
        assert strategies[name].summary

    def test_holds_the_word_exactly_when_it_needs_one(self, name: str) -> None:
        strategy = strategies[name]
        assert (
            "<night> <night_1>" in strategy(CAPTION, context(word="<night> <night_1>"))
        ) == strategy.needs_concept

    def test_an_empty_caption_leaves_nothing_hanging(self, name: str) -> None:
        assert not re.search(r"(^|\s)(of|with|a|an|the)$", strategies[name]("", context()))

    def test_takes_the_domains_own_template_unless_it_is_a_baseline(self, name: str) -> None:
        own = DomainDescription(style="dark", templates={name: "over {caption} {word} {classes} out"})
        found = strategies[name]("x", context(own))
        if name not in ("class-names", "dreambooth", "nearby", "simple", "textual-inversion", "unrelated"):
            assert found == strategies[name]("x", context())
        else:
            assert found == "over x <night> road, car out"


def test_a_domain_without_style_gets_a_plain_prompt() -> None:
    assert find("simple")("a car", context(DomainDescription())) == "a photo of a car"
    assert (
        find("simple")("a car", context(DomainDescription(medium="oil painting")))
        == "an oil painting of a car"
    )


@pytest.mark.parametrize(
    ("template", "caption", "prompt"),
    [
        ("a {style} photo of a {caption}", "a car", "a dark night photo of a car"),
        ("a {style} photo of a {caption}", "The car", "a dark night photo of The car"),
        ("a {style} photo of a {caption}", "two cars", "a dark night photo of two cars"),
        ("a {style} photo of a {caption}", "3 cars", "a dark night photo of 3 cars"),
        ("a {style} photo of a {caption}", "orange car", "a dark night photo of an orange car"),
        ("a {style} photo of a {caption}", "car", "a dark night photo of a car"),
        ("a {style} photo of a {caption}", "", "a dark night photo"),
        ("a photo of {caption}, {style}", "", "a photo, dark night"),
        ("{caption} at {style}", "  a   car ", "a car at dark night"),
        ("a {word} picture: {caption}", "", "a <night> picture"),
        ("{{{style}}} {caption}", "x", "{dark night} x"),
    ],
)
def test_a_users_template_reads_well(template: str, caption: str, prompt: str) -> None:
    assert find(template)(caption, context()) == prompt


def test_a_templates_needs_are_known_before_it_is_filled() -> None:
    assert find("a {word} of {caption}").needs_concept
    assert find("{classes}: {caption}").needs_classes
    assert not find("a {style} photo of {caption}").needs_concept


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a {stile} photo of {caption}", "unknown field 'stile', did you mean 'style'"),
        ("a {caption.__class__}", "unknown field 'caption.__class__'"),
        ("a {caption[0]}", "unknown field"),
        ("a {0} of {caption}", "unknown field '0'"),
        ("a {} of {caption}", "unknown field ''"),
        ("a {caption:>{style}}", "formats field 'caption'"),
        ("a {style!r} of {caption}", "formats field 'style'"),
        ("a {caption", "cannot be parsed"),
        ("caption}", "cannot be parsed"),
        ("a {style} photo", "has no field {caption}"),
    ],
)
def test_a_template_that_makes_no_sense_is_refused_with_advice(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(text)
    assert what in caught.value.what
    assert "{caption}" in caught.value.fix


def test_an_unknown_name_is_answered_with_the_nearest_and_with_templates() -> None:
    with pytest.raises(UsageError, match="did you mean 'simple'") as caught:
        find("simpel")
    assert "class-names" in caught.value.fix
    assert "write a template with {caption}" in caught.value.fix


def test_a_missing_word_is_answered_with_the_command_that_learns_one() -> None:
    with pytest.raises(UsageError) as caught:
        find("a {word} photo of {caption}")("a car", context(word=None))
    assert "tadp-da personalize" in caught.value.fix


def test_a_domains_template_without_the_word_is_refused() -> None:
    own = DomainDescription(templates={"textual-inversion": "a night photo of {caption}"})
    with pytest.raises(UsageError, match=r"has no field \{word\}"):
        find("textual-inversion")("a car", context(own))


def test_the_default_of_a_strategy_is_checked_at_its_birth() -> None:
    with pytest.raises(UsageError, match="unknown field"):
        templated("x", "a {colour} {caption}", summary="")


@pytest.mark.parametrize("domain", list(PAPER_TEMPLATES))
@pytest.mark.parametrize("name", list(AS_PUBLISHED["dark-zurich"]))
def test_the_papers_templates_keep_or_mend_the_doubled_article(domain: str, name: str) -> None:
    kept = find(name)(CAPTION, context(paper_description(domain, "keep")))
    fixed = find(name)(CAPTION, context(paper_description(domain)))
    assert kept.replace("a a", "a") == fixed
    assert kept == AS_PUBLISHED[domain][name].format(caption=CAPTION, word="<night>").replace(
        repr(CAPTION), CAPTION
    )
    assert doubled(kept) == ("of a {" in AS_PUBLISHED[domain][name])
    assert find(name)("two cars", context(paper_description(domain))).count(" a two") == 0


def test_an_unknown_paper_domain_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'comic2k'"):
        paper_description("comic-2k")


@pytest.mark.parametrize("word", ["owl", "<oil>", "hour", "umbrella", '"odd"', "Orange"])
def test_words_that_take_an(word: str) -> None:
    assert sounds_vowel(word)


@pytest.mark.parametrize(
    "word", ["car", "unicorn", "one", "european", "used", "<night>", "sks", "house", "", "7"]
)
def test_words_that_take_a(word: str) -> None:
    assert not sounds_vowel(word)


_FRAGMENTS = st.sampled_from(
    [
        "a",
        "an",
        "the",
        "A",
        "The",
        "car",
        "owl",
        "of",
        "two",
        "",
        " ",
        "\t",
        "\n",
        ",",
        ".",
        "{style}",
        "<night>",
        "a a",
    ]
)
_CAPTIONS = st.lists(_FRAGMENTS | st.text(max_size=6), max_size=8).map(" ".join)
_PIECES = st.sampled_from(
    ["a ", "an ", "the ", "{style} ", "{medium}", " of ", " ", "{word}", "photo ", "{nearby} ", ", "]
)


@given(
    caption=_CAPTIONS,
    name=st.sampled_from([n for n in strategies if n != "null" and not n.startswith("oracle")]),
    style=_CAPTIONS,
)
def test_no_strategy_doubles_articles_or_blanks(caption: str, name: str, style: str) -> None:
    prompt = find(name)(caption, context(DomainDescription(style=style)))
    assert prompt == " ".join(prompt.split())
    assert not doubled(prompt)


@given(caption=_CAPTIONS, before=st.lists(_PIECES, max_size=5), after=st.lists(_PIECES, max_size=3))
def test_no_template_doubles_articles_or_blanks(caption: str, before: list[str], after: list[str]) -> None:
    prompt = find("".join([*before, "{caption}", *after]))(caption, context())
    assert prompt == " ".join(prompt.split())
    assert not doubled(prompt)


@given(caption=_CAPTIONS)
def test_rewriting_keeps_every_word_of_the_caption_but_articles(caption: str) -> None:
    def content(text: str) -> list[str]:
        return [t for t in re.findall(r"\w+", text) if t.lower() not in ARTICLES]

    prompt = content(find("{style} zzz {caption}")(caption, context()))
    assert prompt[prompt.index("zzz") + 1 :] == content(caption)


def test_listing_strategies_loads_no_model_library() -> None:
    code = (
        "import sys; from tadp_da.captions.strategies import strategies; list(strategies);"
        "print([m for m in ('torch', 'transformers', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
