"""Time and memory of a Stable Diffusion 1.5 of random weights as a perception backbone, without its real weights:

    python -m benchmarks.profiling.full_size

measures one forward pass and one training step, each in a process of its own, beside a bare call of the network and
beside plain eager attention with all maps, which is what the published code does. The rounds interleave all cases, and
ratios are medians over rounds of what one round measured, so that a machine that is busy now and then does little harm.
A round takes about a quarter of an hour on two cores, and 9 GiB.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.profiling.full_size_cases import CASES, Bench
from benchmarks.profiling.measure import MIB, Cost, apart
from tadp_da.errors import UsageError
from tadp_da.registry import nearest

Rounds = Mapping[str, Sequence[Cost]]


@dataclass(frozen=True)
class Goal:
    """A ratio of two cases that is not to be exceeded."""

    says: str
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
    words = [f"--size={bench.size}", f"--device={bench.device}"]
    words += ["--tiny"] * bench.tiny + ["--no-channels-last"] * (not bench.channels_last)
    rounds: dict[str, list[Cost]] = {name: [] for name in names}
    for _ in range(repeat):
        for name in names:
            rounds[name].append(Cost(**apart("benchmarks.profiling.full_size", [f"--case={name}", *words])))
    return rounds


def table(rounds: Rounds) -> str:
    """Markdown: what every case took, then the ratios that have a goal."""
    lines = ["| case | wall s | CPU s | MiB above the weights |", "| --- | ---: | ---: | ---: |"]
    for name, costs in rounds.items():
        wall, cpu, extra = (
            statistics.median(getattr(cost, key) for cost in costs)
            for key in ("seconds", "cpu_seconds", "extra_bytes")
        )
        lines.append(f"| {CASES[name].says} | {wall:.2f} | {cpu:.2f} | {extra / MIB:.0f} |")
    goals = [goal for goal in GOALS if goal.case in rounds and goal.reference in rounds]
    if goals:
        lines += ["", "| ratio | found | spread | goal | |", "| --- | ---: | ---: | ---: | --- |"]
    for goal in goals:
        found = _ratios(rounds, goal)
        middle = statistics.median(found)
        spread = f"{min(found):.2f} to {max(found):.2f}"
        met = "met" if middle <= goal.most else "missed"
        lines.append(f"| {goal.says} | {middle:.2f} | {spread} | {goal.most:.2f} | {met} |")
    return "\n".join(lines)


def _ratios(rounds: Rounds, goal: Goal) -> list[float]:
    return [
        getattr(ours, goal.of) / max(getattr(theirs, goal.of), 1e-9)
        for ours, theirs in zip(rounds[goal.case], rounds[goal.reference], strict=True)
    ]


def _chosen(only: Sequence[str] | None) -> list[str]:
    """Names of cases that are one of ``only`` or start with one and a dash.

    Raises:
        UsageError: when one names none.
    """
    if not only:
        return list(CASES)
    for word in only:
        if not any(name == word or name.startswith(f"{word}-") for name in CASES):
            raise UsageError(
                f"there is no case {word!r}{nearest(word, list(CASES))}",
                fix=f"choose from: {', '.join(CASES)}",
            )
    return [name for name in CASES if any(name == w or name.startswith(f"{w}-") for w in only)]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profiling.full_size",
        description="Time and memory of Stable Diffusion 1.5 at full size.",
    )
    parser.add_argument("--size", type=int, default=512, help="side of the image, a multiple of 64")
    parser.add_argument("--repeat", type=int, default=3, help="rounds over all cases")
    parser.add_argument(
        "--only", nargs="+", metavar="CASE", help=f"these, or all that start so: {', '.join(CASES)}"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the backbone's setting, for ours",
    )
    parser.add_argument("--tiny", action="store_true", help="next to no width: only to see that it works")
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and, where asked for, write."""
    options = _parse(arguments)
    bench = Bench(
        size=options.size, device=options.device, tiny=options.tiny, channels_last=options.channels_last
    )
    if options.case:
        print(bench.cost(CASES[options.case]).as_json())
        return
    names = _chosen(options.only)
    said = table(run(names, bench, options.repeat))
    where = (
        torch.cuda.get_device_name(bench.device) if bench.device.startswith("cuda") else platform.processor()
    )
    said += (
        f"\n\n{'Tiny stand-in' if bench.tiny else 'Stable Diffusion 1.5'}, batch 1, {bench.size} px, "
        f"{options.repeat} rounds, {bench.device} {where}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}. Training steps are without the optimizer's."
    )
    print(said)
    if options.out:
        options.out.write_text(said + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
