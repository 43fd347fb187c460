"""Attention maps that are kept for reports: of which words, and as files that come back as they were written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tadp_da.attention_maps import FOLDER, draw_maps, read_maps, save_maps, telling_words, words_of
from tadp_da.backbones import load_backbone
from tadp_da.captions.rewrite import Rewrite
from tadp_da.perception_model import PerceptionModel
from tadp_da.types import DomainDescription, LabelSpace
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2

NIGHT = Rewrite(strategy="simple", word="sks", target_description=DomainDescription(style="dark night"))
PROMPT = "a dark night photo of two cars on a road under the sky"


def assembled(backbone: Any, **options: Any) -> PerceptionModel:
    labels = LabelSpace("segmentation", ("sky", "road", "car"))
    return PerceptionModel.assemble(backbone, "semantic-fpn", labels, width=16, **options)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_words_that_tell_are_those_of_the_domain_and_the_first_classes(backbone: Any) -> None:
    model = assembled(backbone, rewrite=NIGHT)
    assert telling_words(model, PROMPT) == ["dark night", "cars", "road"]
    assert telling_words(model, "a dashcam photo at sks night") == ["sks", "night"]
    assert telling_words(model, "two dogs") == []


def test_without_a_prompt_or_without_attention_no_word_has_a_map(backbone: Any, tmp_path: Path) -> None:
    embedded = dataclasses.replace(NIGHT, strategy="class-embeddings", classes=("sky", "road"), word=None)
    blind = load_backbone("dinov2", str(save_tiny_dinov2(tmp_path / "dinov2")))
    for model in (assembled(backbone, rewrite=embedded), assembled(blind)):
        assert telling_words(model, PROMPT) == words_of(model, PROMPT) == []
        save_maps(model, [("a.png", noise(32, 32), PROMPT)], tmp_path)
        assert read_maps(tmp_path) == []
    assert not (tmp_path / FOLDER).exists()


def test_maps_come_back_as_they_were_written(backbone: Any, tmp_path: Path) -> None:
    model, image = assembled(backbone, rewrite=NIGHT), noise(400, 100)
    save_maps(model, [("a/0.png", noise(64, 64), "two dogs"), ("a/1.png", image, PROMPT)], tmp_path)
    found = read_maps(tmp_path)
    assert [(m.key, m.prompt, m.word) for m in found] == [
        ("a/1.png", PROMPT, word) for word in ("dark night", "cars", "road")
    ]
    drawn = draw_maps(model, image, PROMPT, ["cars"])["cars"]
    assert (found[1].low, found[1].high) == (drawn.low, drawn.high)
    assert 0 < drawn.low < drawn.high < 1
    with Image.open(found[1].path) as stored:
        assert stored.size == (320, 80)


@pytest.mark.parametrize("text", ["", "[]", '{"maps": [{"key": "a"}]}', '{"maps": 3}'])
def test_an_index_that_cannot_be_read_is_no_map(tmp_path: Path, text: str) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "maps.json").write_text(text)
    assert read_maps(tmp_path) == []
