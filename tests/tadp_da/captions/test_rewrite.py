"""Rewriting on both sides, fitting to a tokenizer's limit, and the rows that the command line shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tadp_da.captions.rewrite import Rewrite, _warn_shortened, fit, fit_all, fit_and_tell, rewrite_rows
from tadp_da.captions.strategies import strategies
from tadp_da.errors import DataError, UsageError
from tadp_da.types import DomainDescription

NIGHT = DomainDescription(
    style="dark night", templates={"dreambooth": "a dashcam photo of {caption} at {word} night"}
)


def count(prompt: str) -> int:
    """Tokens as a byte-pair tokenizer would count: one per started four letters of a word."""
    return sum(-(-len(word) // 4) for word in prompt.split())


def test_both_sides_say_the_same_so_that_training_matches_testing() -> None:
    rewrite = Rewrite(strategy="simple", target_description=NIGHT)
    assert rewrite.source("a car") == rewrite.target("a car") == "a dark night photo of a car"


def test_on_the_target_only_the_source_keeps_its_captions() -> None:
    rewrite = Rewrite(strategy="simple", side="target", target_description=NIGHT)
    assert rewrite.source("a  car ") == "a  car "
    assert rewrite.target("a car") == "a dark night photo of a car"


def test_a_template_is_a_strategy() -> None:
    rewrite = Rewrite(strategy="{caption} in {word} style", word="sks", target_description=NIGHT)
    assert rewrite.target("a car") == "a car in sks style"


@pytest.mark.parametrize("strategy", ["textual-inversion", "dreambooth", "a {word} photo of {caption}"])
@pytest.mark.parametrize("word", [None, ""])
def test_without_a_word_it_says_which_command_learns_one(strategy: str, word: str | None) -> None:
    with pytest.raises(UsageError, match="needs a concept's word") as caught:
        Rewrite(strategy=strategy, word=word)
    assert "tadp-da personalize IMAGES --method textual-inversion" in caught.value.fix
    assert "--concept" in caught.value.fix


def test_without_classes_class_names_are_refused() -> None:
    with pytest.raises(UsageError, match="needs class names") as caught:
        Rewrite(strategy="class-names")
    assert "name the classes" in caught.value.fix


def test_a_wording_for_an_unknown_strategy_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown strategy 'simpel', did you mean 'simple'"):
        Rewrite(strategy="null", target_description=DomainDescription(templates={"simpel": "a {caption}"}))


def test_a_domains_own_template_is_tried_at_birth() -> None:
    with pytest.raises(UsageError, match="unknown field 'stile'"):
        Rewrite(
            strategy="simple",
            target_description=DomainDescription(templates={"simple": "a {stile} {caption}"}),
        )


@pytest.mark.parametrize("wrong", [{"side": "source"}, {"strategie": "null"}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Rewrite(**wrong)  # type: ignore[arg-type]


def test_a_prompt_that_fits_is_left_alone() -> None:
    fitted = fit(Rewrite(strategy="simple", target_description=NIGHT).target, "a  car ", count, 20)
    assert (fitted.kept, fitted.dropped) == ("a  car ", "")


def test_a_long_caption_gives_way_to_the_word_behind_it() -> None:
    rewrite = Rewrite(strategy="dreambooth", target_description=NIGHT, word="sks")
    fitted = fit(rewrite.target, "a car and a bus on the road and a tree", count, 15)
    assert fitted.prompt == "a dashcam photo of a car and a bus at sks night"
    assert (fitted.kept, fitted.dropped) == ("a car and a bus", "on the road and a tree")


def test_only_the_caption_is_shortened_or_it_is_an_error() -> None:
    rewrite = Rewrite(strategy="class-names", classes=("building", "vegetation", "sidewalk"))
    with pytest.raises(
        UsageError, match="8 tokens without any caption, and the limit of the tokenizer is 5"
    ) as caught:
        fit(rewrite.target, "a car", count, 5)
    assert "name fewer classes" in caught.value.fix


def test_every_shortening_is_reported_once_with_an_example() -> None:
    captions = {"1.png": "a car", "2.png": "a street with cars, and many trees", "3.png": "bus " * 500}
    prompts, report = fit_all(Rewrite().target, captions, count, 6)
    assert prompts == {"1.png": "a car", "2.png": "a street with cars", "3.png": "bus bus bus bus bus bus"}
    assert report == (
        "2 of 3 captions were shortened to fit 6 tokens; "
        "the first, 2.png, lost 'and many trees' after 'a street with cars'"
    )


def test_nothing_shortened_is_nothing_said() -> None:
    assert fit_all(Rewrite().target, {"1.png": "a car"}, count, 6)[1] == ""


_WORDS = st.sampled_from(["a", "the", "car", "building", "and", "of", "illumination,", "two", "with"])


@given(
    caption=st.lists(_WORDS, max_size=40).map(" ".join),
    limit=st.integers(11, 40),
    strategy=st.sampled_from(
        ["dreambooth", "textual-inversion", "{caption} {word}", "{word} {caption} photo"]
    ),
    word=st.sampled_from(["sks", "<n> <n_1>"]),
)
def test_a_fitted_prompt_is_within_the_limit_and_keeps_the_word(
    caption: str, limit: int, strategy: str, word: str
) -> None:
    fitted = fit(
        Rewrite(strategy=strategy, target_description=NIGHT, word=word).target, caption, count, limit
    )
    assert count(fitted.prompt) <= limit
    assert word in fitted.prompt
    assert caption.startswith(fitted.kept)
    assert not fitted.dropped or caption.endswith(fitted.dropped)


@given(caption=st.lists(_WORDS, max_size=30).map(" ".join), limit=st.integers(0, 12))
def test_fitting_holds_for_a_tokenizer_that_merges_over_blanks(caption: str, limit: int) -> None:
    def merging(prompt: str) -> int:
        return len(prompt.replace("a car", "@").replace("building and", "@").split()) % 17

    assert merging(fit(Rewrite().target, caption, merging, limit).prompt) <= limit


def test_rows_show_every_strategy_on_both_sides_and_say_what_is_missing() -> None:
    rows = rewrite_rows(["a car", ""], NIGHT)
    plain = [name for name in strategies if "oracle-" not in name]
    assert [row.strategy for row in rows] == [name for name in plain for _ in range(2 * 2)]
    by = {(r.strategy, r.side, r.caption): r for r in rows}
    assert by["simple", "target", "a car"].prompt == "a dark night photo of a car"
    assert by["dreambooth", "source", "a car"].note == "needs a concept's word"
    assert by["class-names", "target", ""].note == "needs class names"
    assert by["oracle", "target", "a car"].note == "the classes in each image's label"
    (imperfect,) = {row.note for row in rewrite_rows(["a car"], NIGHT, names=["oracle-p50-r75"])}
    assert imperfect == "the classes in each image's label"
    assert all(bool(r.note) <= (r.prompt == "") for r in rows)


def test_rows_of_chosen_strategies_with_all_that_they_need() -> None:
    rows = rewrite_rows(["a car"], NIGHT, names=["dreambooth", "{caption}!"], side="target", word="sks")
    assert [(r.side, r.prompt) for r in rows] == [
        ("source", "a car"),
        ("target", "a dashcam photo of a car at sks night"),
        ("source", "a car"),
        ("target", "a car!"),
    ]


def test_a_chosen_strategy_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(UsageError, match="needs a concept's word"):
        rewrite_rows(["a car"], NIGHT, names=["dreambooth"])


def test_no_caption_is_an_error() -> None:
    with pytest.raises(DataError, match="give captions"):
        rewrite_rows([], NIGHT)


def test_captions_of_art_lose_their_style_phrases_before_the_strategy_says_it() -> None:
    words = DomainDescription(style="watercolor", medium="painting")
    rewrite = Rewrite(strategy="simple", target_description=words, clean=True)
    said = "- a watercolor painting of a dog"
    assert rewrite.target(said) == Rewrite(strategy="simple", target_description=words).target("a dog")
    assert rewrite.source(said) == Rewrite(strategy="simple", target_description=words).source(said)


def test_that_captions_lose_their_end_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    _warn_shortened.cache_clear()
    for caption in ("a street", "a street with cars and trees", "a street with cars and people"):
        assert fit_and_tell(str, caption, lambda text: len(text.split()), 4).startswith("a street")
    (said,) = [record.getMessage() for record in caplog.records]
    assert "4 tokens" in said
