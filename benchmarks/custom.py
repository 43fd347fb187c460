"""Tables of your own data: the preset that suits a model, and its rows, which are named methods."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

from benchmarks.recipe import Benchmark, Recipe, read_benchmark, read_table, shipped
from tadp_da.errors import UsageError
from tadp_da.registry import nearest

BASELINES = ("null", "strong")
"""Rows of presets that see no target image, which a method has to be better than."""


def preset_for(model: str, task: str | None = None) -> str:
    """The shipped preset that suits a model and the kind of its labels: each preset says which models it is for.

    Args:
        model: weights, as a recipe names them.
        task: of the labels; that of any preset when None.
    """
    suited = {}
    for name in shipped("presets"):
        table = read_table(name, "presets")
        patterns = [pattern for pattern in table.get("models", ()) if fnmatch(model, pattern)]
        if patterns and task in (None, table["task"]):
            suited[name] = max(map(len, patterns))  # the longest pattern is the most specific one
    if not suited:
        raise UsageError(
            f"no preset is for {task} with the model {model!r}", fix="give one: --preset FILE.yaml"
        )
    return max(suited, key=suited.__getitem__)


def read_preset(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """The settings that a preset's row ``null`` has; its domains are placeholders.

    Raises:
        UsageError: when the preset has no such row.
    """
    rows = read_benchmark(name, overrides, base={"source": "", "target": None}, kind="presets").rows
    if "null" not in rows:
        raise UsageError(
            f"the preset has no row 'null' to take the settings from, only {', '.join(rows)}",
            where=name,
            fix="add the row: null: {strategy: null}",
        )
    return rows["null"]


def method_rows(preset: str, method: str = "") -> tuple[str, ...]:
    """Rows to try a named method with: the baselines that see no target image, and the method.

    Args:
        preset: where the methods are rows; its key ``method`` names the one that development targets favour.
        method: which; that one if empty, and all rows of a preset that names none.
    """
    table = read_table(preset, "presets")
    known = list(table["rows"])
    method = method or str(table.get("method", ""))
    if not method:
        return tuple(known)
    if method not in known:
        raise UsageError(
            f"the preset {preset!r} has no method {method!r}{nearest(method, known)}",
            where="--method",
            fix=f"choose from: {', '.join(known)}",
        )
    return tuple(dict.fromkeys([name for name in BASELINES if name in known] + [method]))


def custom_benchmark(
    *,
    rows: tuple[str, ...],
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    target_labelled: Any = None,
    model: str,
    captioner: str = "",
    preset: str,
    sets: tuple[str, ...] = (),
) -> Benchmark:
    """The table of ``tadp-da run``: the named rows of a preset, on the user's folders."""
    base: dict[str, Any] = {
        "source": {k: v for k, v in source.items() if v is not None},
        "target": {k: v for k, v in target.items() if v is not None},
        "model": model,
    }
    base |= {"captioner": captioner} if captioner else {}
    base |= {"target_labelled": {"images": target_labelled}} if target_labelled else {}
    table = read_benchmark(preset, sets, base=base, kind="presets").only(rows)
    return Benchmark(name="own", claim="Your own data.", rows=table.rows, order=rows, whole=table.whole)
