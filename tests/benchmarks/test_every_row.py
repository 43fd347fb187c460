"""Every row of every shipped table runs from end to end, so that no row has a typo.

Real code on the embedded models and small trees in the true form of the data sets: a few pictures, one step of each
training, everything eight times smaller. What a recipe says of words, methods, losses, windows and scores stays. All
tables share a folder of artifacts, as they do when a person runs them. One table per data set is among the fast tests,
and of it the first row and each whose stages are others than those of rows before it, whatever their strategy: of every
strategy in every table, the prompts are written. The rest is marked slow.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluate import EvaluationSettings
from benchmarks.experiment import Experiment
from benchmarks.pipeline import reproduce
from benchmarks.recipe import Recipe, read_benchmark, shipped
from benchmarks.suite import sees_target
from tadp_da.base_model import BaseModel
from tadp_da.captions.strategies import find, strategies
from tadp_da.domains import domains, mini
from tadp_da.heads import heads
from tadp_da.run import Run
from tadp_da.settings import Choice
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2
from tests.tadp_da.domains import trees

SHRINK, COUNT = 8, 2
FAST = {"nighttime-driving-ours", "dark-zurich-repo", "watercolor2k-paper", "comic2k-ours"}
FAST |= {"camvid", "mini-night", "mini-comic-detection"}
FAST |= {"mini-depth", "nyu-v2-ours", "ade20k-ours", "voc-segmentation-repo"}


def rows() -> Iterator[Any]:
    """Every row of every table, those marked slow that run nothing new."""
    known: set[Any] = set()
    for name in shipped():
        for place, (row, recipe) in enumerate(read_benchmark(name).rows.items()):
            head = recipe.head.name
            kinds: set[Any] = {(head, recipe.source_style.name), (head, recipe.target_labelled is not None)}
            kinds |= {(head, tuple(objective.name for objective in recipe.objectives))}
            kinds |= {
                (head, recipe.personalize.name, recipe.backbone.name, recipe.pretrained, recipe.concept)
            }
            strategy = find(recipe.strategy)
            kinds |= {("adapter", recipe.text_adapter), ("labels", strategy.reads_labels)}
            kinds |= {("embeddings", bool(strategy.class_templates))}
            fast = name in FAST and (place == 0 or not kinds <= known)
            known |= kinds if fast else set()
            yield pytest.param(name, row, id=f"{name}-{row}", marks=() if fast else pytest.mark.slow)


THINGS = (("person", 1, 1, 30, 24), ("car", 5, 5, 20, 20), ("dog", 12, 3, 39, 29))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that holds every data set that a recipe names."""
    root = tmp_path_factory.mktemp("data")
    trees.dark_zurich(trees.cityscapes(trees.nighttime_driving(root), values=(7, 26, 11, 0)))
    trees.picture(root / "dark_zurich/rgb_anon/train/night/GOPR0351/GOPR0351_frame_000160_rgb_anon.png")
    lists = {"VOCdevkit/VOC2007": {"trainval": ["000001"], "test": ["000002", "000003"]}}
    lists["VOCdevkit/VOC2012"] = {"trainval": ["2008_000001"]}
    for art in ("watercolor", "comic", "clipart"):
        lists[f"cross-domain-detection/datasets/{art}"] = {"train": ["11", "12"], "test": ["21", "22"]}
    for folder, names in lists.items():
        trees.voc(root / folder, names, things=THINGS)
    trees.camvid(root)
    trees.nyu(root, (80, 60))
    trees.voc_masks(trees.ade20k(root))
    return root


SMALL: dict[str, str] = {"stable-diffusion": "mini"}
"""A small model of every backbone."""
NARROW = {"width": 16, "hidden": 32, "rpn_candidates": (50, 20), "rpn_proposals": (50, 20), "roi_batch": 32}
"""What makes a head small, where it has such a setting."""


