"""The numbers of a page: the verdict, the table, every seed, paired differences, and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.reports.intervals import CLEAR, Difference, Spread
from benchmarks.reports.page.material import Material, Section
from benchmarks.reports.plots import reach
from benchmarks.reports.statistics import ComparedRow, Comparison
from benchmarks.reports.tables import footnotes, mean_and_interval
from tadp_da.tasks import in_unit

_SAID = {"helps": "better", "hurts": "worse"}


def verdict(material: Material) -> Section:
    """What came out, and how sure it is."""
    table = material.comparison
    data: dict[str, Any] = {"tone": "open", "facts": [], "unsure": [], "conclusion": "", "notes": []}
    if table is None or not any(row.primary for row in table.rows):
        data["headline"] = "There are no scores: the target has no labelled test images."
        ranked = [known["text"] for known in material.findings.values() if known.get("text")]
        which = "Otherwise, which" if ranked else "Which"
        look = f"{which} row is better can only be judged by looking at the predictions below."
        data["unsure"] = [*ranked, look]
        return Section("verdict", "Verdict", "verdict.html", data)
    data |= _told(table, material)
    data["conclusion"] = table.conclusion()
    data["notes"] = list(dict.fromkeys(note for row in table.rows for note in row.notes))
    return Section("verdict", "Verdict", "verdict.html", data)


def _told(table: Comparison, material: Material) -> dict[str, Any]:
    """Headline, tone, key figures and how sure the headline is."""
    sign = material.better
    where = "on the target" if table.evaluation == "target" else "on the test images"
    scored = [row for row in table.rows if row.primary and row.name not in material.bounds]
    scored = scored or [row for row in table.rows if row.primary]
    best = max(scored, key=lambda row: sign * (row.primary.mean if row.primary else 0))
    compared = [(row, row.against) for row in scored if row.against and row.against.spread]
    base = next(row for row in table.rows if row.name == table.baseline)
    images = max(
        (r.primary.images for seeds in material.reports.values() for r in seeds.values() if r.primary),
        default=0,
    )
    facts = [(f"{best.name}, best mean", _score(best.primary, table.unit))]
    if best is not base and base.primary:
        facts.append((f"{base.name}, what it is compared with", _score(base.primary, table.unit)))
    facts += [("training seeds", str(len(material.seeds))), ("test images", str(images))]
    if not compared:
        headline = f"{best.name} scores {_score(best.primary, table.unit)} {table.metric} {where}."
        return {
            "headline": headline,
            "facts": facts,
            "unsure": ["There is nothing to compare it with yet."],
            "tone": "open",
        }
    row, found = _strongest(compared, sign)
    headline, tone = _headline(row, found, table, where)
    return {"headline": headline, "tone": tone, "facts": facts, "unsure": _how_sure(row, found, table)}


def _strongest(
    compared: Sequence[tuple[ComparedRow, Difference]], sign: int
) -> tuple[ComparedRow, Difference]:
    """The row that says most: the best of those with the strongest verdict."""
    order = ("no clear difference", "helps")

    def rank(found: Difference) -> tuple[int, int, float]:
        gain = sign * found.spread.mean if found.spread else 0.0
        known = [order.index(v) if v in order else -1 for v in (found.corrected, found.verdict)]
        return known[0], known[1], gain

    return max(compared, key=lambda pair: rank(pair[1]))


def _headline(row: ComparedRow, found: Difference, table: Comparison, where: str) -> tuple[str, str]:
    assert found.spread is not None  # it was compared
    amount = _amount(found.spread.mean, table)
    better = (found.spread.mean > 0) == table.higher_is_better
    if found.verdict == "too few seeds":
        side = "above" if found.spread.mean > 0 else "below"
        text = f"{row.name} is {amount} {side} {table.baseline} {where}, at one seed: too few for a verdict."
        return text, "open"
    if found.verdict == "no clear difference":
        return f"No row is clearly better than {table.baseline} {where}.", "open"
    word = "better" if better else "worse"
    seeds = len(found.spread.values)
    text = f"{row.name} is {word} than {table.baseline} {where}, by {amount} on average over {seeds} seeds."
    if not better:
        text = f"No row is better than {table.baseline} {where}; {text}"
    sure = found.corrected in CLEAR
    return text, ("good" if better else "bad") if sure else "open"


def _how_sure(row: ComparedRow, found: Difference, table: Comparison) -> list[str]:
    """Sentences on what the headline rests on."""
    paired, told = found.spread, list[str]()
    assert paired is not None
    if paired.low is None or paired.high is None:
        told.append(
            "One seed cannot tell a difference between rows from a difference between two trainings of the same row. "
            "Run at least two seeds, better five."
        )
    else:
        seeds = len(paired.values)
        told.append(
            f"{row.name}: the 95 % interval of the difference is {in_unit(paired.low, table.unit, '+')} to "
            f"{in_unit(paired.high, table.unit, '+')}, from {seeds} "
            f"seeds{' - few: such an interval is wide' if seeds < 5 else ''}."
        )
        if found.p_holm is not None:
            kept = "stands" if found.corrected in CLEAR else "does not stand"
            what = "This" if found.verdict in CLEAR else "A difference"
            told.append(
                f"{what} {kept} after a correction for the number of rows compared (p {chance(found.p_holm)}, Holm)."
            )
    blind = row.against_blind
    if table.blind and blind and blind.spread:
        told.append(
            f"Against {table.blind}, the strongest row that sees no target image: "
            f"{mean_and_interval(blind.spread, table.unit)}, {_SAID.get(blind.verdict, blind.verdict)}."
        )
    return told


def chance(p: float) -> str:
    """A p-value as one reads it: ``= 0.042`` or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _amount(value: float, table: Comparison) -> str:
    unit = "points of " if table.unit == "%" else f"{table.unit} of " if table.unit else ""
    return f"{in_unit(abs(value), table.unit)} {unit}{table.metric}"


