"""What a plan counts is what the real networks have: shapes, parameters, bytes kept; and its sums follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.cost import counting, estimate
from benchmarks.cost.estimate import PEAKS, Planner, Work, throughput, whole
from benchmarks.evaluate import EvaluationSettings
from benchmarks.recipe import Benchmark, Recipe, read_benchmark
from tadp_da.backbones import meta_backbone
from tadp_da.custom_dataset import CustomDataset
from tadp_da.domains import domains
from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.settings import Choice
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2
from tests.tadp_da.domains import trees

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def recipe(tiny_pipeline: Path) -> Make:
    """A recipe of a shipped benchmark on that model, with changes."""

    def make(name: str = "nighttime-driving-repo", row: str = "null", **adapt: Any) -> Recipe:
        found = read_benchmark(name, (f"model={tiny_pipeline}",)).rows[row]
        small = found.adapt.augment.crop and dataclasses.replace(found.adapt.augment, crop=(64, 64))
        adapt = ({"augment": small} if small else {}) | adapt
        return dataclasses.replace(found, adapt=dataclasses.replace(found.adapt, **adapt))

    return make


@pytest.fixture(scope="module")
def peer(recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The same on a DINOv2, which is traced in a fraction of the time."""
    model = str(save_tiny_dinov2(tmp_path_factory.mktemp("models") / "dinov2"))
    other = {"backbone": Choice(name="dinov2"), "model": model, "strategy": "no-text"}
    return lambda **adapt: dataclasses.replace(recipe(**adapt), **other)


@pytest.fixture(scope="module")
def planner() -> Planner:
    """One for all: what is counted once need not be counted again."""
    return Planner()


def _own(**fields: Any) -> Recipe:
    folders = {"name": "own", "images": "i"}
    base = {"source": folders | fields, "target": folders}
    preset = "mini-boxes" if "boxes" in fields else "mini"
    return read_benchmark(preset, base=base, kind="presets").rows["null"]


def test_ones_own_boxes_are_planned_by_names_or_by_the_categories_of_a_coco_file(tmp_path: Path) -> None:
    xml = counting.label_space(_own(boxes="nowhere", classes=["car", "person"]))
    assert (xml.task, xml.classes) == ("detection", ("car", "person"))
    coco = _own(boxes=trees.coco(tmp_path / "gt.json", [], [], ("car", "dog", "cat")))
    assert counting.label_space(coco).classes == ("car", "dog", "cat")
    assert counting.build(coco).head.task == "detection"
    with pytest.raises(UsageError, match="name every class once"):
        counting.label_space(_own(boxes="nowhere"))


def test_ones_own_masks_are_planned_by_their_legend_and_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "legend.yaml").write_text("7: road\n26: car\n0: ignore\n8: road\n")
    assert counting.label_space(_own(masks="m", legend=tmp_path / "legend.yaml")).classes == ("road", "car")
    with pytest.raises(UsageError, match="give masks or boxes"):
        counting.label_space(_own())


def test_parameters_are_those_of_the_model_itself(recipe: Make, planner: Planner, backbone: Any) -> None:
    cost, full = planner.cost(recipe(), memory=False), backbone.trainable("full")
    parts = {name: counting.count(part) for name, part in backbone.parts().items()}
    assert cost.parameters == parts | {"head": cost.parameters["head"]}
    assert counting.build(recipe()).backbone.spec == backbone.spec
    assert cost.trained == sum(p.numel() for p in full) + cost.parameters["head"]
    low = planner.cost(recipe(backbone="lora", lora_rank=3), memory=False)
    real = sum(p.numel() for p in backbone.trainable("lora", rank=3))
    assert low.trained == real + low.parameters["head"]


