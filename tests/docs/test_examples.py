"""The examples of "Extending": each file is dropped into a folder of plug-ins, named in a recipe, and run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from personalize import personalizers
from tadp_da.captions.strategies import strategies
from tadp_da.domains import domains
from tadp_da.mini.world import CLASSES
from tadp_da.registry import Registry
from tests.tadp_da.captions.conftest import write_blip2
from tests.toy import PRESET, SIZE, draw_pair

DOCS = Path(__file__).parent.parent.parent / "docs"
#: Example, the registry whose folder it is dropped into, and the row of a recipe that names it.
ROWS: dict[str, tuple[Registry[Any], str]] = {
    "strategy": (strategies, "{strategy: season}"),
    "personalizer": (
        personalizers,
        "{strategy: textual-inversion, personalize: {name: known-word, settings: {word: night}}}",
    ),
    "domain": (domains, "{source: harbour}"),
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw_pair(tmp_path_factory.mktemp("toys"))
    write_blip2(root / "blip2")
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
def dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts an example where its registry looks, for the time of a test."""
    changed: list[tuple[Registry[Any], set[str], str]] = []

    def drop(example: str) -> None:
        registry = ROWS[example][0]
        known = set(registry)
        module = f"example_{example}"
        shutil.copy(DOCS / "examples" / f"{example}.py", tmp_path / f"{module}.py")
        package = sys.modules[registry.package]
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        monkeypatch.setattr(registry, "_scanned", False)
        changed.append((registry, known, f"{registry.package}.{module}"))
        assert len(registry) == len(known) + 1

    yield drop
    for registry, known, module in changed:
        for name in set(registry) - known:
            del registry._entries[name]
        del sys.modules[module]


@pytest.mark.parametrize("example", sorted(ROWS))
def test_an_example_is_one_file_that_a_recipe_can_name(
    example: str,
    command: Callable[..., int],
    dropped: Callable[[str], None],
    toys: Path,
    tiny_pipeline: Path,
    tmp_path: Path,
) -> None:
    dropped(example)
    table = tmp_path / "mine.yaml"
    classes = f"classes: [{', '.join(CLASSES)}]"
    day = f"{{name: day, images: {toys}/day/images, masks: {toys}/day/masks, {classes}}}"
    tests = f", test_images: {toys}/test/images, test_masks: {toys}/test/masks, {classes}"
    night = (
        f"{{name: night, images: {toys}/night/images, style: night{'' if example == 'domain' else tests}}}"
    )
    base = PRESET[: PRESET.index("rows:")]
    base += f"  model: {tiny_pipeline}\n  captioner: {toys}/blip2\n  source: {day}\n  target: {night}\n"
    table.write_text(f"claim: An example.\n{base}rows:\n  example: {ROWS[example][1]}\n", encoding="utf-8")
    out = tmp_path / "out"
    run = ("benchmark", "run", table, "--data", toys, "--seeds", "0", "--out", out, "--device", "cpu")
    assert command(*run) == 0
    (model,) = out.glob("model-*/model.json")
    names = ("water", "quay", "boat", "crane") if example == "domain" else CLASSES
    assert json.loads(model.read_text())["labels"]["classes"] == list(names)
    (note,) = out.glob("tables/mine/**/example-0.json")
    assert json.loads(note.read_text())["recipe"]


def test_every_example_is_in_a_page_and_in_this_test() -> None:
    examples = {path.stem for path in (DOCS / "examples").glob("*.py")}
    assert examples == set(ROWS)
    for example in examples:
        page = (DOCS / "extending" / f"{example}.md").read_text(encoding="utf-8")
        assert f"../examples/{example}.py" in page
