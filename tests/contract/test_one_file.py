"""What an addition costs: each example of "Extending" is one file in a folder of plug-ins, and a recipe can name it.

Nothing else is touched: the file is put where its registry looks, named in a YAML recipe, and the whole figure runs.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from adapt.objectives import objectives
from adapt.sources import sources
from benchmarks.analyses import analyses
from personalize import personalizers
from tadp_da.backbones import backbones
from tadp_da.captions.strategies import strategies
from tadp_da.domains import domains
from tadp_da.heads import heads
from tadp_da.mini.world import CLASSES
from tadp_da.perception_model import PerceptionModel
from tadp_da.registry import Registry
from tadp_da.tasks import tasks
from tadp_da.types import LabelSpace
from tests.tadp_da.captions.conftest import write_blip2
from tests.toy import PRESET, SIZE, draw_pair

DOCS = Path(__file__).parent.parent.parent / "docs"
HARBOUR = ("water", "quay", "boat", "crane")


@dataclass(frozen=True)
class Addition:
    """One addition.

    Attributes:
        row: what a recipe says, with ``{toys}`` for the folder of data.
        files: examples, and the registry in whose folder each is put; a new task needs a head and a domain too.
        classes: of the model that comes out.
    """

    row: str
    files: dict[str, Registry[Any]]
    classes: tuple[str, ...] = CLASSES


ADDITIONS = {
    "strategy": Addition("{strategy: season}", {"strategy": strategies}),
    "personalizer": Addition(
        "{strategy: textual-inversion, personalize: {name: known-word, settings: {word: night}}}",
        {"personalizer": personalizers},
    ),
    "domain": Addition("{source: harbour}", {"domain": domains}, HARBOUR),
    "source": Addition("{source_style: {name: grey, settings: {probability: 1.0}}}", {"source": sources}),
    "objective": Addition(
        "{objectives: [supervised, {name: maximum-squares, settings: {weight: 0.1}}]}",
        {"objective": objectives},
    ),
    "head": Addition("{head: {name: linear-probe, settings: {}}}", {"head": heads}),
    "task": Addition(
        "{source: harbour-presence, target: null, head: {name: pooled-linear, settings: {}}}",
        {"task": tasks, "task_head": heads, "task_domain": domains},
        HARBOUR,
    ),
    "backbone": Addition(
        '{backbone: {name: resnet-18, settings: {}}, model: "{toys}/resnet", strategy: "no-text"}',
        {"backbone": backbones},
    ),
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torchvision.models import resnet18

    root = draw_pair(tmp_path_factory.mktemp("toys"), count=2)
    write_blip2(root / "blip2")
    torch.manual_seed(0)
    (root / "resnet").mkdir()
    save_file(resnet18(weights=None).state_dict(), root / "resnet/resnet18.safetensors")
    rng = np.random.default_rng(0)
    for split in ("train", "test", "unlabeled"):
        for index in range(2):
            name = f"{split}/{index}.png"
            for folder, shape, high in (("", (*SIZE, 3), 256), ("masks/", SIZE, 4)):
                path = root / "harbour" / f"{folder}{name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, high, shape, dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Addition], None]]:
    """Puts the files of an addition where their registries look, for the time of a test."""
    changed: list[tuple[Registry[Any], set[str], str]] = []

    def drop(addition: Addition) -> None:
        for example, registry in addition.files.items():
            known = set(registry)
            folder, module = tmp_path / f"plug-ins-{example}", f"example_{example}"
            folder.mkdir()
            shutil.copy(DOCS / "examples" / f"{example}.py", folder / f"{module}.py")
            package = sys.modules[registry.package]
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
            monkeypatch.setattr(registry, "_scanned", False)
            changed.append((registry, known, f"{registry.package}.{module}"))
            assert len(registry) == len(known) + 1

    yield drop
    for registry, known, module in changed:
        for name in set(registry) - known:
            del registry._entries[name]
        del sys.modules[module]


@pytest.mark.parametrize("name", sorted(ADDITIONS))
def test_an_addition_is_one_file_that_a_recipe_can_name(
    name: str,
    command: Callable[..., int],
    dropped: Callable[[Addition], None],
    toys: Path,
    tiny_pipeline: Path,
    tmp_path: Path,
) -> None:
    addition = ADDITIONS[name]
    dropped(addition)
    table = tmp_path / "mine.yaml"
    classes = f"classes: [{', '.join(CLASSES)}]"
    day = f"{{name: day, images: {toys}/day/images, masks: {toys}/day/masks, {classes}}}"
    tests = f", test_images: {toys}/test/images, test_masks: {toys}/test/masks, {classes}"
    tests = tests if addition.classes == CLASSES else ""
    night = f"{{name: night, images: {toys}/night/images, style: night{tests}}}"
    base = PRESET[: PRESET.index("rows:")]
    base += f"  model: {tiny_pipeline}\n  captioner: {toys}/blip2\n  source: {day}\n  target: {night}\n"
    row = addition.row.replace("{toys}", str(toys))
    table.write_text(f"claim: An example.\n{base}rows:\n  example: {row}\n", encoding="utf-8")
    out = tmp_path / "out"
    run = ("benchmark", "run", table, "--data", toys, "--seeds", "0", "--out", out, "--device", "cpu")
    assert command(*run) == 0
    (model,) = out.glob("model-*/model.json")
    assert json.loads(model.read_text())["labels"]["classes"] == list(addition.classes)
    (note,) = out.glob("tables/mine/**/example-0.json")
    assert json.loads(note.read_text())["recipe"]
    (report,) = out.glob("report-*/report.json")
    assert json.loads(report.read_text())["evaluations"]


ANALYSIS = Addition("", {"analysis": analyses})


def test_an_analysis_is_one_file_that_a_command_can_name(
    command: Callable[..., int],
    dropped: Callable[[Addition], None],
    backbone: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dropped(ANALYSIS)
    for name, width in (("small", 8), ("large", 16)):
        labels = LabelSpace("segmentation", CLASSES)
        PerceptionModel.assemble(backbone, "semantic-fpn", labels, width=width).save(tmp_path / name)
    words = ("analyze", "weights", tmp_path / "small", tmp_path / "large", "--device", "cpu")
    assert command(*words, "--out", tmp_path / "found", "--set", "width=80") == 0
    assert "Of 2 models large has the largest head" in capsys.readouterr().out
    found = tmp_path / "found"
    rows = (found / "weights.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in rows] == ["model", "small", "large"]
    assert json.loads((found / "findings.json").read_text())["tables"]["weights"][1]["model"] == "large"
    assert "![head](head.png)" in (found / "findings.md").read_text()
    assert Image.open(found / "head.png").size == (80, 32)
    assert command(*words, "--set", "widht=80") == 2
    assert "did you mean 'width'" in capsys.readouterr().err
    assert command("analyze", "weights", tmp_path) == 2
    assert "this is not a model" in capsys.readouterr().err


def test_every_example_is_in_a_page_and_in_this_test() -> None:
    examples = {path.stem for path in (DOCS / "examples").glob("*.py")} - {"onnx_predict"}  # of no plug-in
    additions = ADDITIONS | {"analysis": ANALYSIS}
    assert examples == {example for addition in additions.values() for example in addition.files}
    for name, addition in additions.items():
        page = (DOCS / "extending" / f"{name}.md").read_text(encoding="utf-8")
        for example in addition.files:
            assert f"../examples/{example}.py" in page