def table(material: Material) -> Section | None:
    """The table, to be sorted."""
    found = material.comparison
    if found is None:
        return None
    scored = {
        row.name: row.primary.mean for row in found.rows if row.primary and row.name not in material.bounds
    }
    best = max(scored, key=lambda name: material.better * scored[name]) if len(scored) > 1 else None
    metric = found.metric if found.unit == "%" else f"{found.metric} ({found.unit})"
    data: dict[str, Any] = {"table": found, "best": best, "metric": metric, "footnotes": footnotes(found)}
    data["bounds"] = material.bounds
    measures = [(row.name, [row.measures.get(name) for name in found.measures]) for row in found.rows]
    return Section("table", "Table", "table.html", data | {"measures": measures})


def seeds(material: Material) -> Section | None:
    """Scores of every seed."""
    found = material.comparison
    spreads = [row.primary for row in found.rows if row.primary] if found else []
    if found is None or not spreads:
        return None
    values = [value for spread in spreads for value in spread.values.values()]
    scale = _Scale(min(values), max(values), found.unit, margin=0.06)
    lines = [
        (row.name, row.primary, scale.marks(row.primary) | {"width": 0} if row.primary else {})
        for row in found.rows
    ]
    data = {"lines": lines, "seeds": material.seeds, "scale": scale, "table": found, "best": material.better}
    return Section("seeds", "Scores of every seed", "seeds.html", data)


def differences(material: Material) -> Section | None:
    """Paired differences from the baseline, and from the strongest row that sees no target image."""
    found = material.comparison
    if found is None:
        return None
    tables = []
    for base, name in ((found.baseline, "against"), (found.blind, "against_blind")):
        kept: list[tuple[str, Difference]] = [
            (row.name, d) for row in found.rows if (d := getattr(row, name)) is not None and d.spread
        ]
        if base and kept:
            limit = reach([d.spread for _, d in kept if d.spread])
            scale = _Scale(-limit, limit, found.unit)
            tables.append((base, [(row, d, scale.marks(d.spread)) for row, d in kept], scale))
    if not tables:
        return None
    return Section(
        "differences", "Paired differences", "differences.html", {"tables": tables, "table": found}
    )


def classes(material: Material) -> Section | None:
    """Classes as a heat map of differences from the baseline."""
    found = material.comparison
    if found is None or not found.classes:
        return None
    rows = {row.name: row.against.classes for row in found.rows if row.against}
    values = [v for cells in rows.values() for v in cells.values() if v is not None]
    most = sorted(map(abs, values))[int(0.95 * (len(values) - 1))] if values else 0.0
    base = next(row for row in found.rows if row.name == found.baseline)

    def cell(value: float | None) -> tuple[float | None, float]:
        """A value, and its shade from -1 (worse) to 1 (better)."""
        shade = 0.0 if value is None or not most else max(-1.0, min(1.0, material.better * value / most))
        return value, round(shade, 3)

    lines = [(name, [cell(cells.get(one)) for one in found.classes]) for name, cells in rows.items()]
    data = {"table": found, "base": [base.classes.get(one) for one in found.classes], "lines": lines}
    return Section("classes", "Classes", "classes.html", data)


class _Scale:
    """Numbers as percentages of the width of a cell."""

    def __init__(self, low: float, high: float, unit: str, margin: float = 0.0) -> None:
        room = margin * (high - low) or (0.5 if high == low else 0.0)
        self.low, self.high, self.unit = low - room, high + room, unit

    def at(self, value: float) -> float:
        """Where a number is, held within the cell."""
        return round(100 * max(0.0, min(1.0, (value - self.low) / (self.high - self.low))), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions and numbers at the ends and in the middle."""
        return [
            (self.at(v), in_unit(v, self.unit)) for v in (self.low, (self.low + self.high) / 2, self.high)
        ]

    def marks(self, found: Spread | None) -> dict[str, Any]:
        """Positions of the seeds, the mean and the interval of a number; ``beyond`` where the mean is off the scale."""
        if found is None:
            return {}
        low, high = (found.mean if end is None else end for end in (found.low, found.high))
        start, end = self.at(low), self.at(high)
        return {
            "dots": [(seed, value, self.at(value)) for seed, value in found.values.items()],
            "mean": self.at(found.mean),
            "start": start,
            "width": round(end - start, 2),
            "beyond": (found.mean > self.high) - (found.mean < self.low),
        }


def _score(found: Spread | None, unit: str) -> str:
    if found is None:
        return "-"
    value = f"{in_unit(found.mean, unit)}{' ' + unit if unit else ''}"
    return value + ("" if found.std is None else f" ± {in_unit(found.std, unit)}")
