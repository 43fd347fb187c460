"""Every setting is in the key of every artifact that depends on it, or says beside itself that none does.

Recipes go through the real stages without networks (:mod:`tests.benchmarks.pretended`), which fails as soon as two
artifacts share a key and were not handed the same.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import shutil
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapt.fine_tuning import FineTuning
from benchmarks.evaluate import EvaluationSettings
from benchmarks.recipe import _CHOICES, Recipe
from tadp_da.captions.captioner import CaptionerSettings
from tadp_da.custom_dataset import CustomDataset
from tadp_da.errors import TadpError
from tadp_da.inference import InferenceSettings
from tadp_da.run import Run
from tadp_da.settings import Choice, Effect, effects, keyed, settings_class
from tests.benchmarks.pretended import Pretended
from tests.tadp_da.domains import trees

Fields = dict[str, Any]
IDLE = {Effect.SPEED, Effect.WORDING}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of images, masks, boxes, legends, captions and models, each with another of the same form."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("day", "day2", "night", "night2", "test", "test2"):
        for name in {"d": "abc", "n": "def", "t": "gh"}[folder[0]]:
            with contextlib.chdir(root):  # the same images everywhere: which are held out depends on them
                trees.picture(Path(folder) / f"{name}.png")
            for more, values in (("", (0, 1, 0, 1)), ("-2", (1, 0, 0, 1))):
                trees.mask(root / f"{folder}-masks{more}/{name}.png", values)
            for more, width in (("", 20), ("-2", 30)):
                trees.depth(root / f"{folder}-depth{more}/{name}.npy", np.full((30, 40), 0.1 * width))
                trees.xml(root / f"{folder}-boxes{more}/{name}.xml", [("a", 1, 1, width, 20)])
    (root / "legend.yaml").write_text("0: a\n1: b\n")
    (root / "legend-2.yaml").write_text("0: b\n1: a\n")
    for name in ("model", "captioner"):
        (root / name).mkdir()
        (root / name / "weights").write_text(f"another {name}")
    (root / "captions.json").write_text('{"d.png": "one", "e.png": "two", "f.png": "three"}')
    return root


def bases(root: Path) -> dict[str, Fields]:
    """Recipes in which every setting has an effect."""
    test = {"test_images": root / "test", "test_masks": root / "test-masks"}
    source = {
        "name": "s",
        "images": root / "day",
        "masks": root / "day-masks",
        "classes": ("a", "b"),
        "style": "sunny",
    }
    target = {"name": "t", "images": root / "night", "classes": ("a", "b"), "style": "dark", **test}
    crops = {"crop": "random", "views": 2, "resolution": 32, "batch": 2}
    adapt = {"augment": {"crop": (64, 64), "scale": (0.5, 2.0)}, "steps": 9}
    common = {"backbone": "stable-diffusion", "head": "semantic-fpn", "adapt": adapt, "target_images": 2}
    common |= {"source": source, "target": target, "inference": {"window": (64, 64), "stride": (48, 48)}}
    dreambooth = {"word": "sks", "prompt": "a {word} photo of {caption}", "prior_images": 2, **crops}
    inversion = {
        "word": "<x>",
        "like": "photo",
        "templates": ("a {word} photo of {caption}",),
        **crops | {"views": 1},
    }
    boxes = {"images": root / "day", "boxes": root / "day-boxes", "classes": ("a", "b")}
    tested = {"test_images": root / "test", "test_boxes": root / "test-boxes"}
    deep = {"test_images": root / "test", "test_depth": root / "test-depth", "style": "dark"}
    labelled = target | {"masks": root / "night-masks"}
    scored = {"source": source | test, "target": labelled, "train_on": "target", "strategy": "simple"}
    return {
        "weights": common
        | {
            "personalize": {"name": "dreambooth", "settings": dreambooth},
            "strategy": "{caption} {style} {word}",
        },
        "word": common
        | {
            "personalize": {"name": "textual-inversion", "settings": inversion},
            "strategy": "textual-inversion",
        },
        "boxes": common
        | {
            "head": "faster-rcnn",
            "strategy": "simple",
            "source": {"name": "s", **boxes, **tested},
            "target": None,
        },
        "depth": common
        | {
            "head": "depth-fpn",
            "strategy": "simple",
            "train_on": "target",
            "target_images": None,
            "source": {"name": "s", "images": root / "day", **deep},
            "target": {"name": "t", "images": root / "night", "depth": root / "night-depth", **deep},
        },
        "labelled": common | scored | {"target_images": None},
    }


def others(root: Path) -> dict[str, Any]:
    """Other values of settings whose type does not say one."""
    sides = {"images": "{}2", "masks": "{}-masks-2", "boxes": "{}-boxes-2", "depth": "{}-depth-2"}
    found: dict[str, Any] = {"legend": root / "legend-2.yaml", "classes": ("b", "a"), "ignore": 254}
    found |= {"depth_unit": 0.5, "max_depth": 8.0}
    known = {f"{side}.{name}": value for side in ("source", "target") for name, value in found.items()}
    for side, own in (("source", "day"), ("target", "night")):
        known |= {f"{side}.{name}": root / form.format(own) for name, form in sides.items()}
        known |= {f"{side}.test_{name}": root / form.format("test") for name, form in sides.items()}
    few = {"name": "few", "images": root / "night2", "masks": root / "night2-masks", "classes": ("a", "b")}
    known["target_labelled"] = {"images": few}
    known |= {"model": str(root / "model"), "captioner": str(root / "captioner"), "train_on": "source"}
    known |= {"head.settings.samples": 4, "personalize.settings.crop": "center"}
    known |= {"held_out": 0.34, "caption_source": "shuffled", "adapt.workers": 2}
    known |= {"caption_files": {"t/unlabeled": root / "captions.json"}, "target_images": 1, "limit": 2}
    known |= {
        "strategy": "{caption} in {style} {word} {medium}",
        "concept": "word",
        "personalize.settings.word": "xyz",
    }
    known |= {"inference.short": 64, "inference.long": 96, "inference.squash": (64, 64)}
    known |= {"inference.window": (96, 96), "inference.scales": (1.0, 1.5)}
    known |= {"inference.stride": (32, 32), "adapt.target_batch": 5, "adapt.augment.crop": (96, 96)}
    known |= {"evaluate.crop": (0, 8, 0, 8), "evaluate.flip": True, "evaluate.scales": (1.0, 1.5)}
    known |= {"adapt.augment.scale": (0.5, 1.0), "personalize.settings.resolution": 64}
    known |= {"personalize.settings.templates": ("{caption} {word}",), "personalize.settings.snr_gamma": 5.0}
    known |= {
        "personalize.settings.prompt": "{caption} {word}",
        "personalize.settings.previews.prompts": ("a {word}",),
    }
    return known | {"captions.dtype": "bf16"}


def leaves(
    cls: Any, record: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, Any, set[Effect]]]:
    """Every setting by dotted name, with its type, its value, and what it and those around it declare."""
    marks, hints = effects(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, value, hint = f"{path}{field.name}", record[field.name], hints[field.name]
        inner = [c for c in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(c)]
        below = f"{name}."
        if inner == [Choice] and isinstance(value, Mapping):
            inner, value = [settings_class(_CHOICES[name][value["name"]])], value["settings"]
            below += "settings."
        if len(inner) != 1 or not isinstance(value, Mapping):
            yield name, hint, value, set(marks.get(field.name, ()))
            continue
        for leaf, kind, each, found in leaves(inner[0], value, below):
            yield leaf, kind, each, found | set(marks.get(field.name, ()))


def another(hint: Any, value: Any) -> Any:
    """Another value of a type."""
    if typing.get_origin(hint) is Literal:
        return next(each for each in typing.get_args(hint) if each != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 8
    if isinstance(value, float):
        return value / 2 or 0.25
    if isinstance(value, str):
        return f"{value} another".strip()
    if isinstance(value, list) and value:
        return [another(None, value[0]), *value[1:]]
    raise NotImplementedError


def put(fields: Fields, path: str, value: Any) -> Fields:
    """Fields with one of them changed."""
    changed = copy.deepcopy(fields)
    *parents, last = path.split(".")
    inner = changed
    for parent in parents:
        if isinstance(inner.get(parent), str):
            inner[parent] = {"name": inner[parent]}
        inner = inner.setdefault(parent, {})
    inner[last] = value
    if path.endswith(".legend"):  # of the same values first
        inner.pop("classes", None)
    return changed


@pytest.fixture(scope="module")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pretended]:
    with pytest.MonkeyPatch.context() as patch:
        yield Pretended(patch, tmp_path_factory.mktemp("runs"))


def changes(root: Path, name: str) -> Iterator[tuple[str, Any, set[Effect]]]:
    """Every setting of a base with another value and its effects; of a data set that is not there, none."""
    fields, known = bases(root)[name], others(root)
    for path, hint, old, found in leaves(Recipe, Recipe.from_mapping(fields).as_json()):
        side, _, inner = path.partition(".")
        if side in ("source", "target") and (fields[side] is None or (found and inner not in fields[side])):
            continue
        if side == "objectives":
            yield path, [{"name": "supervised", "settings": {"weight": 0.5}}], found
            continue
        try:
            value = known[path] if path in known else another(hint, old)
        except NotImplementedError:
            pytest.fail(f"name another value of {path} in others(), or declare an Effect beside the setting")
        yield path, value, found


TRIED = {
    "word": ("",),
    "weights": ("personalize", "concept", "strategy", "target_labelled"),
    "boxes": ("source", "head"),
    "depth": ("source", "target", "head"),
    "labelled": ("source", "target", "train_on", "sides", "clean", "limit"),
}
"""By base, beginnings of the settings that are tried on it."""


def test_every_setting_is_in_the_key_of_what_depends_on_it(root: Path, pretended: Pretended) -> None:
    idle, used = dict[str, str](), set[str]()
    for name, fields in bases(root).items():
        keys, notes = pretended(Recipe.from_mapping(fields))
        for path, value, found in changes(root, name):
            if not path.startswith(TRIED[name]):
                continue
            try:
                other_keys, other_notes = pretended(Recipe.from_mapping(put(fields, path, value)))
            except TadpError as error:  # it does not go with this base
                idle[path] = error.what
                continue
            moved = {kind for kind in keys if other_notes.get(kind) != notes[kind]}
            assert {kind for kind in keys if other_keys.get(kind) != keys[kind]} >= moved, path
            if found & IDLE:
                assert other_keys == keys, f"{path} says that no artifact depends on it"
            elif moved:
                used.add(path)
            else:
                idle[path] = "changes nothing"
    idle = {path: why for path, why in idle.items() if path not in used}
    assert not idle, (
        "declare an Effect beside a setting that nothing depends on, or give it another value in others()"
    )


def test_what_a_run_is_given_is_in_the_keys_or_declared(root: Path, pretended: Pretended) -> None:
    recipe = Recipe.from_mapping(bases(root)["word"])
    values = {"precision": "bf16", "device": "meta", "tracker": "tensorboard"}
    keys, _ = pretended(recipe)
    for field in dataclasses.fields(Run):
        value = values.get(field.name, field.default)
        value = another(type(value), value) if field.name not in values and field.name != "folder" else value
        if field.name != "folder":
            declared = bool(effects(Run).get(field.name))
            assert (pretended(recipe, **{field.name: value})[0] == keys) == declared, field.name


def test_the_same_content_elsewhere_has_the_same_keys(
    root: Path, pretended: Pretended, tmp_path: Path
) -> None:
    shutil.copytree(root, tmp_path / "moved")
    for name, fields in bases(root).items():
        keys, _ = pretended(Recipe.from_mapping(fields))
        assert pretended(Recipe.from_mapping(bases(tmp_path / "moved")[name]))[0] == keys


@examples(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_two_recipes_share_an_artifact_wrongly(
    root: Path, pretended: Pretended, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([*TRIED]))
    fields, possible = bases(root)[name], list(changes(root, name))
    for path, value, _ in data.draw(st.lists(st.sampled_from(possible), min_size=1, max_size=6)):
        try:
            fields = put(fields, path, value)
            pretended(Recipe.from_mapping(fields))  # fails where a key has been seen with other contents
        except TadpError:
            return


def test_colours_of_classes_and_how_a_source_is_prompted_are_inputs(
    root: Path, pretended: Pretended, tmp_path: Path
) -> None:
    """Two that settings one by one do not show: a palette comes from a legend, and a model trained on the target also
    writes the source's prompts."""
    found = []
    for name, colour in (("one", (9, 9, 9)), ("two", (7, 7, 7))):
        for image in "abc":
            trees.picture(tmp_path / f"{name}/{image}.png").parent.mkdir(exist_ok=True)
            paint(tmp_path / f"{name}/{image}.png", colour)
        (tmp_path / f"{name}.yaml").write_text("0 0 0: a\n" + " ".join(map(str, colour)) + ": b\n")
        own = {
            "name": "s",
            "images": root / "day",
            "masks": tmp_path / name,
            "legend": tmp_path / f"{name}.yaml",
        }
        found.append(pretended(Recipe.from_mapping(bases(root)["word"] | {"source": own}))[0])
    assert found[0]["model"] != found[1]["model"]
    fields = bases(root)["labelled"] | {"strategy": "null"}
    for style in ("sunny", "bright"):
        pretended(Recipe.from_mapping(put(fields, "source.style", style)))


