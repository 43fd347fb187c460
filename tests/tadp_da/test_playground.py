"""What the playground shows, by real small models of every task and backbone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tadp_da.backbones import load_backbone
from tadp_da.captions.rewrite import Rewrite
from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.playground import NULL, Playground
from tadp_da.types import DomainDescription, LabelSpace
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2

HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "segmentation": ("semantic-fpn", {"width": 16}),
    "detection": ("faster-rcnn", {"width": 8, "hidden": 16, "pool": 3}),
}
CAPTION = "a car on a street"


def assembled(backbone: Any, task: str = "segmentation", **options: Any) -> PerceptionModel:
    name, settings = HEADS[task]
    model = PerceptionModel.assemble(
        backbone, name, LabelSpace(task, ("sky", "road", "car")), **settings, **options
    )
    with (
        torch.no_grad()
    ):  # random weights decide firmly: masks of several classes, boxes with scores that are drawn
        for weight in model.head.parameters():
            if weight.ndim > 1:
                weight.sub_(weight.mean(1, keepdim=True)).mul_(3)
    return model


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Noise, wider than high, at a size that is not on the backbones' grids."""
    noise = np.random.default_rng(0).integers(0, 256, (45, 83, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


@pytest.mark.parametrize("task", HEADS)
def test_a_prompt_differs_where_the_drawings_differ(backbone: Any, task: str, image: Path) -> None:
    play = Playground(assembled(backbone, task))
    same = play.compare(image, CAPTION, CAPTION)
    grey = np.asarray(Image.open(image).convert("L")) // 2
    assert same.changed == 0
    np.testing.assert_array_equal(same.difference, np.stack([grey] * 3, -1))
    assert same.legend, "the prediction has something to draw"
    assert set(same.legend) <= set(play.model.labels.classes)
    other = play.compare(image, "a dark night", CAPTION)
    assert other.prediction.size == other.difference.size == (83, 45)
    moved = (np.asarray(other.difference) != np.asarray(same.difference)).any(-1)
    assert 0 < other.changed == pytest.approx(moved.mean())
    assert np.asarray(other.prediction)[moved].tolist() != np.asarray(same.prediction)[moved].tolist()


def test_every_strategy_that_can_writes_a_prompt_and_the_models_is_first(backbone: Any) -> None:
    rewrite = Rewrite(strategy="simple", target_description=DomainDescription(style="dark night"))
    play = Playground(assembled(backbone, rewrite=rewrite))
    found = play.prompts(CAPTION)
    assert next(iter(found)) == "simple"
    assert found["simple"] == play.model.prompt(CAPTION)
    assert found[NULL] == CAPTION
    assert "dreambooth" not in found
    play.model.rewrite = dataclasses.replace(rewrite, word="sks")
    assert "sks" in play.prompts(CAPTION)["dreambooth"]
    long = play.prompts("car " * 200).values()
    assert max(map(backbone.count_tokens, long)) <= backbone.token_limit


def test_each_word_of_a_prompt_has_a_map_of_the_images_shape(backbone: Any, image: Path) -> None:
    play = Playground(assembled(backbone))
    assert play.limits == []
    prompt = 'a "dark" <night>, a car.'
    assert play.words(prompt) == ["a", "dark", "<night>", "car"]
    for word in play.words(prompt):
        shown, low, high = play.attention(image, prompt, word)
        assert shown.size == (83, 45)
        assert 0 < low < high < 1


def test_a_backbone_without_text_says_so(image: Path, tmp_path: Path) -> None:
    backbone = load_backbone("dinov2", str(save_tiny_dinov2(tmp_path / "dinov2")))
    play = Playground(assembled(backbone))
    assert ["reads no text" in play.limits[0], "no cross-attention" in play.limits[1]] == [True, True]
    assert play.words(CAPTION) == []
    assert play.compare(image, "a dark night", CAPTION).changed == 0


def test_the_models_captioner_writes_captions_and_without_one_the_advice_is_to_type(
    backbone: Any, image: Path
) -> None:
    assert len(Playground(assembled(backbone, captioner="mini")).caption(image).split()) > 1
    assert Playground(assembled(backbone), captioner="mini").caption(image)
    with pytest.raises(UsageError, match="type a caption"):
        Playground(assembled(backbone)).caption(image)


def test_a_page_opens_for_more_classes_than_a_prompt_holds(backbone: Any) -> None:
    names = tuple(f"class {i}" for i in range(150))
    model = PerceptionModel.assemble(backbone, "semantic-fpn", LabelSpace("segmentation", names), width=16)
    model.rewrite = Rewrite(classes=names)
    found = Playground(model).prompts(CAPTION)
    assert found[NULL] == CAPTION
    assert "class-names" not in found
    assert not {name for name in found if "oracle" in name or "embedding" in name or name == "class-tokens"}


def test_a_model_of_class_embeddings_says_that_prompts_change_nothing(backbone: Any) -> None:
    rewrite = Rewrite(strategy="class-embeddings", classes=("sky", "road", "car"))
    play = Playground(assembled(backbone, rewrite=rewrite))
    assert any("in place of a prompt: prompts change nothing" in said for said in play.limits)
