"""personalize, adapt and evaluate as three commands: what they learned from is not scored on, nor learned in vain."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from adapt.stage import refuse_other_labels, require_said
from benchmarks.experiment import Experiment
from benchmarks.recipe import Recipe
from tadp_da import api
from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.captions.rewrite import Rewrite
from tadp_da.concept import Concept
from tadp_da.custom_dataset import CustomDataset
from tadp_da.errors import ArtifactError, DataError, UsageError
from tadp_da.provenance import PROVENANCE, learned_from
from tadp_da.run import Run
from tadp_da.settings import Choice
from tadp_da.storage.artifacts import MANIFEST
from tadp_da.types import LabelSpace
from tests.toy import NAMES, draw_pair

COMMIT = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
QUICK = ("batch=2", "resolution=64", "previews.images=0", "accumulate=1")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders of pictures; the captions of all of them in one file."""
    root = draw_pair(tmp_path_factory.mktemp("toys"), count=2)
    captions = {f"{i}.png": {"captions": ["a car on a road"]} for i in range(9)}
    (root / "captions.json").write_text(json.dumps(captions))
    return root


@pytest.fixture(scope="module")
def concept(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Concept:
    """Learned rows and nothing else."""
    backbone = StableDiffusion.from_pretrained(str(tiny_pipeline))
    base = backbone.fingerprint
    rows = backbone.token_rows(backbone.add_tokens("<night>", like="night", vectors=2)) + 1
    return Concept(word="<night>", domain="night", backbone=base, method="textual-inversion", rows=rows)


def adapted(toys: Path, model: object, out: Path, *sets: str, **changes: Any) -> Path:
    trained = api.adapt(
        toys / "day/images",
        toys / "day/masks",
        out=out,
        classes=NAMES.split(","),
        captions=toys / "captions.json",
        model=str(model),
        preset=str(toys / "preset.yaml"),
        sets=("adapt.steps=1", *sets),
        quiet=True,
        device="cpu",
        **changes,
    )
    assert trained.folder == out
    return out


def scored(toys: Path, model: Path, images: Path, out: Path, *, allow: bool = False) -> Any:
    report = api.evaluate(
        model,
        images,
        toys / "test/masks",
        out=out,
        captions=toys / "captions.json",
        quiet=True,
        device="cpu",
        allow_overlap=allow,
    )
    (found,) = report.evaluations.values()
    return found


def test_what_three_commands_learned_from_is_not_scored_on(
    command: Callable[..., int],
    toys: Path,
    tiny_pipeline: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    concept, cpu = tmp_path / "concept", ("--device", "cpu")
    learn = ["personalize", toys / "night/images", "--out", concept, "--word", "<night>", "--like", "night"]
    sets = [word for setting in ("steps=1", *QUICK) for word in ("--set", setting)]
    assert command(*learn, "--model", tiny_pipeline, *sets, *cpu) == 0
    model = adapted(toys, tiny_pipeline, tmp_path / "model", concept=concept, strategy="textual-inversion")
    assert caplog.messages == []
    sources = {str(p) for side in ("day", "night") for p in (toys / side / "images").iterdir()}
    assert set(learned_from(model).values()) == sources

    assert scored(toys, model, toys / "test/images", tmp_path / "clean").images == 2
    for side in ("day", "night"):
        tests = Path(shutil.copytree(toys / "test/images", tmp_path / f"with-{side}"))
        shutil.copy(toys / side / "images/0.png", tests / "1.png")
        with pytest.raises(DataError, match="1 of 2 test images are also among the images that were learned"):
            scored(toys, model, tests, tmp_path / f"refused-{side}")
    words = ["evaluate", model, tests, toys / "test/masks", "--captions", toys / "captions.json", *cpu]
    assert command(*words, "--out", tmp_path / "refused") == 3
    assert "--allow-overlap" in capsys.readouterr().err
    assert command(*words, "--out", tmp_path / "refused", "--allow-overlap") == 0
    assert scored(toys, model, tests, tmp_path / "allowed", allow=True).images == 2

    (model / PROVENANCE).write_text('{"images": 3}')
    with pytest.raises(ArtifactError, match="cannot read what was learned from") as caught:
        learned_from(model)
    assert "make it again" in caught.value.fix
    (model / PROVENANCE).unlink()
    with caplog.at_level(logging.WARNING):
        assert learned_from(model) == {}
    assert "does not say which images it has learned from" in caplog.text


def test_artefacts_keep_the_commit_of_the_base_model(
    toys: Path, tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshots = tmp_path / "hub/models--stable-diffusion-v1-5--stable-diffusion-v1-5/snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / COMMIT).symlink_to(tiny_pipeline)
    origin = f"stable-diffusion-v1-5/stable-diffusion-v1-5@{COMMIT}"

    def base(artifact: Path) -> str:
        assert PROVENANCE in json.loads((artifact / MANIFEST).read_text())["files"], (
            "the manifest vouches for it"
        )
        return str(json.loads((artifact / PROVENANCE).read_text())["base"])

    model = adapted(toys, "sd-1.5", tmp_path / "model")
    assert base(model) == origin
    # it is no input: the same weights from a folder are the same model
    assert adapted(toys, tiny_pipeline, tmp_path / "model") == model

    recipe = a_recipe(toys, "sd-1.5", "textual-inversion")
    run = Run(folder=tmp_path / "run", quiet=True, device="cpu")
    experiment = Experiment(recipe, run, tmp_path)
    experiment.adaptation(experiment.personalization()())()
    found = {p.parent.name.partition("-")[0]: p.parent for p in run.folder.glob(f"*/{PROVENANCE}")}
    assert {kind: base(folder) for kind, folder in found.items()} == {"concept": origin, "model": origin}
    assert len(learned_from(found["concept"])) == 2
    assert len(learned_from(found["model"])) == 4


def test_a_model_of_one_command_is_found_by_a_table_and_the_other_way_round(
    command: Callable[..., int],
    toys: Path,
    tiny_pipeline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = adapted(toys, tiny_pipeline, tmp_path / "model")
    trained: list[object] = []
    file = toys / "captions.json"

    def refuse(*_: object, **__: object) -> None:
        trained.append(1)
        raise AssertionError("the second command trains nothing")

    monkeypatch.setattr("adapt.fine_tuning.fit", refuse)
    table = [
        "run", "--source-images", toys / "day/images", "--source-masks", toys / "day/masks", "--classes", NAMES,
        "--target-images", toys / "night/images", "--target-style", "", "--preset", toys / "preset.yaml",
        "--strategies", "null", "--set", "adapt.steps=1", "--model", tiny_pipeline, "--device", "cpu",
        "--set", f"caption_files={{source/train: {file}, target/unlabeled: {file}}}",
    ]  # fmt: skip
    assert command(*table, "--out", tmp_path) == 0
    assert not list(tmp_path.glob("model-*")), "the model of the single command serves"

    monkeypatch.undo()
    assert command(*table, "--out", tmp_path / "tables") == 0
    (made,) = (tmp_path / "tables").glob("model-*")
    monkeypatch.setattr("adapt.fine_tuning.fit", refuse)
    copied = adapted(toys, tiny_pipeline, tmp_path / "tables/mine")
    weights = [(folder / "head.safetensors").read_bytes() for folder in (first, made, copied)]
    assert weights[0] == weights[1] == weights[2]
    assert trained == []


def a_recipe(toys: Path, model: object, strategy: str, **changes: Any) -> Recipe:
    """Day to night with a learned word."""
    classes = tuple(NAMES.split(","))
    day = CustomDataset(name="day", images=toys / "day/images", masks=toys / "day/masks", classes=classes)
    files = dict.fromkeys(("day/train", "night/unlabeled"), toys / "captions.json")
    learn = {"word": "<night>", "like": "night", "steps": 1, "batch": 2, "accumulate": 1, "resolution": 64}
    facts: dict[str, Any] = {
        "backbone": "stable-diffusion",
        "personalize": Choice(name="textual-inversion", settings=learn | {"previews": {"images": 0}}),
        "adapt": {"steps": 1, "batch": 2, "augment": {}},
        "caption_files": files,
    }
    facts |= {"target": CustomDataset(name="night", images=toys / "night/images"), "inference": {"long": 64}}
    head = Choice(name="semantic-fpn", settings={"width": 16})
    return Recipe(
        **{"source": day, "model": str(model), "strategy": strategy, "head": head, **facts, **changes}
    )


def test_a_concept_whose_token_is_in_no_prompt_is_refused(
    toys: Path, tiny_pipeline: Path, concept: Concept, tmp_path: Path
) -> None:
    concept.save(tmp_path / "concept")
    with pytest.raises(UsageError, match="never writes it: 'a probe' becomes 'a probe'") as caught:
        adapted(toys, tiny_pipeline, tmp_path / "model", concept=tmp_path / "concept")
    assert "'<night> <night>_1'" in caught.value.what
    assert "textual-inversion" in caught.value.fix
    assert not (tmp_path / "model").exists()

    recipe = a_recipe(toys, tiny_pipeline, "simple")
    adaptation = Experiment(recipe, Run(folder=tmp_path, quiet=True), tmp_path).adaptation(concept)
    with pytest.raises(UsageError, match="strategy 'simple' never writes it"):
        adaptation.inputs()


def test_a_concept_with_weights_needs_no_word_and_one_word_is_enough(concept: Concept) -> None:
    quiet = Rewrite(strategy="null", word=concept.prompt_word)
    weights = {"conv_in.bias": torch.zeros(4)}
    require_said(dataclasses.replace(concept, weights=weights), quiet)
    require_said(dataclasses.replace(concept, lora=weights), quiet)
    dreambooth = Concept(word="sks", domain="night", backbone="", method="dreambooth", weights=weights)
    require_said(dreambooth, quiet)
    require_said(dreambooth.only_weights(), quiet)
    require_said(dreambooth.only_word(), Rewrite(strategy="dreambooth", word="sks"))
    with pytest.raises(UsageError, match="'sks' alone"):
        require_said(dreambooth.only_word(), quiet)
    for strategy in ("textual-inversion", "a <night>_1 photo of {caption}"):
        require_said(concept, dataclasses.replace(quiet, strategy=strategy))
    require_said(Concept(word="", domain="night", backbone="", method="none"), quiet)


def test_a_model_of_another_concept_is_not_taken_for_this_one(
    toys: Path, tiny_pipeline: Path, concept: Concept, tmp_path: Path
) -> None:
    assert concept.rows is not None
    concept.save(tmp_path / "one")
    dataclasses.replace(concept, rows=concept.rows + 1).save(tmp_path / "other")
    chosen = {"strategy": "textual-inversion", "out": tmp_path / "model"}
    adapted(toys, tiny_pipeline, concept=tmp_path / "one", **chosen)
    with pytest.raises(UsageError, match="created with different settings \\(concept: "):
        adapted(toys, tiny_pipeline, concept=tmp_path / "other", **chosen)


def test_a_few_labelled_target_images_join_the_source(
    command: Callable[..., int], toys: Path, tiny_pipeline: Path, tmp_path: Path, capsys: Any
) -> None:
    few = {"target_labelled": toys / "night/images", "target_labels": toys / "night/masks"}
    model = adapted(toys, tiny_pipeline, tmp_path / "model", **few)
    sources = {str(p) for side in ("day", "night") for p in (toys / side / "images").iterdir()}
    assert set(learned_from(model).values()) == sources
    inputs = json.loads((model / MANIFEST).read_text())["inputs"]
    assert {"labelled_target", "labelled_share", "labelled_prompts"} < inputs.keys()
    alone = ["adapt", toys / "day/images", toys / "day/masks", "--classes", NAMES, "--out", tmp_path / "no"]
    assert command(*alone, "--target-labelled", toys / "night/images") == 2
    assert "--target-labelled FOLDER --target-labels PATH" in capsys.readouterr().err
    with pytest.raises(UsageError, match="images are labelled with segmentation of b, a") as refused:
        refuse_other_labels(*(LabelSpace("segmentation", classes) for classes in (("a", "b"), ("b", "a"))))
    assert "same order" in refused.value.fix


def test_redrawn_images_are_made_once_and_held_against_the_model_of_unchanged_ones(
    toys: Path, tiny_pipeline: Path, tmp_path: Path
) -> None:
    plain = adapted(toys, tiny_pipeline, tmp_path / "plain")
    style = "{name: img2img, settings: {statistics: false, steps: 5}}"
    mix = f"source_style={{name: mix, settings: {{changed: 1, styles: [{style}]}}}}"
    model = adapted(toys, tiny_pipeline, tmp_path / "redrawn", mix)
    (redrawn,) = tmp_path.glob("redrawn-*")
    assert {f"{i:06d}.png" for i in range(2)} < {path.name for path in redrawn.iterdir()}
    made = json.loads((redrawn / MANIFEST).read_text())
    assert made["inputs"]["judge"] == json.loads((plain / MANIFEST).read_text())["inputs"]
    assert not list(tmp_path.glob("model-*")), "the judge was there already"
    assert (model / "head.safetensors").read_bytes() != (plain / "head.safetensors").read_bytes()
