"""Plain YAML: values without tags, in which a repeated key is an error instead of a silent choice."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tadp_da.errors import UsageError

_MOST_VALUES = 100_000
"""Values of a file with every alias expanded; nine aliases of nine of nine ... are a billion."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
            raise UsageError(
                f"key {str(twice[0])!r} is given twice", where=str(node.start_mark), fix="keep one"
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        UsageError: if it cannot be read or is in another encoding.
    """
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the file is not UTF-8 (byte {error.start})",
            where=path,
            fix=f"convert it, e.g. iconv -f latin1 -t utf8 {path.name}",
        ) from None
    except OSError as error:
        fix = "check path and permissions"
        raise UsageError(f"cannot read the file: {error.strerror}", where=path, fix=fix) from None


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping of plain values.

    Raises:
        UsageError: if it is not valid YAML or not a mapping, or has a repeated key, a tag, or aliases that expand to
            too many values.
    """
    value = parse_value(text, where)
    if not isinstance(value, dict):
        raise UsageError("expected a mapping of settings", where=where, fix="see the shipped recipes")
    return value


def parse_value(text: str, where: str) -> Any:
    """Any plain YAML value; errors as in :func:`parse_yaml`."""
    try:
        value = yaml.load(text, _Loader)
        count = _count(value, {})
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # PyYAML's constructors let through errors of int(), date() and so on, e.g. for 2001-99-99
        reason = str(error) or type(error).__name__
        raise UsageError(f"not valid YAML: {reason[:500]}", where=where, fix="correct the file") from None
    if count > _MOST_VALUES:
        raise UsageError(
            f"its aliases (*name) expand to more than {_MOST_VALUES} values",
            where=where,
            fix="write out the values",
        )
    return value


def _count(value: Any, known: dict[int, float]) -> float:
    """Number of values with every alias expanded; infinite if a value contains itself."""
    if not isinstance(value, Mapping | list | tuple | set):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")  # found again while it is counted: it contains itself
        inner = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in inner)
    return known[id(value)]
