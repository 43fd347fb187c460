"""Alignment of prompts with images: its measures, and a small table that is measured by all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.analyses import Cell, Given
from benchmarks.analyses.alignment import MEASURES, Alignment
from benchmarks.analyses.shared.alignment import (
    ClassWords,
    ClipScore,
    attention_measures,
    denoising_gain,
    precision_and_recall,
    singular,
)
from benchmarks.analyses.shared.images import Seen
from benchmarks.recipe import Recipe
from benchmarks.results import Evaluation, Report
from tadp_da.backbones import load_backbone
from tadp_da.captions.rewrite import Rewrite
from tadp_da.custom_dataset import CustomDataset
from tadp_da.domains.mini import LABELS
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import Choice
from tadp_da.tasks import Measure
from tests.conftest import clip_tokenizer


@pytest.fixture(scope="module")
def model(model_folder: Path) -> PerceptionModel:
    return PerceptionModel.load(model_folder)


def test_words_name_classes_in_any_number(model: PerceptionModel) -> None:
    further: Mapping[str, tuple[str, ...]] = {"vegetation": ("tree",)}
    words = ClassWords(
        model=model, classes=("car", "person", "vegetation", "traffic light", "sky"), further=further
    )
    assert words("two cars, People and trees at a traffic light") == {
        "car": ["cars"],
        "person": ["People"],
        "vegetation": ["trees"],
        "traffic light": ["traffic light"],
    }
    everything = ClassWords(model=model, classes=("car", "sky"), further={}, similarity=0.01)("a road")
    assert everything == {"car": ["a", "road"], "sky": ["a", "road"]}
    assert [singular(w) for w in ("cars", "buses", "bushes", "skies", "grass", "bus")] == [
        "car", "bus", "bush", "sky", "grass", "bus",
    ]  # fmt: skip


def test_precision_and_recall_of_classes() -> None:
    assert precision_and_recall(["car", "sky"], ["sky", "road", "pole"]) == (0.5, pytest.approx(1 / 3))
    assert precision_and_recall([], ["sky"]) == (None, 0)
    assert precision_and_recall(["sky"], []) == (0, None)


def test_the_empty_prompt_gains_nothing_and_noise_is_shared(model: PerceptionModel) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 96, 3), np.uint8))
    backbone = model.backbone
    assert denoising_gain(backbone, model, image, "", 0, 2) == 0
    gain = denoising_gain(backbone, model, image, "a road with two cars", 0, 2)
    assert gain == denoising_gain(backbone, model, image, "a road with two cars", 0, 2)
    assert 0 < abs(gain) < 1


def test_a_map_is_measured_against_the_masks_of_its_words(model: PerceptionModel) -> None:
    image = Image.new("RGB", (64, 64), "gray")
    truth = np.zeros((64, 64), np.uint8)
    car = model.labels.classes.index("car")
    heat = model.attention(image, ["cars"], "two cars")["cars"]
    truth[heat > np.quantile(heat, 0.9)] = car  # a mask where the map is highest
    seen = Seen(key="", image=image, caption="", truth=truth, labels=model.labels)
    found = attention_measures(model, seen, "two cars", {"car": ["cars"], "person": ["two"]})
    assert found["attention AUROC"] == pytest.approx(1, abs=1e-3)
    assert (found["attention mass ratio"] or 0) > 1
    assert attention_measures(model, seen, "two cars", {}) == dict.fromkeys(found)


def test_clip_scores_images_and_texts(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = clip_tokenizer()
    torch.manual_seed(0)
    text = small | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config=text, vision_config=small | {"image_size": 32, "patch_size": 8}, projection_dim=8
    )
    CLIPModel(config).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(tmp_path)
    score = ClipScore(str(tmp_path), torch.device("cpu"))
    scores = [
        score(Image.new("RGB", (40, 32), c), t) for c in ("red", "navy") for t in ("a car", "a dark night")
    ]
    assert all(0 <= s <= 2.5 for s in scores)
    assert len(set(scores)) > 1
    assert scores[0] == score(Image.new("RGB", (40, 32), "red"), "a car")


@dataclass(frozen=True, kw_only=True)
class Table(Given):
    """A table whose rows were not trained: the mini model with a head of random weights."""

    rows: tuple[Cell, ...] = ()

    def cells(self) -> list[Cell]:
        return list(self.rows)


def test_rows_of_a_table_are_measured_and_correlated_with_their_scores(drawn: Path, tmp_path: Path) -> None:
    own = CustomDataset(name="drawn", images=drawn / "images", test_images=drawn / "images", test_masks=drawn / "masks",
                        classes=LABELS.classes)  # fmt: skip
    score = Measure(name="mIoU", value=50.0)
    cells = []
    for row in ("null", "class-names"):
        recipe = Recipe(
            source=own,
            backbone=Choice(name="stable-diffusion"),
            head=Choice(name="semantic-fpn", settings={"width": 16}),
            strategy=row,
            caption_files={"drawn/test": drawn / "captions.json"},
        )
        backbone = load_backbone("stable-diffusion", "mini")
        rewrite = Rewrite(strategy=row, classes=LABELS.classes)
        PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, rewrite=rewrite, width=16).save(
            tmp_path / row
        )
        images = {f"{i}.png": 10.0 * i + len(row) for i in range(4)}
        test = Evaluation(domain="drawn", labels=LABELS, images=4, main=score, per_image=images)
        report = Report(evaluations={"test": test})
        cells.append(Cell(row=row, seed=0, recipe=recipe.as_json(), report=report, model=tmp_path / row))
    given = Table(folders=(tmp_path,), rows=tuple(cells))
    found = Alignment(draws=1, words={"vegetation": ("tree",)})(
        given, Run(folder=tmp_path / "run", device="cpu")
    )
    assert [(line["row"], line["images"]) for line in found.tables["alignment"]] == [
        ("null", 4),
        ("class-names", 4),
    ]
    for line in found.tables["images"]:
        assert (line["attention AUROC"] is None) == (not line["class recall"])
        assert line["class recall"] == 1 or line["row"] == "null"
        assert 0 < abs(line["denoising gain (%)"]) < 100
        assert line["score"] == 10.0 * int(line["image"][0]) + len(line["row"])
    measured = {line["measure"] for line in found.tables["correlations"]}
    assert measured == {*MEASURES} - {"CLIPScore"}
    assert found.figures["alignment"].width > 600
    assert "2 rows, 1 seeds, 4 test images" in found.text
