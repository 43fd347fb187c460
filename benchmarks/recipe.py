"""Recipe: one row of a table, validated at birth. A benchmark is a base recipe and the rows that differ from it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from reprlib import repr as shorten
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as settings

from adapt import FineTuning
from benchmarks.evaluate import EvaluationSettings
from personalize import personalizers
from tadp_da.backbones.stable_diffusion import BackboneSettings
from tadp_da.captions.captioner import CaptionerSettings
from tadp_da.captions.strategies import find
from tadp_da.errors import UsageError
from tadp_da.inference import InferenceSettings
from tadp_da.plain_yaml import parse_value, parse_yaml, read_yaml
from tadp_da.registry import nearest
from tadp_da.types import DomainDescription

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


@settings(frozen=True, kw_only=True, config=_STRICT)
class CustomDataset:
    """A domain that is not in the registry: your folder of images with masks or boxes.

    Attributes:
        name: what to call it.
        images: folder of training (source) or unlabelled (target) images.
        masks: folder of masks with the same relative stems.
        boxes: folder of Pascal VOC XML with the same relative stems, or a COCO JSON file; instead of masks.
        classes: class names in the order of their ids; not needed with a legend or a COCO file.
        legend: file that says what the values or colours of the masks mean (see ``places.read_legend``).
        test_images: folder of test images.
        test_masks: their masks.
        test_boxes: or their boxes.
        medium: what the pictures are, e.g. ``photo``.
        style: the simple words for the domain, e.g. ``dark night``.
        ignore: mask value that counts nowhere.
    """

    name: str
    images: Path
    masks: Path | None = None
    boxes: Path | None = None
    classes: tuple[str, ...] = ()
    legend: Path | None = None
    test_images: Path | None = None
    test_masks: Path | None = None
    test_boxes: Path | None = None
    medium: str = "photo"
    style: str = ""
    ignore: int = 255

    def __post_init__(self) -> None:
        masks, boxes = self.masks or self.test_masks, self.boxes or self.test_boxes
        if masks and boxes:
            raise UsageError(
                "a domain has masks or boxes, not both", where=self.name, fix="leave one of them out"
            )
        if boxes and self.legend:
            raise UsageError("a legend is for masks", where=self.name, fix="name the classes instead")
        if bool(self.test_images) != bool(self.test_masks or self.test_boxes):
            raise UsageError(
                "test images and their labels go together",
                where=self.name,
                fix="give both, or neither; images without labels are for the unlabelled folder, or for predict",
            )

    @property
    def description(self) -> DomainDescription:
        """How captions speak of it."""
        return DomainDescription(medium=self.medium, style=self.style)


def _personalizer(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    fields = dict(value)
    try:
        method = fields.pop("method")
    except KeyError:
        raise UsageError(
            "personalize lacks its method", fix=f"choose one of: {', '.join(personalizers)}"
        ) from None
    return _build(personalizers[method], fields, "personalize")


@settings(frozen=True, kw_only=True, config=_STRICT)
class HeadChoice:
    """Which head, and its settings."""

    name: str = "semantic-fpn"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


@settings(frozen=True, kw_only=True, config=_STRICT)
class Recipe:
    """Everything that decides a number but the seed.

    Attributes:
        source: labelled domain: a registry name, or your own folders.
        target: domain with images only, and test labels for scoring.
        train_on: ``"target"`` trains on the target's own labelled split: the supervised ceiling, not adaptation.
        model: diffusion model: ``"mini"`` (embedded), a diffusers folder or a hub id.
        pretrained: False draws the UNet's weights anew: the same network without diffusion pretraining.
        captioner: image-to-text model that captions both domains: ``"mini"``, a folder or a hub id.
        captions: how captions are generated.
        caption_files: caption files that are read instead, by domain and split: ``{"comic2k/test": path}``.
        clean_target: take bullets and style phrases out of the target's captions (``captions/clean.py``), as TADP does
            for works of art, so that they read like the source's.
        backbone: timestep, latents and maps.
        personalize: how the concept is learned.
        target_images: how many of the target's unlabelled images it is learned from, drawn by the seed; None for all.
        concept: which part of the concept is used: all of it, its word only, or its weights only (ablations).
        strategy: caption strategy or template.
        sides: ``"both"`` rewrites source and target captions alike, ``"target"`` only those of the target.
        inference: at what size and through which windows images are seen.
        head: what reads the pyramid.
        adapt: fine-tuning on the source labels.
        evaluate: how test images are scored.
        limit: only the first so many images of every split, for smoke runs and demos; None for all.
    """

    source: str | CustomDataset
    target: str | CustomDataset
    train_on: Literal["source", "target"] = "source"
    model: str = "mini"
    pretrained: bool = True
    captioner: str = "mini"
    captions: CaptionerSettings = dataclasses.field(default_factory=CaptionerSettings)
    caption_files: dict[str, Path] = dataclasses.field(default_factory=dict)
    clean_target: bool = False
    backbone: BackboneSettings = dataclasses.field(default_factory=BackboneSettings)
    personalize: Annotated[Any, BeforeValidator(_personalizer)] = dataclasses.field(
        default_factory=lambda: personalizers["nothing"]()
    )
    target_images: Annotated[int, Field(ge=1)] | None = None
    concept: Literal["all", "word", "weights"] = "all"
    strategy: str = "null"
    sides: Literal["both", "target"] = "both"
    inference: InferenceSettings = dataclasses.field(default_factory=InferenceSettings)
    head: HeadChoice = dataclasses.field(default_factory=HeadChoice)
    adapt: FineTuning = dataclasses.field(default_factory=FineTuning)
    evaluate: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    limit: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        nameless = not getattr(self.personalize, "word", "") or self.concept == "weights"
        if find(self.strategy).needs_concept and nameless:
            raise UsageError(
                f"strategy {self.strategy!r} speaks a concept's word, but this recipe has none",
                where="strategy",
                fix="personalize with textual-inversion or dreambooth, and use concept: all or word",
            )
        if self.concept == "weights" and not self.personalize.learns_weights:
            raise UsageError(
                "the concept's weights alone are to be used, and its method learns none",
                where="concept",
                fix="personalize with dreambooth, or use concept: all",
            )

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Recipe:
        """A recipe from plain values, as in YAML.

        Raises:
            UsageError: naming the path of the offending key and the nearest known one.
        """
        return _build(cls, fields, "recipe")

    def as_json(self) -> dict[str, Any]:
        """Plain values for records and for telling artifacts apart."""
        plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(dataclasses.asdict(self), mode="json")
        plain["personalize"]["method"] = next(
            n for n in personalizers if personalizers[n] is type(self.personalize)
        )
        return plain


def _build(cls: Any, fields: Mapping[str, Any], where: str) -> Any:
    try:
        return TypeAdapter(cls).validate_python(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in (where, *first["loc"]))
        known = [f.name for f in dataclasses.fields(_owner(cls, first["loc"]))]
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            hint = nearest(str(first["loc"][-1]), known)
            raise UsageError(f"unknown key{hint}", where=path, fix=f"known: {', '.join(known)}") from None
        if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            raise UsageError(
                "a setting is missing", where=path, fix=f"give it; known: {', '.join(known)}"
            ) from None
        if first["type"] == "value_error":  # our own rules, which say all in their message
            raise UsageError(
                first["msg"].removeprefix("Value error, "), where=path, fix="correct it"
            ) from None
        raise UsageError(
            f"{first['msg']}, found {shorten(first['input'])}", where=path, fix="correct it"
        ) from None


def _owner(cls: Any, loc: tuple[int | str, ...]) -> Any:
    """The settings class that the last part of a location belongs to."""
    owner = cls
    for part in loc[:-1]:
        field = typing.get_type_hints(owner).get(str(part))
        owner = (
            field if dataclasses.is_dataclass(field) else CustomDataset if part == "CustomDataset" else owner
        )
    return owner


def build_settings(cls: Any, fields: Mapping[str, Any], overrides: tuple[str, ...] = ()) -> Any:
    """Settings of any class from plain values and ``path=value`` overrides.

    Raises:
        UsageError: naming the offending key and the nearest known one.
    """
    merged = dict(fields)
    for override in overrides:
        _override(merged, override)
    return _build(cls, merged, cls.__name__)


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
        overrides: ``path=value`` settings applied to every row, e.g. ``adapt.steps=10``; one of a personalizer, e.g.
            ``personalize.steps=10``, to those rows whose method has it.
        base: settings of every row that win over the file's base.
        kind: ``"recipes"`` for tables with their domains, ``"presets"`` for tables that lack them.

    Raises:
        UsageError: for an unknown name, a key that does not exist, or a value that makes no sense.
    """
    text = _text(name, kind)
    table = parse_yaml(text, where=name)
    unknown = set(table) - {"claim", "base", "rows"}
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
    for override in overrides:
        for fields in _concerned(list(merged.values()), override):
            _override(fields, override)
    rows = {row: Recipe.from_mapping(fields) for row, fields in merged.items()}
    return Benchmark(name=Path(name).stem, claim=str(table.get("claim", "")), rows=rows)


