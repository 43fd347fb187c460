"""What source styles and self-training add to a step of stage 2, in CPU time and memory:

    python -m benchmarks.profiling.adapt_speed --data DATA           # rows of mini-night, in turns

Every row trains with the same images and batch. The plain row encodes its images at every step, as rows with a style
must; what cached latents save is the second line.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from benchmarks.experiment import Experiment
from benchmarks.profiling.measure import MIB, apart, machine, options_of, peak_of
from benchmarks.recipe import Recipe, read_benchmark
from benchmarks.reports.tables import grid
from tadp_da.run import Advance, Run

ROWS = {
    "plain": "null",
    "plain, cached latents": "null",
    "strong": "strong",
    "fourier": "fourier",
    "histogram": "histogram",
    "self-training, half as many target images": "self-training",
    "self-training, as many": "self-training",
}
WARM = 3
"""Steps before the clock starts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Clocked(Run):
    """A run that notes the CPU time at every step of the fine-tuning."""

    times: list[float] = dataclasses.field(default_factory=list)

    @contextmanager
    def progress(self, total: int, description: str) -> Iterator[Advance]:
        """No bar, but the time."""

        def advance(_: str) -> None:
            if description == "fine-tuning":
                self.times.append(time.process_time())

        yield advance


def recipe_of(name: str, table: str, steps: int) -> Recipe:
    """The recipe of one of :data:`ROWS`, for so many steps with the teacher from the first on."""
    sets = [
        f"adapt.steps={steps}",
        f"adapt.cache_latents={str('cached' in name).lower()}",
        "adapt.checkpoint_every=0",
    ]
    if name.endswith("as many"):
        sets.append(f"adapt.target_batch={read_benchmark(table).rows['null'].adapt.batch}")
    recipe = read_benchmark(table, tuple(sets)).rows[ROWS[name]]
    early = [
        dataclasses.replace(each, settings={**each.settings, "start": 0})
        if "start" in each.settings
        else each
        for each in recipe.objectives
    ]
    return dataclasses.replace(recipe, objectives=tuple(early))


def seconds(name: str, table: str, data: Path, steps: int, device: str) -> tuple[float, int]:
    """CPU seconds of a step of one row, the median over the steps after the first, and the peak of memory above what
    was held before the training."""
    with tempfile.TemporaryDirectory() as folder:
        run = _Clocked(folder=Path(folder), device=device, quiet=True)
        experiment = Experiment(recipe_of(name, table, WARM + steps), run, data)
        training = experiment.adaptation(experiment.personalization()())
        peak = peak_of(torch.device(device))
        training()
        extra = peak()
    spans = [after - before for before, after in zip(run.times, run.times[1:], strict=False)]
    return median(spans[WARM - 1 :]), extra


def main(argv: list[str] | None = None, apart: Callable[..., tuple[float, int]] = apart) -> str:
    """Measure and return the report."""
    parser = options_of("benchmarks.profiling.adapt_speed", "What styles and self-training add to a step.")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--table", default="mini-night")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    given = parser.parse_args(argv)
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in given.only}
    for _ in range(given.rounds):
        for name, costs in found.items():
            costs.append(apart(seconds, name, given.table, given.data, given.steps, given.device))
    first = next(iter(found.values()))
    lines = []
    for name, costs in found.items():
        ratios = [[mine[i] / plain[i] for mine, plain in zip(costs, first, strict=True)] for i in (0, 1)]
        shown = [f"{median(cost[0] for cost in costs):.3f}", f"{median(cost[1] for cost in costs) / MIB:.0f}"]
        lines.append([name, shown[0], f"{median(ratios[0]):.2f}", shown[1], f"{median(ratios[1]):.2f}"])
    header = ["row", "CPU s a step", "of the first", "MiB more than before training", "of the first"]
    return f"{grid(header, lines)}\n\nMedian of {given.rounds} rounds of {given.steps} steps. {machine(given.device)}"


if __name__ == "__main__":
    print(main())
