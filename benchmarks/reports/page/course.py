"""How a page's numbers came about: training curves, settings, versions, data and cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reports.page.material import Material, Section, read_lines
from tadp_da.storage.artifacts import versions
from tadp_da.training.loop import METRICS

_POINTS = 100
"""Of a curve: the mean of equally many steps each."""


def curves(material: Material) -> Section | None:
    """Losses of models and concepts, from their logs."""
    groups = [
        ("Perception models", _charts(material, material.model)),
        ("Concepts", _charts(material, material.concept)),
    ]
    groups = [(title, charts) for title, charts in groups if charts]
    return Section("curves", "Training", "curves.html", {"groups": groups}) if groups else None


def _charts(material: Material, find: Any) -> list[dict[str, Any]]:
    """One chart per row, all on one scale; rows that share what was trained share a chart."""
    logs: dict[Path, tuple[list[str], list[list[dict[str, Any]]]]] = {}
    for row, seeds in material.reports.items():
        places = [found[0] for seed in sorted(seeds) if (found := find(row, seed))]
        lines = [found for place in dict.fromkeys(places) if (found := read_lines(place / METRICS))]
        if lines:
            logs.setdefault(places[0], ([], lines))[0].append(row)
    drawn = [
        (rows, [_smooth(log, "loss") for log in seeds], _summands(seeds[0])) for rows, seeds in logs.values()
    ]
    values = [v for _, totals, _ in drawn for total in totals for _, v in total]
    if not values:
        return []
    top = max(sorted(values)[int(0.98 * (len(values) - 1))], 1e-9)
    charts = []
    for rows, totals, summands in drawn:
        steps = max(step for total in totals for step, _ in total)
        named = [(name, _polyline(found, steps, top)) for name, found in summands.items()]
        charts.append(
            {"rows": rows, "steps": steps, "top": top, "first": totals[0][0][1], "last": totals[0][-1][1],
             "lines": [_polyline(total, steps, top) for total in totals], "summands": named}
        )  # fmt: skip
    return charts


def _summands(log: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    names = dict.fromkeys(name for line in log for name in line.get("losses", {}))
    found = {name: [{"step": e["step"], "loss": e["losses"][name]} for e in log if name in e.get("losses", {})]
             for name in names}  # fmt: skip
    return {name: _smooth(lines, "loss") for name, lines in found.items()}


def _smooth(log: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """Steps and the means of a value over parts of a log."""
    length = max(1, -(-len(log) // _POINTS))
    parts = [log[i : i + length] for i in range(0, len(log), length)]
    return [(part[-1]["step"], sum(line[name] for line in part) / len(part)) for part in parts]


def _polyline(points: Iterable[tuple[float, float]], steps: float, top: float) -> str:
    """Points in a box of 100 by 100 whose y axis points down."""
    return " ".join(f"{100 * x / steps:.1f},{100 - 100 * min(1.0, max(0.0, y / top)):.1f}" for x, y in points)


def health(material: Material) -> Section | None:
    """What objectives reported during training, such as a teacher's confidence, at each row's lowest seed."""
    rows = []
    for row, seeds in material.reports.items():
        model = material.model(row, min(seeds)) if seeds else None
        log = [line for line in read_lines(model[0] / METRICS) if line.get("facts")] if model else []
        panels: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(name for line in log for name in line["facts"]):
            panel, _, curve = name.rpartition("/")
            known = [{"step": e["step"], "value": e["facts"][name]} for e in log if name in e["facts"]]
            panels.setdefault(panel, {})[curve] = _smooth(known, "value")
        if panels:
            rows.append((row, [_panel(name, curves, log[-1]["step"]) for name, curves in panels.items()]))
    return Section("health", "What the objectives reported", "health.html", {"rows": rows}) if rows else None


def _panel(name: str, curves: Mapping[str, list[tuple[float, float]]], steps: float) -> dict[str, Any]:
    top = max([v for points in curves.values() for _, v in points if math.isfinite(v)], default=0.0) or 1.0
    lines = [(curve, _polyline(points, steps, top), points[-1][1]) for curve, points in curves.items()]
    return {"name": name, "top": top, "steps": steps, "lines": lines}


def findings(material: Material) -> Section | None:
    """What analyses of the table found, such as a ranking of rows without labels."""
    found = []
    for name, known in material.findings.items():
        tables = []
        for title, rows in known.get("tables", {}).items():
            columns = list(dict.fromkeys(column for row in rows for column in row))
            if columns:
                tables.append((title, columns, [[row.get(c) for c in columns] for row in rows]))
        if known.get("text"):
            found.append((name, known["text"], tables))
    return Section("findings", "Analyses", "findings.html", {"found": found}) if found else None


def facts(material: Material) -> Section:
    """Settings, commands, versions, data and cost."""
    shared, own = _apart({note["row"]: _flat(note["recipe"]) for note in material.notes})
    _, brief = _apart({note["row"]: _brief(note["recipe"]) for note in material.notes})
    columns = [k for k in next(iter(brief.values()), {}) if all(k in choices for choices in brief.values())]
    made = list(material.made())
    cost: dict[tuple[str, int], dict[str, Any]] = {}
    for row, seed, kind, _, manifest in made:
        cost.setdefault((row, seed), {})[kind] = manifest.get("seconds")
    models = {(row, seed): found[0].name for row, seed in cost if (found := material.model(row, seed))}
    known = [seconds for kinds in cost.values() for seconds in kinds.values() if seconds is not None]
    digests = {
        split: digest for note in material.notes for split, digest in note["made_of"].get("data", {}).items()
    }
    data = {
        "commands": list(dict.fromkeys(note["command"] for note in material.notes if "command" in note)),
        "folder": str(material.folder.absolute()) if material.folder else "",
        "seeds": material.seeds,
        "shared": sorted(shared.items()),
        "own": own,
        "brief": brief,
        "columns": columns,
        "versions": _versions([manifest for *_, manifest in made]),
        "data": sorted(digests.items()),
        "cost": cost,
        "models": models,
        "total": sum(known) if known else None,
        "dates": sorted(m["made"][:16].replace("T", " ") for *_, m in made if m.get("made")),
    }
    return Section("facts", "How this was made", "facts.html", data)


def _versions(manifests: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Versions of commit and libraries, each with all that artifacts were made with; without any, today's."""
    found: dict[str, dict[str, None]] = {}
    for known in [m["versions"] for m in manifests if m.get("versions")] or [versions()]:
        for name, version in known.items():
            found.setdefault(name, {})[version] = None
    return [
        (name, ", ".join(found[name])) for name in sorted(found, key=lambda name: (name != "commit", name))
    ]