@pytest.fixture(scope="module")
def planned(recipe: Make) -> Callable[[str, bool], int]:
    """Bytes that a step of two images holds, by precision and whether activations are recomputed."""

    @cache
    def held(precision: str, recompute: bool) -> int:
        return counting.step_bytes(recipe(batch=2, gradient_checkpointing=recompute), (64, 64), precision)

    return held


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_memory_of_a_step_is_that_of_a_real_one(
    recipe: Make, backbone: Any, planned: Callable[[str, bool], int], recompute: bool, precision: str
) -> None:
    chosen, size = recipe(batch=2, gradient_checkpointing=recompute), (64, 64)
    kind = heads[chosen.head.name]
    head = kind(backbone.spec, counting.label_space(chosen), kind.Settings(**chosen.head.settings))
    networks = counting.Networks(backbone, head)
    networks.train(chosen)
    pixels, text = torch.zeros(2, 3, *size), networks.text(2)
    real = counting.live_bytes(
        networks,
        lambda: networks.perceive(backbone.encode_image(pixels), text, size),
        chosen,
        precision,
    )
    assert planned(precision, recompute) == pytest.approx(real, rel=0.02)


def test_recomputing_and_half_precision_save_memory(planned: Callable[[str, bool], int]) -> None:
    assert planned("no", True) < planned("no", False)
    assert planned("bf16", True) < planned("bf16", False) < planned("no", False)


def test_a_plan_says_what_a_step_holds_by_part(recipe: Make, planned: Callable[[str, bool], int]) -> None:
    memory = Planner(precision="bf16").cost(recipe(batch=2, gradient_checkpointing=True)).memory
    assert memory["activations"] + memory["gradients"] == planned("bf16", True)


@pytest.mark.parametrize("name", ["nighttime-driving-paper", "comic2k-ours"])
def test_operations_grow_with_the_batch(recipe: Make, planner: Planner, name: str) -> None:
    networks = counting.build(recipe(name))
    networks.train(recipe(name))

    def step(batch: int) -> int:
        latents, text = networks.latents((64, 64), batch), networks.text(batch)
        return counting.operations(lambda: networks.perceive(latents, text, (64, 64)).backward())

    each = step(1)
    assert step(3) == 3 * each
    if name == "nighttime-driving-paper":
        assert planner.cost(recipe(name, batch=2, accumulate=4), memory=False).training == 8 * each


def test_operations_grow_with_what_is_trained(recipe: Make, peer: Make, planner: Planner) -> None:
    def training(make: Make = peer, **adapt: Any) -> int:
        return planner.cost(make(**adapt), memory=False).training

    frozen, low, full = (training(backbone=mode) for mode in ("frozen", "lora", "full"))
    assert frozen < low < full
    for make in (peer, recipe):
        assert training(make) < training(make, gradient_checkpointing=True) < 1.5 * training(make)


def test_counted_operations_are_those_of_a_real_step(recipe: Make, backbone: Any) -> None:
    chosen = recipe()
    kind = heads[chosen.head.name]
    head = kind(backbone.spec, counting.label_space(chosen), kind.Settings(**chosen.head.settings))
    found = []
    for networks in (counting.Networks(backbone, head), counting.build(chosen)):
        networks.train(chosen)
        latents, text = networks.latents((64, 64)), networks.text()
        with sdpa_kernel(SDPBackend.MATH):
            found.append(counting.operations(lambda: networks.perceive(latents, text, (64, 64)).backward()))  # noqa: B023
    assert found[0] == found[1]


def test_a_backbone_without_text_is_priced(tmp_path: Path) -> None:
    networks = counting.Networks(meta_backbone("dinov2", "dinov2-base"), None)
    latents, text = networks.latents((512, 512)), networks.text()
    spent = counting.operations(lambda: networks.backbone.pyramid_of(latents, text, (512, 512)))
    # 2 x 86 M parameters x 1025 tokens, and attention: 4 x 12 layers x 1025^2 x 768
    assert spent == pytest.approx(2 * 85.6e6 * 1025 + 4 * 12 * 1025**2 * 768, rel=0.02)


def test_memory_follows_from_what_is_trained_and_how(peer: Make, planner: Planner) -> None:
    def memory(**adapt: Any) -> Any:
        return planner.cost(peer(**adapt)).memory

    full, low = memory(), memory(backbone="lora")
    trained = planner.cost(peer(), memory=False).trained
    assert (full["gradients"], full["optimizer"], full["average"]) == (4 * trained, 8 * trained, 0)
    assert memory(ema=0.99)["average"] == 4 * trained
    assert memory(optimizer="adamw8bit")["optimizer"] == 2 * trained
    assert low["optimizer"] < full["optimizer"]
    assert memory(batch=4)["activations"] > memory(batch=2)["activations"]


