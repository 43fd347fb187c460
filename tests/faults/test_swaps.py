"""Files that are swapped between the check and the training: nothing is learned from what was not checked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiment import Experiment
from benchmarks.pipeline import reproduce
from benchmarks.recipe import Recipe
from tadp_da.custom_dataset import CustomDataset
from tadp_da.datasets import resolve
from tadp_da.errors import DataError
from tadp_da.run import Run
from tests.benchmarks.pretended import Pretended
from tests.tadp_da.domains import trees


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    for folder in ("day", "night", "test"):
        trees.picture(tmp_path / folder / "a.png")
        trees.mask(tmp_path / f"{folder}-masks/a.png", (0, 1, 0, 1))
    classes = ("a", "b")
    source = {"name": "s", "images": tmp_path / "day", "masks": tmp_path / "day-masks", "classes": classes}
    target = {"name": "t", "images": tmp_path / "night", "classes": classes}
    target |= {"test_images": tmp_path / "test", "test_masks": tmp_path / "test-masks"}
    learned = {"name": "dreambooth", "settings": {"word": "sks", "prompt": "a {word} photo"}}
    fields: dict[str, Any] = {"source": source, "target": target, "personalize": learned}
    return Recipe.from_mapping(fields | {"backbone": "stable-diffusion", "head": "semantic-fpn"})


@pytest.mark.parametrize("folder", ["day", "test"])
def test_an_image_that_is_swapped_after_the_check_is_not_learned_from(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    pretended = Pretended(monkeypatch, tmp_path / "runs")
    assert pretended(recipe)[0]
    experiment = Experiment(recipe, Run(folder=tmp_path / "runs", quiet=True, device="cpu"), tmp_path)
    file = tmp_path / folder / "a.png"
    before = file.stat()
    trees.picture(tmp_path / "other.png").replace(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match="an image has changed since it was checked") as refused:
        reproduce(experiment)
    assert str(refused.value.where) == str(file)


@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_an_image_or_label_that_is_swapped_after_its_digest_was_taken_is_refused(
    tmp_path: Path, kind: str
) -> None:
    image, label = (
        trees.picture(tmp_path / "i/a.png"),
        tmp_path / f"{kind}/a.{'png' if kind == 'masks' else 'xml'}",
    )

    def write(width: int) -> None:
        trees.mask(label, [0] * width + [1]) if kind == "masks" else trees.xml(label, [("a", 1, 1, width, 9)])

    write(9)
    own = CustomDataset.of(tmp_path / "i", tmp_path / kind, classes=("a", "b"))
    source = resolve(own, tmp_path)
    digest = source.digest("train")
    data = source.domain.labeled(source.root, "train", {"a.png": ""}, source.images("train"))
    assert data[0]
    write(12)
    with pytest.raises(DataError, match="the label of an image has changed since it was checked"):
        data[0]
    assert source.digest("train") == digest
    assert resolve(own, tmp_path).digest("train") != digest, "the next command sees what is there"
    write(9)
    trees.picture(tmp_path / "j/b.png").replace(image)
    with pytest.raises(DataError, match="an image has changed since it was checked"):
        data[0]


def test_a_report_that_allowed_overlap_is_not_shown_where_it_is_not_allowed(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tmp_path / "day/a.png", tmp_path / "test/a.png")
    pretended = Pretended(monkeypatch, tmp_path / "runs")
    pretended(recipe, allow_overlap=True)
    make = pretended.make

    def found(kind: str, *given: Any) -> Any:
        return pytest.fail("it was found") if kind == "report" else make(kind, *given)

    monkeypatch.setattr(pretended, "make", found)
    with pytest.raises(DataError, match="also among the images that were learned from"):
        pretended(recipe)