def _apart(tables: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What all tables say alike, and what else each of them says."""
    first, *rest = [*tables.values()] or [{}]
    shared = {k: v for k, v in first.items() if v is not None and all(k in o and o[k] == v for o in rest)}
    own = {
        row: {k: v for k, v in t.items() if k not in shared and v is not None} for row, t in tables.items()
    }
    return shared, own


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, lists as text; a choice without settings is its name."""
    if isinstance(value, list):
        value = ", ".join(map(_said, value)) or None
    if not isinstance(value, dict):
        return {prefix: value}
    pairs = ((f"{prefix}.{key}".strip("."), inner) for key, inner in value.items() if key != "settings")
    flat = {name: v for key, inner in pairs for name, v in _flat(inner, key).items()}
    return flat | (_flat(value["settings"], prefix) if value.get("settings") else {})


def _brief(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, but choices by their names alone, with those of choices inside them."""
    if isinstance(value, dict) and "name" not in value:
        pairs = ((f"{prefix}.{key}".strip("."), inner) for key, inner in value.items())
        return {name: v for key, inner in pairs for name, v in _brief(inner, key).items()}
    return {prefix: _names(value) or (None if value is None else str(value))}


def _names(value: Any) -> str:
    """The name of a choice, or of each in a list, with those of choices inside it; empty for anything else."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_names, value)))
    if not isinstance(value, dict) or "name" not in value:
        return ""
    inside = ", ".join(filter(None, map(_names, value.get("settings", {}).values())))
    return f"{value['name']} ({inside})" if inside else str(value["name"])


def _said(value: Any) -> str:
    """A value in a list; a choice with its settings, and settings of these by name."""
    if not isinstance(value, dict):
        return str(value)
    given = value.get("settings", {}) if "name" in value else value
    settings = ", ".join(f"{k} {_said(v)}" for k, v in given.items() if v is not None)
    return f"{value.get('name', '')} ({settings})".strip() if settings else str(value.get("name", ""))
