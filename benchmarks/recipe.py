"""Recipe: one row of a table, validated at birth. A benchmark is a base recipe and the rows that differ from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from reprlib import repr as shorten
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass as settings

from adapt import FineTuning
from adapt.labelled_target import TargetLabelled
from adapt.objectives import objectives
from adapt.sources import sources
from adapt.stage import require_task
from benchmarks.evaluate import EvaluationSettings
from personalize import personalizers
from tadp_da.backbones import backbones
from tadp_da.captions.captioner import CaptionerSettings
from tadp_da.captions.strategies import find
from tadp_da.custom_dataset import CustomDataset
from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.inference import InferenceSettings
from tadp_da.plain_yaml import parse_yaml, read_yaml
from tadp_da.registry import Registry, nearest
from tadp_da.settings import STRICT, Choice, Effect, as_json, build, keyed, override, settings_class
from tadp_da.types import Side

_CHOICES: Mapping[str, Registry[Any]] = {
    "backbone": backbones,
    "personalize": personalizers,
    "head": heads,
    "source_style": sources,
    "objectives": objectives,
}
_NO_NUMBER = (Effect.SPEED, Effect.ILLUSTRATION)
Chosen = Annotated[Choice, BeforeValidator(Choice.parse)]


@settings(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """Everything that decides a number but the seed. A choice is a plug-in's name with its settings.

    Attributes:
        source: labelled domain: a registered name, or your own folders.
        target: domain with images only, and test labels for scoring; None for a single-domain benchmark.
        train_on: ``"target"`` trains on the target's own labelled split: the supervised upper bound, not adaptation.
        model: weights of the backbone: ``"mini"`` (embedded), a folder, a file, an alias or a hub id.
        backbone: which backbone, and how images become features.
        pretrained: False draws the trainable weights anew: the same network without pretraining.
        captioner: image-to-text model that captions both domains: ``"mini"``, a folder, an alias or a hub id.
        captions: how captions are generated.
        caption_source: other captions than the captioner's: ``"dataset"`` for the true ones that come with a data set,
            ``"shuffled"`` for the captioner's, each given to another image of its set (a control), ``"scene"`` for the
            kind of place that an image shows, as the folders of its data set have it.
        caption_files: caption files that are read instead, by domain and split: ``{"comic2k/test": path}``.
        clean_target: remove bullets and style phrases from the target's captions (``captions/clean.py``), as TADP does
            for works of art, so that they read like the source's.
        personalize: how the concept is learned.
        target_labelled: labelled target images that join the source's, for people who can afford to label some: their
            number, drawn by the seed from the target's labelled split, or your own folder.
        target_images: how many of the target's unlabelled images it is learned from, drawn by the seed; None for all.
        held_out: share of the unlabelled target images that nothing is learned from, to choose among rows by;
            none when None.
        concept: which part of the concept is used: all of it, its word only, or its weights only (ablations).
        strategy: caption strategy or template.
        sides: ``"both"`` rewrites source and target captions alike, ``"target"`` only those of the target.
        inference: at what size and through which windows images are seen.
        head: what reads the pyramid.
        source_style: how labelled source images are shown.
        text_adapter: put VPD's text adapter before the backbone (:mod:`tadp_da.text_adapter`).
        objectives: what stage 2 learns from.
        adapt: the training.
        evaluate: how test images are scored.
        limit: only the first so many images of every split, for smoke runs and demos; None for all.
    """

    source: str | CustomDataset
    target: str | CustomDataset | None = None
    train_on: Side = "source"
    model: Annotated[str, Effect.PLACE] = "mini"
    backbone: Chosen
    pretrained: bool = True
    captioner: Annotated[str, Effect.PLACE] = "mini"
    captions: CaptionerSettings = dataclasses.field(default_factory=CaptionerSettings)
    caption_source: Literal["dataset", "shuffled", "scene"] | None = None
    caption_files: Annotated[dict[str, Path], Effect.PLACE] = dataclasses.field(default_factory=dict)
    clean_target: bool = False
    target_labelled: Annotated[TargetLabelled | None, BeforeValidator(TargetLabelled.parse)] = None
    personalize: Chosen = Choice(name="none")
    target_images: Annotated[int, Field(ge=1)] | None = None
    held_out: Annotated[float, Field(ge=0, lt=1)] | None = None
    concept: Literal["all", "word", "weights"] = "all"
    strategy: str = "null"
    sides: Literal["both", "target"] = "both"
    inference: InferenceSettings = dataclasses.field(default_factory=InferenceSettings)
    head: Chosen
    source_style: Chosen = Choice(name="original")
    text_adapter: bool = False
    objectives: tuple[Chosen, ...] = (Choice(name="supervised"),)
    adapt: FineTuning = dataclasses.field(default_factory=FineTuning)
    evaluate: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    limit: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        for name, registry in _CHOICES.items():
            chosen = getattr(self, name)
            if isinstance(chosen, tuple):
                chosen = tuple(each.resolved(registry, f"{name}.{i}") for i, each in enumerate(chosen))
            else:
                chosen = chosen.resolved(registry, name)
            object.__setattr__(self, name, chosen)
        if self.target is None and self.train_on == "target":
            raise UsageError(
                "train_on: target needs a target", where="train_on", fix="name one, or omit train_on"
            )
        if self.target_labelled and (self.target is None or self.train_on == "target"):
            raise UsageError(
                "labelled target images join those of a source, and this recipe trains on one domain",
                where="target_labelled",
                fix="name a target and train on the source, or omit target_labelled",
            )
        require_task(self.objectives, self.head)
        nameless = not self.personalize.settings.get("word") or self.concept == "weights"
        if find(self.strategy).needs_concept and nameless:
            raise UsageError(
                f"strategy {self.strategy!r} writes a concept's word, but this recipe has none",
                where="strategy",
                fix="personalize with textual-inversion or dreambooth, and use concept: all or word",
            )
        if self.concept == "weights" and not personalizers[self.personalize.name].learns_weights:
            raise UsageError(
                "the concept's weights alone are to be used, and its method learns none",
                where="concept",
                fix="personalize with dreambooth, or use concept: all",
            )

    @property
    def uses_target_labels(self) -> bool:
        """Whether the row is no adaptation without labels."""
        return self.train_on == "target" or self.target_labelled is not None

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Recipe:
        """A recipe from plain values, as in YAML.

        Raises:
            UsageError: naming the path of the offending key and the nearest known one.
        """
        recipe: Recipe = build(cls, fields, "recipe")
        return recipe

    def as_json(self) -> dict[str, Any]:
        """Plain values for records and for distinguishing artifacts."""
        return as_json(self)


def deciding(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a recipe without the settings that change no number."""
    kept = keyed(Recipe, record, *_NO_NUMBER)
    for name, registry in _CHOICES.items():
        several = isinstance(kept[name], list | tuple)
        found = [Choice(**each) for each in (kept[name] if several else [kept[name]])]
        keys = [each.key(registry, *_NO_NUMBER) for each in found]
        kept[name] = keys if several else keys[0]
    return kept


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A table to be filled.

    Attributes:
        name: how it is called.
        claim: what it shows, and whether it has been measured.
        rows: recipe of each row, in table order; ``"null"`` is the one that others are compared with, if it is there.
        order: names of all rows of the table, of which ``rows`` may be some; those of ``rows`` when empty.
        whole: recipes of all rows of the table, likewise.
    """

    name: str
    claim: str
    rows: Mapping[str, Recipe]
    order: tuple[str, ...] = ()
    whole: Mapping[str, Recipe] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.whole:
            object.__setattr__(self, "whole", self.rows)
        if not self.order:
            object.__setattr__(self, "order", tuple(self.rows))

    def only(self, names: tuple[str, ...]) -> Benchmark:
        """The same table with these rows; all of them when none is named.

        Raises:
            UsageError: for a row that it has not.
        """
        for name in names:
            if name not in self.rows:
                raise UsageError(
                    f"benchmark {self.name!r} has no row {name!r}{nearest(name, list(self.rows))}",
                    fix=f"choose from: {', '.join(self.rows)}",
                )
        return dataclasses.replace(self, rows={n: r for n, r in self.rows.items() if not names or n in names})


def read_benchmark(
    name: str,
    overrides: tuple[str, ...] = (),
    *,
    base: Mapping[str, Any] | None = None,
    kind: str = "recipes",
) -> Benchmark:
    """A shipped benchmark by name, or one in your own YAML file.

    Args:
        name: a name listed by :func:`shipped`, or the path of a YAML file.
        overrides: ``path=value`` settings applied to every row, e.g. ``adapt.steps=10``; a setting of a choice, e.g.
            ``personalize.settings.steps=10``, to those rows whose choice has it.
        base: settings of every row that win over the file's base.
        kind: ``"recipes"`` for tables with their domains, ``"presets"`` for tables that lack them.

    Raises:
        UsageError: for an unknown name, a key that does not exist, or a value that makes no sense.
    """
    table = read_table(name, kind)
    unknown = set(table) - {"claim", "base", "rows", "models", "task", "method"}
    if unknown or not isinstance(table.get("rows"), Mapping):
        raise UsageError(
            f"expected the keys claim, base and rows, found {', '.join(map(str, table))}",
            where=name,
            fix="see the shipped benchmarks for the form",
        )
    parts = {"base": table.get("base"), **table["rows"]}
    for part, of in parts.items():
        if not isinstance(part, str) or not isinstance(of, Mapping | None):
            raise UsageError(
                f"expected settings under a name, found {shorten(of)} under {shorten(part)}",
                where=name,
                fix="write 'name: {key: value}', and names such as null, 1 or yes in quotes",
            )
    common = _merge(table.get("base") or {}, base or {})
    merged = {str(row): _merge(common, changes or {}) for row, changes in table["rows"].items()}
    for assignment in overrides:
        for fields in _concerned(list(merged.values()), assignment):
            override(fields, assignment)
    rows = {row: Recipe.from_mapping(fields) for row, fields in merged.items()}
    return Benchmark(name=Path(name).stem, claim=str(table.get("claim", "")), rows=rows)


def read_table(name: str, kind: str) -> dict[str, Any]:
    """The values of a shipped table or of a file. With ``extends: NAME`` they are those of another table, changed by
    what the file holds; the other's ``models`` are not its own."""
    table = parse_yaml(read_text(name, kind), where=name)
    if (parent := table.pop("extends", None)) is None:
        return table
    if parent == name or not isinstance(parent, str):
        raise UsageError(
            f"a table cannot extend {shorten(parent)}",
            where=name,
            fix="name another shipped table, or a file",
        )
    found = read_table(parent, kind)
    rows = {str(row): found["rows"].get(row, {}) for row in (*found["rows"], *table.get("rows", {}))}
    rows = {row: _merge(rows[row] or {}, table.get("rows", {}).get(row) or {}) for row in rows}
    base = _merge(found.get("base") or {}, table.get("base") or {})
    return {k: v for k, v in found.items() if k != "models"} | table | {"base": base, "rows": rows}


