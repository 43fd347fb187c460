"""YAML of plain values: no tags, no key twice, no values without end. Somebody else may have written the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tadp_da.errors import UsageError

_MOST_VALUES = 100_000
"""What a file may stand for once every alias is written out; nine aliases of nine of nine ... are a billion."""
_DEEPEST, _LONGEST = 100, 100_000


class _Loader(yaml.SafeLoader):
    """Plain YAML in which a key given twice is an error instead of a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [k for i, k in enumerate(keys) if k in keys[:i]]
        if twice:
            raise UsageError(
                f"key {str(twice[0])!r} stands twice", where=str(node.start_mark), fix="keep one"
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        UsageError: when it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the file is not UTF-8 (byte {error.start})",
            where=path,
            fix=f"convert it, e.g. iconv -f latin1 -t utf8 {path.name}",
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot read the file: {error.strerror}", where=path, fix="check path and rights"
        ) from None


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping with plain values only.

    Raises:
        UsageError: when it is no YAML, no mapping, has a key twice or a tag, or aliases that
            stand for too much.
    """
    value = parse_value(text, where)
    if not isinstance(value, dict):
        raise UsageError("expected a mapping of settings", where=where, fix="see the shipped recipes")
    return value


def parse_value(text: str, where: str) -> Any:
    """Any plain YAML value; errors as in :func:`parse_yaml`."""
    if len(text) > _LONGEST:
        raise UsageError(
            f"{len(text)} characters, the limit is {_LONGEST}",
            where=where,
            fix="give a file of settings only",
        )
    if _depth(text) > _DEEPEST:
        raise UsageError(
            f"brackets or dashes are nested more than {_DEEPEST} deep", where=where, fix="correct the file"
        )
    try:
        value = yaml.load(text, _Loader)
        count = _count(value, {})
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # PyYAML's constructors let through what int(), date() and their kind raise, e.g. for 2001-99-99
        reason = str(error) or type(error).__name__
        raise UsageError(
            f"not readable as YAML: {reason[:500]}", where=where, fix="correct the file"
        ) from None
    if count > _MOST_VALUES:
        raise UsageError(
            f"its aliases (*name) stand for more than {_MOST_VALUES} values",
            where=where,
            fix="write out what is meant",
        )
    return value


def _depth(text: str) -> int:
    """About how deep it is nested: PyYAML takes minutes over thousands of open brackets."""
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = max(depth + (1 if bracket in "[{" else -1), 0)
        deepest = max(deepest, depth)
    return max(deepest, *(len(dashes[0]) // 2 for dashes in re.finditer(r"(?:[-?:] )+", text)), 0)


def _count(value: Any, known: dict[int, float]) -> float:
    """How many values a value stands for, those behind an alias as often as it is used; infinite in a circle."""
    if not isinstance(value, Mapping | list | tuple | set):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")  # what is met again while it is counted holds itself
        inner = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in inner)
    return known[id(value)]
