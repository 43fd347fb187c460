"""Time and memory of a Stable Diffusion 1.5 of random weights as a perception backbone, without its real weights:

    python -m benchmarks.profiling.full_size

measures one forward pass and one training step, each in a process of its own, beside a bare call of the network and
beside plain eager attention with all maps, which is what the published code does. The rounds interleave all cases, and
ratios are medians over rounds of what one round measured, so that a machine that is busy at times does little harm.
A round takes about a quarter of an hour on two cores, and 9 GiB.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from benchmarks.profiling.full_size_cases import CASES, Bench
from benchmarks.profiling.measure import MIB, Cost, apart, machine, options_of
from benchmarks.reports.tables import grid
from tadp_da.errors import UsageError
from tadp_da.registry import nearest

Rounds = Mapping[str, Sequence[Cost]]


class Goal(NamedTuple):
    """A ratio of two cases that should not exceed ``most``."""

    title: str
    case: str
    reference: str
    of: Literal["seconds", "extra_bytes"]
    most: float


GOALS = (
    Goal("features with maps / bare call, time", "ours", "bare", "seconds", 1.05),
    Goal("features with maps / eager, time", "ours", "eager", "seconds", 0.6),
    Goal("features with maps / eager, extra memory", "ours", "eager", "extra_bytes", 0.25),
    Goal("features with maps in bf16 / eager in fp32, time", "ours-bf16", "eager", "seconds", 0.3),
    Goal("training step / eager, time", "step", "step-eager", "seconds", 0.55),
    Goal("training step in bf16 autocast / eager in fp32, time", "step-bf16", "step-eager", "seconds", 0.55),
    Goal(
        "training step with LoRA and checkpointing / eager, extra memory",
        "step-lora-checkpointing", "step-eager", "extra_bytes", 1 / 3,
    ),
)  # fmt: skip


def run(names: Sequence[str], bench: Bench, repeat: int) -> Rounds:
    """Measure every case once per round."""
    rounds: dict[str, list[Cost]] = {name: [] for name in names}
    for _ in range(repeat):
        for name in names:
            rounds[name].append(apart(bench.cost, CASES[name]))
    return rounds


def table(rounds: Rounds) -> str:
    """Markdown: what every case took, then the ratios that have a goal."""

    def median(name: str, field: str) -> float:
        return statistics.median(getattr(cost, field) for cost in rounds[name])

    cases = [
        [CASES[n].title, f"{median(n, 'seconds'):.2f}", f"{median(n, 'cpu_seconds'):.2f}",
         f"{median(n, 'extra_bytes') / MIB:.0f}"]
        for n in rounds
    ]  # fmt: skip
    ratios = []
    for goal in GOALS:
        if goal.case in rounds and goal.reference in rounds:
            found = [
                getattr(ours, goal.of) / max(getattr(theirs, goal.of), 1e-9)
                for ours, theirs in zip(rounds[goal.case], rounds[goal.reference], strict=True)
            ]
            middle, spread = statistics.median(found), f"{min(found):.2f} to {max(found):.2f}"
            met = "met" if middle <= goal.most else "missed"
            ratios.append([goal.title, f"{middle:.2f}", spread, f"{goal.most:.2f}", met])
    found_cases = grid(["case", "wall s", "CPU s", "MiB above the weights"], cases)
    return "\n\n".join(
        [found_cases, *([grid(["ratio", "found", "spread", "goal", ""], ratios)] * bool(ratios))]
    )


def select(only: Sequence[str] | None) -> list[str]:
    """Names of cases that are one of ``only`` or start with one and a dash.

    Raises:
        UsageError: when one names none.
    """
    asked = only or CASES
    for word in asked:
        if not any(f"{name}-".startswith(f"{word}-") for name in CASES):
            raise UsageError(
                f"there is no case {word!r}{nearest(word, list(CASES))}",
                fix=f"choose from: {', '.join(CASES)}",
            )
    return [name for name in CASES if any(f"{name}-".startswith(f"{word}-") for word in asked)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and, if asked for, write."""
    parser = options_of(
        "benchmarks.profiling.full_size", "Time and memory of Stable Diffusion 1.5 at full size."
    )
    parser.add_argument("--size", type=int, default=512, help="side of the image, a multiple of 64")
    parser.add_argument("--repeat", type=int, default=3, help="rounds over all cases")
    parser.add_argument(
        "--only", nargs="+", metavar="CASE", help=f"these, or all that start so: {', '.join(CASES)}"
    )
    parser.add_argument("--channels-last", action="store_true", help="the backbone's setting, for ours")
    parser.add_argument("--tiny", action="store_true", help="next to no width: only to see that it works")
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args(arguments)
    fields = {name: getattr(options, name) for name in ("size", "device", "tiny", "channels_last")}
    report = table(run(select(options.only), Bench(**fields), options.repeat))
    report += (
        f"\n\n{'Tiny stand-in' if options.tiny else 'Stable Diffusion 1.5'}, batch 1, {options.size} px, "
        f"{options.repeat} rounds, {machine(options.device)} Training steps are without the optimizer's."
    )
    print(report)
    if options.out:
        options.out.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
