"""Settings from plain values, as YAML files and command lines give them: built, overridden and refused with advice."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from reprlib import repr as shorten
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as settings

from tadp_da.errors import UsageError
from tadp_da.plain_yaml import parse_value
from tadp_da.registry import Registry, nearest

_PLAIN = TypeAdapter(dict[str, Any])
STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class Effect(Enum):
    """What little a setting changes, said beside it: ``workers: Annotated[int, Effect.SPEED]``. One that does not say
    so is among the inputs of every artifact that it reaches."""

    SPEED = "speed, memory and rounding; no artifact depends on it"
    ILLUSTRATION = "images for people to look at; they are an artifact's, but no number depends on it"
    PLACE = "where something is; artifacts depend on the content"
    WORDING = "messages and what is refused; no artifact depends on it"
    ADDED = "newer than artifacts that are about: its default is how they were made, and no key holds it"


@settings(frozen=True, kw_only=True, config=STRICT)
class Choice:
    """A plug-in by name, with its settings. A bare string stands for the name.

    Attributes:
        name: name in the plug-in's registry.
        settings: all of its settings as JSON values, defaults included once :meth:`resolved`.
    """

    name: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, value: Any) -> Any:
        """What pydantic is to validate as a choice: ``"name"`` means ``{"name": "name"}``."""
        return cls(name=value) if isinstance(value, str) else value

    def resolved(self, registry: Registry[Any], where: str) -> Choice:
        """The same choice with every setting stated.

        Raises:
            UsageError: when the registry has no such entry, or the entry no such settings.
        """
        known = settings_class(registry[self.name])
        if known is None:
            return self
        built = build(known, self.settings, f"{where}.settings")
        return dataclasses.replace(self, settings=as_json(built))

    def built(self, registry: Registry[Any]) -> Any:
        """The plug-in with these settings, for registries of classes that have ``Settings``.

        Raises:
            UsageError: see :meth:`resolved`.
        """
        entry = registry[self.name]
        return entry(build(entry.Settings, self.settings, f"{self.name}.settings"))

    def key(self, registry: Registry[Any], *without: Effect) -> dict[str, Any]:
        """The choice as an input of artifacts; see :func:`keyed`."""
        return {
            "name": self.name,
            "settings": keyed(settings_class(registry[self.name]), self.settings, *without),
        }


def settings_class(entry: Any) -> Any:
    """The settings dataclass of a registry's entry: its ``Settings``, or the entry itself; None for neither."""
    found = getattr(entry, "Settings", entry)
    return found if dataclasses.is_dataclass(found) else None


def as_json(value: Any) -> dict[str, Any]:
    """A settings dataclass as JSON values."""
    plain: dict[str, Any] = _PLAIN.dump_python(dataclasses.asdict(value), mode="json")
    return plain


def keyed(cls: Any, record: Any, *without: Effect) -> dict[str, Any]:
    """Settings as an input of artifacts: without those that change no result.

    Args:
        cls: their class; None for one that is not known.
        record: the settings as JSON values, or as an instance.
        without: effects of settings to leave out; ``SPEED`` if none is given.
    """
    record = as_json(record) if dataclasses.is_dataclass(record) else dict(record)
    hints, left = _hints(cls), without or (Effect.SPEED,)
    kept = {
        k: v
        for k, v in record.items()
        if not set(left) & set(effects(cls).get(k, ())) and not _as_before(cls, k, v)
    }
    for name, value in kept.items():
        inner = [c for c in _classes(hints.get(name)) if c is not Choice]
        if len(inner) == 1 and isinstance(value, Mapping):
            kept[name] = keyed(inner[0], value, *left)
    return kept


def _as_before(cls: Any, name: str, value: Any) -> bool:
    """Whether a setting that was added later has the value that was meant before."""
    if Effect.ADDED not in effects(cls).get(name, ()):
        return False
    default = next(f.default for f in dataclasses.fields(cls) if f.name == name)
    return bool(_PLAIN.dump_python({name: default}, mode="json")[name] == value)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True) if cls else {}


@cache
def effects(cls: Any) -> dict[str, tuple[Effect, ...]]:
    """What the settings of a class declare about themselves, by name."""
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in _hints(cls).items()}
    return {
        name: found
        for name, each in marks.items()
        if (found := tuple(m for m in each if isinstance(m, Effect)))
    }


def build_settings(
    cls: Any, fields: Mapping[str, Any], overrides: tuple[str, ...] = (), where: str = ""
) -> Any:
    """Settings of a class from plain values and ``path=value`` overrides.

    Raises:
        UsageError: naming the offending key and the nearest known one.
    """
    merged = dict(fields)
    for each in overrides:
        override(merged, each)
    return build(cls, merged, where or cls.__name__)


def build(cls: Any, fields: Mapping[str, Any], where: str) -> Any:
    """Settings of a class from plain values.

    Args:
        cls: a pydantic dataclass.
        fields: its fields.
        where: what the fields belong to, for messages.

    Raises:
        UsageError: naming the path of the offending key and the nearest known one.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(fields))
    except ValidationError as error:
        raise _explained(error, cls, where) from None


def _explained(error: ValidationError, cls: Any, where: str) -> UsageError:
    first = error.errors()[0]
    path = ".".join(str(part) for part in (where, *first["loc"]))
    known = [f.name for f in dataclasses.fields(_owner(cls, first["loc"]))]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        hint = nearest(str(first["loc"][-1]), known)
        return UsageError(f"unknown key{hint}", where=path, fix=f"known keys: {', '.join(known)}")
    if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return UsageError("a setting is missing", where=path, fix=f"set it; known keys: {', '.join(known)}")
    if first["type"] == "value_error":  # our own rules, whose message says everything
        return UsageError(first["msg"].removeprefix("Value error, "), where=path, fix="correct it")
    return UsageError(f"{first['msg']}, found {shorten(first['input'])}", where=path, fix="correct it")


def _owner(cls: Any, loc: tuple[int | str, ...]) -> Any:
    """The settings class that the last part of a location belongs to."""
    owner = cls
    for part in loc[:-1]:
        candidates = list(_classes(typing.get_type_hints(owner).get(str(part))))
        # in a union, pydantic puts the name of the member that it tried into the location
        named = [c for c in _classes(owner) if c.__name__ == part] or candidates
        owner = named[0] if len(named) == 1 else next((c for c in named if c.__name__ in loc), owner)
    return owner


def _classes(hint: Any) -> Iterator[Any]:
    """Settings classes in a type hint, those inside unions too."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for inner in typing.get_args(hint):
        yield from _classes(inner)


def override(fields: dict[str, Any], assignment: str) -> None:
    """Apply ``path=value`` to nested plain values, in place.

    Raises:
        UsageError: when it is not such an assignment, or its value is not plain YAML.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise UsageError(
            f"--set {assignment!r} is not path=value", fix="write for example --set adapt.steps=100"
        )
    *parents, last = path.strip().split(".")
    for parent in parents:
        inner = fields.get(parent)
        if isinstance(inner, str) and "settings" in path:
            inner = {"name": inner}  # a choice that was given by its name alone
        fields[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        fields = fields[parent]
    fields[last] = parse_value(text, f"--set {assignment}")