def test_a_model_that_is_only_tested_otherwise_is_trained_once(recipe: Make, planner: Planner) -> None:
    scales = EvaluationSettings(scales=(1.0, 1.5))
    rows = {"null": recipe(), "scales": dataclasses.replace(recipe(), evaluate=scales)}
    work = whole(Benchmark(name="t", claim="c", rows=rows), planner)
    assert work["null"]["adapt"] != Work()
    assert work["scales"]["adapt"] == Work()
    assert work["scales"]["evaluate"].mixed > 2 * work["null"]["evaluate"].mixed


def test_hours_add_up_and_a_concept_is_learned_once(recipe: Make, planner: Planner) -> None:
    learned = recipe(row="dreambooth")
    rows = {"null": recipe(), "dreambooth": learned, "word": dataclasses.replace(learned, concept="word")}
    table = Benchmark(name="t", claim="c", rows=rows)
    one, three = whole(table, planner), whole(table, planner, seeds=3)
    assert one["null"]["personalize"] == one["word"]["personalize"] == Work()
    fewer = Benchmark(
        name="t", claim="c", rows=rows | {"word": dataclasses.replace(learned, target_images=5)}
    )
    assert whole(fewer, planner)["word"]["personalize"].mixed > 0, "other images, another concept"
    assert one["dreambooth"]["personalize"].mixed > 0
    assert three == {name: {s: v * 3 for s, v in each.items()} for name, each in one.items()}
    longer = dataclasses.replace(rows["null"].adapt, steps=2 * rows["null"].adapt.steps)
    doubled = planner.cost(dataclasses.replace(rows["null"], adapt=longer), memory=False)
    assert doubled.work["adapt"] == one["null"]["adapt"] * 2
    assert doubled.work["evaluate"] == one["null"]["evaluate"] != Work()


def test_half_precision_reaches_training_and_evaluation(recipe: Make, planner: Planner) -> None:
    work = planner.cost(recipe(row="dreambooth"), memory=False).work
    assert work["adapt"].mixed > 0 == work["adapt"].rest
    assert work["evaluate"].mixed > 0 == work["evaluate"].rest
    assert min(work["personalize"].mixed, work["personalize"].rest) > 0  # steps; latents taken before them
    full, half = (throughput("V100", None, 0.5, precision) for precision in ("no", "bf16"))
    assert half.hours(work["evaluate"]) < full.hours(work["evaluate"])
    gain = PEAKS["V100"].half / PEAKS["V100"].full
    assert full.hours(work["adapt"]) == pytest.approx(gain * half.hours(work["adapt"]))
    assert half.hours(work["adapt"]) == pytest.approx(work["adapt"].mixed / 62.5e12 / 3600)


def test_redrawn_images_are_priced(recipe: Make, planner: Planner) -> None:
    def rest(**settings: Any) -> int:
        style = {"name": "img2img", "settings": settings}
        chosen = dataclasses.replace(recipe(), source_style=Choice(name="mix", settings={"styles": [style]}))
        return planner.cost(chosen, memory=False).work["adapt"].rest

    images = domains["cityscapes"].counts["train"]
    (one,) = {(rest(steps=n + 10) - rest(steps=n)) / (4 * images) for n in (10, 50)}  # at strength 0.4
    assert one == pytest.approx((rest(steps=50, guidance=3) - rest(steps=50)) / (20 * images))
    assert rest(steps=10) > 5 * images * one  # with the judge, and both ways through the autoencoder


def test_learning_a_word_costs_less_than_learning_the_network(recipe: Make, planner: Planner) -> None:
    def each(row: str) -> float:
        chosen = recipe(row=row)
        settings = chosen.personalize.settings
        work = planner.cost(chosen, memory=False).work["personalize"]
        return work.mixed / (settings["steps"] * settings["batch"] * settings["accumulate"])

    assert 0 < each("textual-inversion") < each("dreambooth")