def paint(file: Path, colour: tuple[int, int, int]) -> None:
    from PIL import Image

    values = np.zeros((30, 40, 3), np.uint8)
    values[:9] = colour
    Image.fromarray(values).save(file)


def test_a_setting_that_is_added_is_in_the_key_unless_it_declares_an_effect(root: Path) -> None:
    plain = [Recipe, FineTuning, EvaluationSettings, InferenceSettings, CaptionerSettings]
    plug_ins = [settings_class(registry[name]) for registry in _CHOICES.values() for name in registry]
    for cls in {*plain, *filter(None, plug_ins)}:
        added = [
            ("added", int, 1),
            ("idle", Annotated[int, Effect.SPEED], 1),
            ("later", Annotated[int, Effect.ADDED], 0),
        ]
        wider = dataclasses.make_dataclass("Wider", added, bases=(cls,), frozen=True, kw_only=True)
        record = {field.name: 0 for field in dataclasses.fields(wider)}
        assert keyed(wider, record).keys() >= {"added"}, cls
        assert {"idle", "later"}.isdisjoint(keyed(wider, record)), cls
        assert keyed(wider, record | {"later": 1})["later"] == 1, cls


def test_every_field_of_a_data_set_is_tried() -> None:
    tried = {path.partition(".")[2] for path in others(Path()) if path.startswith("source.")}
    tried |= {"name", "medium", "style"} | effects(CustomDataset).keys()
    assert {field.name for field in dataclasses.fields(CustomDataset)} <= tried