def _text(name: str, kind: str) -> str:
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
    """Changes win; mappings merge, but a personalizer of another method starts from nothing."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            fresh = "method" in value and value["method"] != old.get("method")
            merged[key] = dict(value) if fresh else _merge(old, value)
        else:
            merged[key] = value
    return merged


def _concerned(rows: list[dict[str, Any]], override: str) -> list[dict[str, Any]]:
    """The rows that an override is for: a personalizer's field concerns those whose method has it."""
    part, _, rest = override.partition("=")[0].strip().partition(".")
    name = rest.partition(".")[0]
    if part != "personalize" or name in ("", "method"):
        return rows
    known = [_learnable(fields.get("personalize")) for fields in rows]
    found = [fields for fields, names in zip(rows, known, strict=True) if name in names]
    if not found:
        names = list(dict.fromkeys(each for names in known for each in names))
        raise UsageError(
            f"no row has this setting{nearest(name, names)}",
            where=f"--set {override}",
            fix=f"known: {', '.join(names)}"
            if names
            else "choose a method: --set personalize.method=dreambooth",
        )
    return found


def _learnable(personalize: Any) -> list[str]:
    """Names of the fields of a row's personalizer; of one that lacks its method none, it is refused later."""
    method = personalize.get("method") if isinstance(personalize, Mapping) else None
    return [field.name for field in dataclasses.fields(personalizers[method])] if method else []


def _override(fields: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UsageError(
            f"--set {override!r} is not path=value", fix="write for example --set adapt.steps=100"
        )
    *parents, last = path.strip().split(".")
    for parent in parents:
        inner = fields.get(parent)
        fields[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        fields = fields[parent]
    fields[last] = parse_value(text, f"--set {override}")
