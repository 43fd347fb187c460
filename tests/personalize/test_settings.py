from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import personalize
from personalize import personalizers
from personalize.methods.dreambooth import DreamBooth
from personalize.methods.none import NoPersonalization
from personalize.methods.textual_inversion import TextualInversion
from tadp_da.settings import as_json

WORD = {"word": "<dusk>", "like": "night"}


@pytest.mark.parametrize(
    ("make", "fields", "advice"),
    [
        (DreamBooth, {"batch": 0}, "greater than or equal to 1"),
        (DreamBooth, {"learning_rate": 0}, "greater than 0"),
        (DreamBooth, {"learning_rate": float("nan")}, "finite"),
        (DreamBooth, {"ema": 1.0}, "less than 1"),
        (DreamBooth, {"steps": 10, "warmup": 10}, "leaves none of 10 steps; lower it"),
        (DreamBooth, {"views": 2}, "set crop='random'"),
        (DreamBooth, {"prompt": "a picture"}, "put it where the new word belongs"),
        (DreamBooth, {"prior_images": 4, "prior_prompt": "a sks image"}, "name only its class"),
        (DreamBooth, {"step": 3}, "[Uu]nexpected keyword"),
        (DreamBooth, {"mode": "half"}, "'full' or 'lora'"),
        (TextualInversion, {"word": "two words", "like": "night"}, "choose one without blanks"),
        (TextualInversion, {"word": "<Night>", "like": "night"}, "write '<night>'"),
        (TextualInversion, {"word": "{x}", "like": "night"}, "choose a word without them"),
        (TextualInversion, WORD | {"vectors": 0}, "greater than or equal to 1"),
        (TextualInversion, WORD | {"templates": ("in the dark",)}, "put it where the new word belongs"),
        (NoPersonalization, {"steps": 3}, "[Uu]nexpected keyword"),
    ],
)
def test_nonsense_is_refused_at_birth(make: Any, fields: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        make(**fields)


@pytest.mark.parametrize(
    "chosen", [NoPersonalization(), DreamBooth(resolution=(64, 128)), TextualInversion(**WORD, snr_gamma=5)]
)
def test_settings_survive_their_record(chosen: Any) -> None:
    assert TypeAdapter(type(chosen)).validate_python(as_json(chosen)) == chosen


def test_learning_rate_rises_stays_and_falls() -> None:
    chosen = DreamBooth(steps=10, warmup=3, decay="cosine")
    factors = [chosen.factor(i) for i in range(10)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[3:] == sorted(factors[3:], reverse=True)
    assert 0 < factors[-1] < 0.1
    assert {DreamBooth(steps=10).factor(i) for i in range(10)} == {1.0}


def test_every_personalizer_takes_unlabelled_images() -> None:
    assert set(personalizers) == {"dreambooth", "none", "textual-inversion"}
    for name in personalizers:
        parameters = inspect.signature(personalizers[name].__call__).parameters
        assert list(parameters) == ["self", "backbone", "images", "run", "captions"]
        assert parameters["images"].annotation == "Unlabeled"


def test_stage_1_never_names_a_label() -> None:
    for path in Path(personalize.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        assert not names & {"Labeled", "labeled", "LabelSpace", "Domain", "domains"}, path
