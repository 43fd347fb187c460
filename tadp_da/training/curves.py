"""A figure of what objectives reported over a training, from its ``metrics.jsonl``."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path


def plot_facts(metrics: Path, path: Path) -> bool:
    """Write a PNG with one curve per fact over steps; facts named ``panel/curve`` share a panel, all others another.

    Returns:
        False, and nothing is written, when there are no facts.
    """
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    panels: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name, value in line.get("facts", {}).items():
            panel, _, curve = name.rpartition("/")
            panels[panel][curve].append((line["step"], value))
    panels[""].pop("fallback", None)
    if not any(panels.values()):
        return False
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"text.parse_math": False, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
        for axes, (title, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for index, (name, points) in enumerate(curves.items()):
                style = ("-", "--", ":")[index // 10 % 3]
                axes.plot(*zip(*points, strict=True), style, lw=1, color=f"C{index % 10}", label=name)
            axes.set(title=title or "pixels", xlabel="step")
            axes.set_ylim(bottom=0)
            axes.legend(fontsize=6)
        figure.savefig(path, dpi=120)
    return True
