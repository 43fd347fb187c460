"""What rows of prompts give the network: class embeddings, the classes in labels, true captions, shuffled ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import publishing
from benchmarks.experiment import Experiment
from benchmarks.pipeline import reproduce
from benchmarks.recipe import read_benchmark
from benchmarks.scoring import ORACLE
from benchmarks.suite import reads_test_labels, run_suite, sees_target
from tadp_da.captions.rewrite import Rewrite
from tadp_da.captions.strategies.class_embeddings import IMAGENET_TEMPLATES
from tadp_da.domains import domains, mini
from tadp_da.domains.nyu_v2 import scene_of
from tadp_da.errors import DataError, UsageError
from tadp_da.mini.world import CLASSES
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.types import LabelSpace
from tests.tadp_da.domains import trees

QUICK = ("adapt.steps=1", "adapt.batch=1", "limit=2", "evaluate.save_images=1", "head.settings.width=16")


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini, "COUNTS", dict.fromkeys(mini.COUNTS, 2))


def test_class_embeddings_are_the_mean_of_the_encoders_pooled_output_over_80_templates(backbone) -> None:
    names = ("dining table", "street")
    rewrite = Rewrite(strategy="class-embeddings", classes=("diningtable", "street"))
    model = PerceptionModel.assemble(
        backbone, "semantic-fpn", LabelSpace("segmentation", names), rewrite=rewrite
    )
    found = model.encode_text(["whatever", "else", ""])
    assert found.shape[:2] == (3, 2)
    assert torch.equal(found[0], found[2])
    for i, name in enumerate(names):
        prompts = [template.format(name) for template in IMAGENET_TEMPLATES]
        assert len(set(prompts)) == 80
        inputs = backbone.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            states = backbone.text_encoder(inputs.input_ids).last_hidden_state
        ends = (inputs.input_ids == backbone.tokenizer.eos_token_id).int().argmax(1)
        torch.testing.assert_close(found[0, i], states[torch.arange(80), ends].mean(0))
    pixels = torch.zeros(1, 3, 64, 64)
    attention = backbone.pyramid(pixels, found[:1]).attention
    assert {maps.shape[1] for maps in attention.values()} == {2}
    assert model(pixels, found[:1]).shape == (1, 2, 64, 64)


def test_class_tokens_are_those_of_each_name_encoded_by_itself(backbone) -> None:
    rewrite = Rewrite(strategy="class-tokens", classes=("diningtable", "street"))
    labels = LabelSpace("segmentation", ("table", "street"))
    model = PerceptionModel.assemble(backbone, "semantic-fpn", labels, rewrite=rewrite)
    found = model.encode_text([""])[0]
    one, two = backbone.encode_text(["dining table"])[0], backbone.encode_text(["street"])[0]
    first, second = backbone.count_tokens("dining table"), backbone.count_tokens("street")
    torch.testing.assert_close(found, torch.cat([one[: 1 + first], two[1 : 1 + second]]))
    assert model(torch.zeros(1, 3, 64, 64), found[None]).shape == (1, 2, 64, 64)


def test_the_embedding_of_a_caption_is_that_of_a_class_of_this_name_and_the_only_one(backbone) -> None:
    labels = LabelSpace("segmentation", ("table", "street"))
    one = PerceptionModel.assemble(
        backbone, "semantic-fpn", labels, rewrite=Rewrite(strategy="caption-embedding")
    )
    classes = Rewrite(strategy="class-embeddings", classes=("street", "house"))
    known = PerceptionModel.assemble(backbone, "semantic-fpn", labels, rewrite=classes).encode_text([""])[0]
    found = one.encode_text(["house", "street", "house"])
    assert torch.equal(found, known[[1, 0, 1]][:, None])
    assert one(torch.zeros(3, 3, 64, 64), found).shape == (3, 2, 64, 64)
    assert not one.says("house", "house"), "there is no token to look at"
    with pytest.raises(DataError, match="reads 75"):
        one.encode_text(["a street with houses " * 40])


def test_a_scene_is_what_the_folders_say_and_a_data_set_without_scenes_is_refused(tmp_path: Path) -> None:
    trees.nyu(tmp_path)
    run = Run(folder=tmp_path / "runs", quiet=True, device="cpu")
    vpd = replace(read_benchmark("nyu-v2-ours").rows["vpd"], model="mini", captioner="mini")
    experiment = Experiment(vpd, run, tmp_path)
    captions = experiment.captions(experiment.source.images("train"), "train", run)
    assert captions["nyu_depth_v2/sync/bathroom_0001/rgb_00045.jpg"] == "bathroom"
    assert scene_of(Path("sync/home_office_0012b/rgb_1.jpg")) == "home office"
    with pytest.raises(UsageError, match="not sorted by scene") as caught:
        _ = Experiment(replace(vpd, source="mini-day"), run, tmp_path).captions
    assert "nyu-v2" in caught.value.fix


@pytest.mark.parametrize("strategy", ["class-embeddings", "caption-embedding", "oracle"])
def test_what_replaces_captions_is_used_on_both_sides_or_not_at_all(strategy: str) -> None:
    with pytest.raises(UsageError, match="on the target's side alone") as caught:
        Rewrite(strategy=strategy, side="target", classes=("a",))
    assert "sides: both" in caught.value.fix


def test_the_oracle_names_the_classes_in_labels_and_every_report_says_so(tmp_path: Path) -> None:
    table = read_benchmark("mini-prompts", QUICK).only(("null", "oracle"))
    run = Run(folder=tmp_path / "runs", quiet=True, device="cpu")
    reports = run_suite(table, [0], run, tmp_path)
    found = reports["oracle"][0].evaluations["test"]
    (saved,) = found.saved
    label = domains["mini-day"].label(tmp_path / saved.key)  # type: ignore[misc]
    assert saved.prompt == ", ".join(CLASSES[i] for i in sorted(set(label.ravel().tolist())))
    note = ORACLE.format(strategy="oracle", domain="mini-day")
    assert note in found.notes
    assert note not in reports["null"][0].evaluations["test"].notes
    records = {name: recipe.as_json() for name, recipe in table.rows.items()}
    assert [(reads_test_labels(r), sees_target(r)) for r in records.values()] == [
        (False, False),
        (True, True),
    ]
    comparison, written, page = publishing.publish(
        "t", reports, tmp_path / "t", table=(run.folder, table.name)
    )
    assert comparison.blind is None, "there is no target whose images could be seen"
    assert "upper bound" in written.markdown.read_text()
    html = page.read_text()
    assert "is an upper bound, and no method" in html
    assert '<span class="tag bound">reads test labels</span>' in html


def test_true_captions_come_with_the_data_set(tmp_path: Path) -> None:
    run = Run(folder=tmp_path / "runs", quiet=True, device="cpu")
    rows = read_benchmark("mini-prompts", QUICK).rows
    experiment = Experiment(rows["true-captions"], run, tmp_path)
    images = experiment.source.images("test")
    stored = json.loads((tmp_path / "mini-day/test/captions.json").read_text())
    assert experiment.captions(images, "test", run) == {key: stored[key]["captions"][0] for key in stored}
    other = Experiment(rows["true-captions"], run, tmp_path)
    other.target = replace(other.target, domain=replace(other.target.domain, captions=None))
    with pytest.raises(UsageError, match="comes without captions") as caught:
        _ = other.captions
    assert "mini-day" in caught.value.fix


def test_an_oracle_needs_labels_with_classes(tmp_path: Path) -> None:
    run = Run(folder=tmp_path / "runs", quiet=True, device="cpu")
    table = read_benchmark("mini-depth", (*QUICK, "strategy=oracle"))
    with pytest.raises(UsageError, match="reads class names from labels"):
        reproduce(Experiment(table.rows["null"], run, tmp_path))
