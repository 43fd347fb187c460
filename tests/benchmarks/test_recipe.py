"""Laws of recipes: refused at birth with the nearest match, overridden by path, merged row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.custom import method_rows, preset_for
from benchmarks.experiment import Experiment
from benchmarks.recipe import Recipe, read_benchmark, shipped
from tadp_da.captions.rewrite import Rewrite
from tadp_da.custom_dataset import CustomDataset
from tadp_da.datasets import resolve
from tadp_da.domains import domains
from tadp_da.errors import DataError, UsageError
from tadp_da.plain_yaml import parse_yaml
from tadp_da.run import Run
from tests.toy import NAMES, draw_pair

DOMAINS = {"source": "mini-day", "target": "mini-night"}
PAIR = {
    "source": "mini-day",
    "target": "mini-night",
    "backbone": "stable-diffusion",
    "head": "semantic-fpn",
}


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_benchmark_is_valid_and_has_its_reference_rows(name: str) -> None:
    table = read_benchmark(name)
    assert "null" in table.rows
    assert table.claim
    for recipe in table.rows.values():
        source, target = (domains[str(side)] for side in (recipe.source, recipe.target or recipe.source))
        assert recipe.target is None or "unlabeled" in target.splits
        if recipe.train_on == "target":
            assert "train" in target.splits
        assert source.labels
        rewrite = Rewrite(
            strategy=recipe.strategy,
            side=recipe.sides,
            source_description=source.description,
            target_description=target.description,
            word=recipe.personalize.settings.get("word"),
            classes=source.labels.classes,
        )
        assert bool(rewrite.target("a car")) == (recipe.strategy != "no-text")


@pytest.mark.parametrize("name", shipped("presets"))
def test_a_method_is_tried_beside_the_baselines_that_see_no_target_image(name: str) -> None:
    rows = read_benchmark(name, base=DOMAINS, kind="presets").rows
    assert method_rows(name, "best") == ("null", "strong", "best")
    assert method_rows(name, "strong") == ("null", "strong")
    default = method_rows(name)
    assert default[:2] == ("null", "strong")
    assert {*default, "dreambooth", "dreambooth-strong"} <= set(rows)
    assert not any(rows[row].uses_target_labels for row in rows)
    with pytest.raises(UsageError, match="did you mean 'best'") as refused:
        method_rows(name, "bets")
    assert refused.value.where == "--method"


def test_all_rows_of_a_preset_that_names_no_method_are_run(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rows: {'null': {strategy: 'null'}, mine: {strategy: simple}}")
    assert method_rows(str(tmp_path / "mine.yaml")) == ("null", "mine")


def test_tables_to_tune_on_say_so_and_are_about_other_targets() -> None:
    tuning = [name for name in shipped() if name.startswith("mini-dev-")]
    assert len(tuning) == 4
    for name in shipped():
        table = read_benchmark(name)
        targets = {str(recipe.target) for recipe in table.rows.values()}
        assert ("for tuning only, never a result" in " ".join(table.claim.split())) == (name in tuning)
        assert all(target.startswith("mini-dev-") == (name in tuning) for target in targets)


@pytest.mark.parametrize("name", shipped("presets"))
def test_presets_hold_every_row_of_the_own_table(name: str) -> None:
    table = read_benchmark(name, base=DOMAINS, kind="presets")
    assert {"no-text", "null", "simple", "textual-inversion", "dreambooth"} <= set(table.rows)


def test_ablations_differ_from_dreambooth_only_in_what_they_use() -> None:
    rows = read_benchmark("mini-night").rows
    whole, weights, word = (rows[f"dreambooth{end}"] for end in ("", "-weights-only", "-word-only"))
    assert whole.personalize == weights.personalize == word.personalize
    assert (weights.strategy, weights.concept) == ("null", "weights")
    assert (word.strategy, word.concept) == ("dreambooth", "word")
    assert rows["textual-inversion"].personalize.name == "textual-inversion"
    assert rows["null"].personalize.name == "none"


@pytest.mark.parametrize(
    ("fields", "where", "advice"),
    [
        ({"sorce": "mini-day"}, "recipe.sorce", "did you mean 'source'"),
        ({"adapt": {"step": 5}}, "recipe.adapt.step", "did you mean 'steps'"),
        ({"adapt": {"steps": 0}}, "recipe.adapt.steps", "greater than or equal to 1"),
        ({"adapt": {"backbone_lr": float("nan")}}, "recipe.adapt.backbone_lr", "finite"),
        ({"strategy": "simpel"}, "", "did you mean 'simple'"),
        ({"strategy": "dreambooth"}, "strategy", "personalize with textual-inversion or dreambooth"),
        ({"personalize": {"name": "dreamboth"}}, "", "did you mean 'dreambooth'"),
        ({"personalize": {"settings": {}}}, "recipe.personalize.name", "a setting is missing"),
        (
            {"personalize": {"name": "dreambooth", "settings": {"stepps": 3}}},
            "personalize.settings.stepps",
            "did you mean 'steps'",
        ),
        ({"objectives": ["self-training-boxes"]}, "objectives.0", "choose from: "),
        ({"adapt": {"batch": 2, "augment": {"scale": [0.5, 2]}}}, "recipe.adapt", "images scaled by"),
    ],
)
def test_nonsense_is_refused_with_its_path_and_advice(
    fields: dict[str, object], where: str, advice: str
) -> None:
    with pytest.raises(UsageError) as refused:
        Recipe.from_mapping(PAIR | fields)
    assert advice in str(refused.value)
    assert where in str(refused.value)
    assert "Value error" not in str(refused.value)  # pydantic's own prefix


def test_a_concept_without_its_word_cannot_be_spoken() -> None:
    fields = {"strategy": "dreambooth", "personalize": "dreambooth", "concept": "weights"}
    with pytest.raises(UsageError, match="concept: all or word"):
        Recipe.from_mapping(PAIR | fields)


@pytest.mark.parametrize(
    "method",
    ["none", {"name": "textual-inversion", "settings": {"word": "<n>", "like": "night"}}],
)
def test_weights_that_nobody_learns_cannot_be_used(method: object) -> None:
    with pytest.raises(UsageError, match="personalize with dreambooth"):
        Recipe.from_mapping(PAIR | {"personalize": method, "concept": "weights"})


def test_overrides_reach_every_row() -> None:
    table = read_benchmark("mini-night", ("adapt.steps=7", "inference.long=64"))
    assert {recipe.adapt.steps for recipe in table.rows.values()} == {7}
    assert table.rows["null"].inference.long == 64
    with pytest.raises(UsageError, match="did you mean 'steps'"):
        read_benchmark("mini-night", ("adapt.stepz=7",))
    with pytest.raises(UsageError, match=r"--set adapt\.steps=100"):
        read_benchmark("mini-night", ("adapt.steps",))


def test_unknown_names_and_rows_say_what_there_is() -> None:
    with pytest.raises(UsageError, match="did you mean 'mini-night'"):
        read_benchmark("mini-nigt")
    with pytest.raises(UsageError, match="did you mean 'null'"):
        read_benchmark("mini-night").only(("nul",))
    with pytest.raises(UsageError, match="check the path"):
        read_benchmark("nowhere.yaml")


def test_a_users_file_is_read_like_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: {source: mini-day, target: mini-fog, backbone: stable-diffusion, head: semantic-fpn,\n"
        "       personalize: {name: dreambooth, settings: {steps: 3}}}\n"
        "rows: {'null': {personalize: none}, mine: {strategy: 'a foggy photo of {caption}'}}\n"
    )
    table = read_benchmark(str(path))
    assert table.name == "mine"
    assert table.rows["null"].personalize.name == "none"
    assert table.rows["mine"].personalize.settings["steps"] == 3


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("a: 1\na: 2\n", "given twice"),
        ("a: !!python/object:os.system {}\n", "correct the file"),
        ("[1, 2]", "expected a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_yaml_that_is_no_plain_mapping_is_refused(text: str, advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        parse_yaml(text, where="x.yaml")


def test_a_recipe_survives_its_own_record() -> None:
    recipe = read_benchmark("mini-night").rows["dreambooth"]
    plain = recipe.as_json()
    assert plain["personalize"]["name"] == "dreambooth"
    assert Recipe.from_mapping(plain) == recipe


def test_a_limit_takes_the_first_images_of_every_split(tmp_path: Path) -> None:
    root = draw_pair(tmp_path)
    day = CustomDataset(
        name="day", images=root / "day/images", masks=root / "day/masks", classes=tuple(NAMES.split(","))
    )
    whole, few = resolve(day, root), resolve(day, root, 2)
    assert few.images("train").paths == whole.images("train").paths[:2]
    captions = {few.images("train").key(i): "a street" for i in range(2)}
    assert len(few.domain.labeled(few.root, "train", captions)) == 2
    assert few.digest("train") != whole.digest("train")


def test_a_concept_is_learned_from_images_that_the_seed_draws(tmp_path: Path) -> None:
    night = resolve(CustomDataset(name="night", images=draw_pair(tmp_path, 12) / "night/images"), tmp_path)
    names = [path.name for path in night.images("unlabeled").paths]

    def chosen(count: int | None, seed: int = 0) -> list[str]:
        return [path.name for path in night.subsample(count, seed).images("unlabeled").paths]

    assert chosen(None) == chosen(12) == names
    assert chosen(5) == chosen(5)
    assert set(chosen(5)) < set(chosen(8))
    assert chosen(5) == [name for name in names if name in chosen(5)], "in the order of the files"
    draws = {tuple(chosen(5, seed)) for seed in range(4)}
    assert len(draws) == 4
    assert tuple(names[:5]) not in draws
    with pytest.raises(DataError, match=r"13 images of .*there are 12(.|\n)*--set target_images=12"):
        chosen(13)


def test_captions_are_read_from_the_file_that_is_given_for_a_split(tmp_path: Path) -> None:
    root, file = draw_pair(tmp_path), tmp_path / "night.json"
    file.write_text('{"0": {"captions": ["a road "]}, "1": "a painting of a car", "2": ["a"], "3": ["b"]}')
    night = {"name": "night", "images": root / "night/images"}
    day = {
        "name": "day",
        "images": root / "day/images",
        "masks": root / "day/masks",
        "classes": NAMES.split(","),
    }
    fields = PAIR | {
        "source": day,
        "target": night,
        "caption_files": {"night/unlabeled": file},
        "clean_target": True,
    }
    run = Run(folder=tmp_path / "run", quiet=True)
    experiment = Experiment(Recipe.from_mapping(fields), run, tmp_path)
    captions = experiment.captions(experiment.target.images("unlabeled"), "unlabeled", run)
    assert (captions["0.png"], captions["1.png"]) == ("a road", "a car")
    known = experiment.facts()["caption_files"]
    file.write_text('{"0": "x", "1": "x", "2": "x", "3": "x"}')
    again = Experiment(Recipe.from_mapping(fields), run, tmp_path)
    assert again.facts()["caption_files"] != known, "another file makes other artifacts"
    wrong = fields | {"caption_files": {"night/test": file}}
    with pytest.raises(UsageError, match=r"did you mean 'night/unlabeled'|choose from"):
        _ = Experiment(Recipe.from_mapping(wrong), run, tmp_path).captions


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("rows: {null: {}}", "found {} under None"),
        ("rows: {a: 3}", "found 3 under 'a'"),
        ("base: [1]\nrows: {a: {}}", "found [1] under 'base'"),
        ("rows: {a: {limit: 2001-99-99}}", "not valid YAML: month must be in 1..12"),
        ("rows: " + "[" * 5000, "not valid YAML: maximum recursion depth"),
        ("rows:\n " + "- " * 5000, "not valid YAML: maximum recursion depth"),
        ("x: &a [*a]\nrows: {}", "aliases (*name) expand to more than 100000 values"),
        (
            "x0: &x0 [1]\n" + "".join(f"x{i}: &x{i} [{f'*x{i - 1}, ' * 9}]\n" for i in range(1, 12)),
            "aliases (*name) expand to more",
        ),
    ],
)
def test_files_that_would_surprise_are_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_benchmark(str(path))
    assert what in refused.value.what
    assert refused.value.fix


def test_a_file_in_another_encoding_is_answered_with_the_command_that_converts_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("claim: für alle".encode("latin-1"))
    with pytest.raises(UsageError, match=r"not UTF-8 \(byte 8\)") as refused:
        read_benchmark(str(path))
    assert "iconv" in refused.value.fix


@pytest.mark.parametrize("text", ["limit=[1", "limit=!!python/name:os.system", "limit=2001-99-99"])
def test_overrides_are_plain_values_too(text: str) -> None:
    with pytest.raises(UsageError, match="not valid YAML") as refused:
        read_benchmark("mini-night", (text,))
    assert "--set limit=" in str(refused.value.where)


def test_an_override_of_a_choice_reaches_the_rows_whose_choice_has_it(tmp_path: Path) -> None:
    sets = tuple(f"personalize.settings.{each}" for each in ("steps=3", "warmup=0", "vectors=2"))
    rows = read_benchmark("mini-night", (*sets, "personalize.settings.previews.images=0")).rows
    assert rows["null"].personalize.name == "none"
    for name in ("textual-inversion", "dreambooth", "dreambooth-weights-only"):
        chosen = rows[name].personalize.settings
        assert (chosen["steps"], chosen["previews"]["images"]) == (3, 0)
    assert rows["textual-inversion"].personalize.settings["vectors"] == 2
    assert "vectors" not in rows["dreambooth"].personalize.settings
    with pytest.raises(UsageError, match="no row has this setting, did you mean 'steps'") as refused:
        read_benchmark("mini-night", ("personalize.settings.stepz=1",))
    assert "prior_images" in refused.value.fix
    assert "vectors" in refused.value.fix
    with pytest.raises(UsageError, match="did you mean 'images'"):
        read_benchmark("mini-night", ("personalize.settings.previews.image=1",))
    file = tmp_path / "mine.yaml"
    base = "{source: mini-day, target: mini-fog, backbone: stable-diffusion, head: semantic-fpn}"
    file.write_text(f"base: {base}\nrows: {{'null': {{}}}}\n")
    with pytest.raises(UsageError, match=r"--set personalize\.name=NAME"):
        read_benchmark(str(file), ("personalize.settings.steps=1",))
    (row,) = read_benchmark(str(file), ("head.settings.width=16",)).rows.values()
    assert row.head.settings["width"] == 16


def test_presets_say_which_models_they_are_for() -> None:
    assert [preset_for("mini", task) for task in (None, "segmentation", "detection", "depth")] == [
        "mini",
        "mini",
        "mini-boxes",
        "mini-depth",
    ]
    assert preset_for("sd-1.5") == "stable-diffusion"
    assert preset_for("some/repository", "detection") == "stable-diffusion-boxes"
    with pytest.raises(UsageError, match="--preset"):
        preset_for("mini", "nothing-known")