def test_unknown_gpus_and_models_are_refused_with_advice(recipe: Make) -> None:
    assert throughput("A100", None, 0.5, "fp16").mixed == 0.5e12 * PEAKS["A100"].half
    assert throughput("A100", None, 0.5).mixed == pytest.approx(0.5e12 * PEAKS["A100"].full)
    assert throughput("mine", 100, 0.1, "bf16").mixed == pytest.approx(1e13)
    assert throughput("mine", 100, 0.1).rest == pytest.approx(0.5e13)
    with pytest.raises(UsageError, match="choose one of: auto, no, bf16, fp16"):
        throughput("A100", None, 0.5, "half")
    with pytest.raises(UsageError, match=r"did you mean 'A100'.*") as refused:
        throughput("A10", None, 0.3)
    assert "--tflops" in str(refused.value)
    with pytest.raises(UsageError, match=r"--set model=sd-1\.5"):
        Planner().cost(dataclasses.replace(recipe(), model="nobody/nothing"))


def test_the_command_shows_a_step_and_the_hours(
    command: Callable[..., int],
    planner: Planner,
    tiny_pipeline: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.cost.estimate.Planner", lambda *_: planner)  # it knows the networks
    words = ["plan", "nighttime-driving-paper", "--rows", "null,simple", "--set", f"model={tiny_pipeline}"]
    words += ["--set", "adapt.augment.crop=[64, 64]"]
    assert command(*words, "--gpu", "H100", "--seeds", 3) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("estimate", "2 images of 64x64", "simple", "all rows", "H100"))
    assert "in half precision (--precision auto)" in " ".join(shown.split())
    assert command(*words, "--precision", "bf16") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Training and evaluation at 31.2 TFLOPS, in half precision (--precision bf16)" in shown
    assert "at 15.6, always in full precision" in shown
    assert command(*words, "--gpu", "V100") == 0
    assert "in full precision (--precision auto)" in " ".join(capsys.readouterr().out.split())
    assert command(*words, "--image", "small") == 2
    assert "720x960" in capsys.readouterr().err
    assert command(*words, "--row", "nul") == 2
    assert "did you mean 'null'" in capsys.readouterr().err


def test_the_paper_stands_on_the_terminal(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("benchmark", "table", "--out", tmp_path) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Table 4", "Table 5", "not run", "60.8"))
    assert command("benchmark", "table", "--variant", "theirs") == 2
    assert "paper, repo, ours" in capsys.readouterr().err
    assert command("benchmark", "table", "--out", tmp_path / "nowhere") == 2
    assert "benchmark run" in capsys.readouterr().err


def test_what_a_teacher_costs_follows_its_passes_and_the_steps_in_which_it_teaches(
    peer: Make, planner: Planner
) -> None:
    """A student costs what a source image does, a teacher less, and a masked student as much again."""

    def extra(**settings: Any) -> int:
        own = (Choice(name="supervised"), Choice(name="self-training", settings=settings))
        found = planner.cost(dataclasses.replace(recipe, objectives=own), memory=False)
        return found.work["adapt"].mixed - alone

    recipe = dataclasses.replace(peer(), adapt=dataclasses.replace(peer().adapt, steps=8))
    alone = planner.cost(recipe, memory=False).work["adapt"].mixed
    whole = extra(start=0)
    assert alone < whole < 2 * alone
    assert extra(start=0.5) == whole / 2
    assert extra(start=0, masked={"mask": 0.5}) == whole + alone


def test_images_of_folders_and_of_the_drawn_world_are_counted(tmp_path: Path) -> None:
    for name in ("i/a.png", "i/b.png", "t/a.png"):
        trees.picture(tmp_path / name)
    trees.mask(tmp_path / "m/a.png", (0, 1, 0, 1))
    facts = {
        "name": "x",
        "images": tmp_path / "i",
        "test_images": tmp_path / "t",
        "test_masks": tmp_path / "m",
    }
    own = CustomDataset.checked(facts | {"classes": ("a", "b")})
    assert [estimate._count(own, split) for split in ("unlabeled", "test", "train")] == [2, 1, 0]
    assert estimate._count("mini-day", "train") == 600
