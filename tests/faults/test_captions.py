"""Captions that lack, loop, run on or carry what is no text: told, mended where it is safe, and never run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tadp_da.captions.clean import clean
from tadp_da.captions.files import CaptionFile
from tadp_da.captions.flags import fallback_caption, flags, notes
from tadp_da.captions.provider import ANY, CaptionProvider
from tadp_da.captions.rewrite import Rewrite, fit_all
from tadp_da.captions.strategies import find
from tadp_da.errors import DataError, TadpError, UsageError
from tadp_da.run import Run
from tadp_da.types import DomainDescription, Unlabeled

HOSTILE = {
    "": "empty",
    " \n": "empty",
    "a car, a car, a car, a car, a ca": "looping",
    "very long " + "word by word and on to the end " * 10: "looping",
    " ".join(f"thing{i}" for i in range(90)): "longer than 75 words and will be cut",
    "a car\x00\x1b[31m red": "with control characters",
    "a \u202erac\u202c": "with control characters",
    "<script>alert(1)</script>": "with markup",
    "<img src=x onerror=alert(1)>": "with markup",
    "a car &lt; a bus &#x41;": "with markup",
}


def images(*names: str) -> Unlabeled:
    return Unlabeled(domain="d", root=Path("/data"), paths=tuple(Path("/data") / name for name in names))


def some_of(tmp_path: Path) -> Path:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"i/1.png": "a car", "i/2.png": "<b>a bus</b>"}))
    return path


def test_one_caption_that_lacks_is_an_error_with_its_coverage_and_both_ways_out(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        DataError, match=r"2 of 3 images have a caption and 1 have none, e\.g\. 'i/3\.png'"
    ) as caught:
        CaptionFile.read(some_of(tmp_path)).lookup(images("i/1.png", "i/2.png", "i/3.png"))
    assert "tadp-da caption /data" in caught.value.fix
    assert "--caption-fallback class-names" in caught.value.fix
    assert caught.value.exit_code == 3


def test_class_names_stand_in_where_that_is_asked_for_and_only_there(tmp_path: Path) -> None:
    run = Run(folder=tmp_path, device="cpu", quiet=True)
    wanted = images("i/1.png", "i/2.png", "i/3.png")
    found = CaptionProvider(files={ANY: some_of(tmp_path)}, fallback="class-names", classes=("sky", "road"))(
        wanted, "train", run
    )
    assert found == {"i/1.png": "a car", "i/2.png": "<b>a bus</b>", "i/3.png": "sky, road"}
    with pytest.raises(DataError, match="1 have none"):
        CaptionProvider(files={ANY: some_of(tmp_path)})(wanted, "train", run)


def test_other_fallbacks_and_no_classes_are_refused() -> None:
    assert fallback_caption("", ()) is None
    with pytest.raises(UsageError, match="unknown caption fallback 'class-name', did you mean 'class-names'"):
        fallback_caption("class-name", ("sky",))
    with pytest.raises(UsageError, match="needs class names, and there are none"):
        fallback_caption("class-names", ())


@pytest.mark.parametrize("caption", HOSTILE)
def test_odd_captions_are_flagged(caption: str) -> None:
    assert HOSTILE[caption] in flags(caption)


@pytest.mark.parametrize(
    "caption", ["a car", "a <night> street", "5 < 6 & 7 > 3", "a {style} photo %s", "ein grünes Auto 街"]
)
def test_usual_captions_are_not(caption: str) -> None:
    assert flags(caption) == ()


def test_flags_are_counted_and_told_when_a_file_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert notes({"1": "", "2": "a car", "3": ""}) == ["2 of 3 captions are empty, e.g. 1"]
    run = Run(folder=tmp_path, device="cpu", quiet=True)
    CaptionProvider(files={ANY: some_of(tmp_path)})(images("i/1.png", "i/2.png"), "train", run)
    assert "captions.json: 1 of 2 captions are with markup, e.g. i/2.png" in caplog.text


@pytest.mark.parametrize("caption", HOSTILE)
def test_no_control_character_survives_cleaning(caption: str) -> None:
    assert clean(caption).isprintable()


def test_what_a_long_caption_loses_is_reported() -> None:
    long = " ".join(f"thing{i}" for i in range(90))
    prompts, report = fit_all(
        Rewrite(strategy="simple", target_description=DomainDescription(style="dark")).target,
        {"1.png": long, "2.png": "a car"},
        lambda text: len(text.split()),
        75,
    )
    assert len(prompts["1.png"].split()) <= 75
    assert "1 of 2 captions were shortened to fit 75 tokens; the first, 1.png, lost" in report


def test_a_caption_is_text_and_no_template() -> None:
    rewrite = Rewrite(
        strategy="a {style} photo of {caption}", target_description=DomainDescription(style="dark")
    )
    for caption in ("{style} {word}", "{0.__class__}", "{caption!r}", "%s %(x)s ${HOME} `id`"):
        assert caption in rewrite.target(caption)


_TEXT = st.text(max_size=60)
_PIECES = st.lists(
    st.sampled_from(
        [
            "{caption}",
            "{style}",
            "{word}",
            "{",
            "}",
            "{{",
            "a ",
            "an ",
            "of ",
            "{caption.x}",
            "{x!r}",
            "{:>9}",
        ]
    )
    | st.text(max_size=5),
    max_size=8,
).map("".join)


@given(template=_PIECES, caption=_TEXT)
def test_any_template_is_filled_or_refused_with_advice(template: str, caption: str) -> None:
    try:
        prompt = Rewrite(
            strategy=template, target_description=DomainDescription(style="dark"), word="<n>"
        ).target(caption)
    except TadpError as error:
        told = error.fix
    else:
        told = "filled"
        if "{" in template and not find(template).rewrite.__self__.raw:  # type: ignore[attr-defined]
            assert prompt == " ".join(prompt.split())
    assert told


@given(caption=st.text(), art=st.booleans())
def test_any_text_is_cleaned_once_and_for_all(caption: str, art: bool) -> None:
    once = clean(caption, art=art)
    assert clean(once, art=art) == once
    assert once.isprintable()
    assert not set(flags(once)) & {"with control characters", "looping"}


@given(captions=st.dictionaries(st.text(), st.text(), max_size=6))
def test_notes_count_every_flag(captions: dict[str, str]) -> None:
    expected = {kind for caption in captions.values() for kind in flags(caption)}
    assert len(notes(captions)) == len(expected)