@pytest.fixture(scope="module", autouse=True)
def small_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    SMALL["dinov2"] = str(save_tiny_dinov2(tmp_path_factory.mktemp("models") / "dinov2"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(folder=tmp_path_factory.mktemp("runs"), quiet=True, device="cpu")


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Iterator[None]:
    """Each row's stages take copies of a backbone that was read from disk once."""
    known: dict[str, Any] = {}

    load = BaseModel.load

    def loaded(base: BaseModel) -> Any:
        if str(base) not in known:
            known[str(base)] = load(base)
            assert known[str(base)].fingerprint  # read from the files once, too
        return copy.deepcopy(known[str(base)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseModel, "load", loaded)
        yield


@pytest.fixture(scope="module", autouse=True)
def few_templates() -> Iterator[None]:
    """Class embeddings of two templates instead of eighty: ADE20K has 150 classes. Class names of one letter for VOC,
    whose names together are over the limit of the embedded tokenizer, which knows few words whole."""
    strategy = strategies["class-embeddings"]
    few = dataclasses.replace(strategy, class_templates=strategy.class_templates[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(strategies._entries, "class-embeddings", few)
        voc = domains["voc-segmentation-aug"]
        assert voc.labels is not None
        letters = dataclasses.replace(voc.labels, classes=tuple("abcdefghijklmnopqrstu"))
        patch.setitem(domains._entries, voc.name, dataclasses.replace(voc, labels=letters))
        yield


def shrunk(size: Any) -> Any:
    """A size in pixels, or a pair of them, eight times smaller but no less than what the smallest model sees."""
    if size is None:
        return None
    return tuple(map(shrunk, size)) if isinstance(size, tuple) else max(32, size // SHRINK)


def started(objective: Choice) -> Choice:
    """The same from the first step."""
    begins = {"start": 0} if "start" in objective.settings else {}
    return Choice(name=objective.name, settings={**objective.settings, **begins})


def small(recipe: Recipe) -> Recipe:
    """The same row at a size for tests."""
    adapt, view, learn = recipe.adapt, recipe.inference, dict(recipe.personalize.settings)
    changes = {"steps": 1, "warmup": 0, "batch": 1, "accumulate": 1, "checkpoint_every": 0}
    changes |= {"resolution": 32, "previews": {"images": 0}}
    learn |= {name: value for name, value in changes.items() if name in learn}
    augment = dataclasses.replace(adapt.augment, crop=shrunk(adapt.augment.crop))
    viewed = {k: shrunk(getattr(view, k)) for k in ("short", "long", "squash", "window", "stride")}
    known = {field.name for field in dataclasses.fields(heads[recipe.head.name].Settings)}
    narrow = {name: value for name, value in NARROW.items() if name in known}
    return dataclasses.replace(
        recipe,
        head=Choice(name=recipe.head.name, settings={**recipe.head.settings, **narrow}),
        model=SMALL[recipe.backbone.name],
        captioner="mini",
        captions=dataclasses.replace(recipe.captions, max_new_tokens=4, min_new_tokens=0),
        limit=COUNT,
        personalize=Choice(name=recipe.personalize.name, settings=learn),
        objectives=tuple(started(each) for each in recipe.objectives),
        adapt=dataclasses.replace(
            adapt, steps=1, batch=min(adapt.batch, COUNT), checkpoint_every=0, augment=augment
        ),
        inference=dataclasses.replace(view, **viewed),
        evaluate=EvaluationSettings(save_images=1),
    )


@pytest.mark.parametrize(("name", "row"), list(rows()))
def test_every_row_of_every_table_runs(
    name: str, row: str, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini, "COUNTS", dict.fromkeys(mini.COUNTS, COUNT))
    recipe = small(read_benchmark(name).rows[row])
    report = reproduce(Experiment(recipe, run, data))
    assert set(report.evaluations) == ({"source", "target"} if recipe.target else {"test"})
    found = report.primary
    assert found is not None
    assert found.domain == (recipe.target or recipe.source)
    assert 1 <= found.images <= COUNT
    assert found.main.value is not None
    assert 0 <= found.main.value <= 100


@pytest.mark.parametrize(
    ("record", "sees"),
    [
        ({}, False),
        ({"strategy": "simple", "personalize": {"name": "none", "settings": {}}}, False),
        ({"personalize": {"name": "dreambooth", "settings": {}}}, True),
        ({"train_on": "target"}, True),
        ({"target_labelled": {"images": 5, "share": 0.5}}, True),
        ({"objectives": [{"name": "of-another-installation"}]}, None),
    ],
)
def test_a_recipe_tells_whether_anything_is_learned_from_target_images(
    record: dict[str, Any], sees: bool | None
) -> None:
    assert sees_target(record) is sees