def read_text(name: str, kind: str) -> str:
    """The YAML of a shipped table, or of a file."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError("the benchmark file does not exist", where=path, fix="check the path")
        return read_yaml(path)
    if name not in shipped(kind):
        raise UsageError(
            f"unknown benchmark {name!r}{nearest(name, list(shipped(kind)))}",
            fix=f"choose one of: {', '.join(shipped(kind))}, or give the path of a YAML file",
        )
    return (resources.files(f"benchmarks.{kind}") / f"{name}.yaml").read_text(encoding="utf-8")


def shipped(kind: str = "recipes") -> tuple[str, ...]:
    """Names of the benchmarks (``"recipes"``) or presets that come with the package."""
    files = resources.files(f"benchmarks.{kind}").iterdir()
    return tuple(sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml")))


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes win; mappings merge, but a choice of another name starts from nothing."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            fresh = "name" in value and value["name"] != old.get("name")
            merged[key] = dict(value) if fresh else _merge(old, value)
        else:
            merged[key] = value
    return merged


def _concerned(rows: list[dict[str, Any]], assignment: str) -> list[dict[str, Any]]:
    """The rows that an override is for: a setting of a choice concerns those whose choice has it."""
    part, *rest = assignment.partition("=")[0].strip().split(".")
    if part not in _CHOICES or rest[:1] != ["settings"] or len(rest) < 2:
        return rows
    known = [_settings_of(_CHOICES[part], fields.get(part)) for fields in rows]
    found = [fields for fields, names in zip(rows, known, strict=True) if names is None or rest[1] in names]
    if not found:
        names = list(dict.fromkeys(each for names in known for each in names or ()))
        raise UsageError(
            f"no row has this setting{nearest(rest[1], names)}",
            where=f"--set {assignment}",
            fix=f"known settings: {', '.join(names)}" if names else f"choose one: --set {part}.name=NAME",
        )
    return found


def _settings_of(registry: Registry[Any], choice: Any) -> list[str] | None:
    """Names of the settings of a row's choice; none for one that is refused later, None where nobody knows them."""
    name = choice.get("name") if isinstance(choice, Mapping) else choice
    if not isinstance(name, str) or name not in registry:
        return []
    known = settings_class(registry[name])
    return [field.name for field in dataclasses.fields(known)] if known else None
