"""What fills a table: its rows at its seeds. For several processes: in which order, so that none waits
for a concept that another learns."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.objectives import objectives
from benchmarks.experiment import Experiment
from benchmarks.recipe import Recipe
from tadp_da.run import Run
from tadp_da.storage.files import locked


@dataclass(frozen=True)
class Cell:
    """One row at one seed."""

    table: str
    name: str
    place: int
    seed: int
    recipe: Recipe
    data: Path
    varying: tuple[str, ...]

    def experiment(self, run: Run) -> Experiment:
        """The row's recipe at its seed."""
        return Experiment(self.recipe, run.with_seed(self.seed), self.data)

    def note(self, experiment: Experiment) -> dict[str, Any]:
        """What is noted of it, but where its report is."""
        facts: dict[str, Any] = {
            "table": self.table,
            "row": self.name,
            "place": self.place,
            "seed": self.seed,
        }
        facts |= {"made_of": experiment.facts(), "varying": list(self.varying)}
        facts["command"] = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        return facts | {"recipe": self.recipe.as_json()}

    @property
    def concept(self) -> tuple[Any, ...] | None:
        """Equal for the cells of a table that share a concept; None for rows without one."""
        recipe = self.recipe
        if recipe.personalize.name == "none":
            return None
        return self.seed, repr(recipe.personalize), recipe.target_images, recipe.held_out

    @property
    def images(self) -> int:
        """Images that pass through the network while it is fine-tuned: its time, roughly."""
        adapt = self.recipe.adapt
        reads_target = any("target" in objectives[each.name].streams for each in self.recipe.objectives)
        return adapt.steps * (adapt.batch + (adapt.target_batch or adapt.batch) * reads_target)


@dataclass(frozen=True)
class SharedConcept:
    """The concept of several cells. Several processes learn it as a task of its own, and run other rows meanwhile."""

    of: Cell

    def __call__(self, run: Run) -> str:
        """Learn it, or find it; it says what it was."""
        self.of.experiment(run).personalization()()
        return f"concept of {self.of.name}, seed {self.of.seed}"


Task = Cell | SharedConcept


def for_several(cells: Sequence[Cell]) -> list[Task]:
    """Tasks for several processes, seed by seed: first the concepts that several rows share, then the longest rows."""
    found: list[Task] = []
    for seed in dict.fromkeys(cell.seed for cell in cells):
        those = sorted((c for c in cells if c.seed == seed), key=lambda cell: -cell.images)
        keys = [cell.concept for cell in those]
        shared = {cell.concept: cell for cell in those if cell.concept and keys.count(cell.concept) > 1}
        found += [*map(SharedConcept, shared.values()), *those]
    return found


def next_task(left: Sequence[Task], running: Sequence[Task], lock: Callable[[Cell], Path]) -> int | None:
    """Index of the task for a free process: the first whose concept is not being learned just now; those that another
    command works on, whose lock file it holds, come last. None when all wait for a concept."""
    in_the_making = {task.of.concept for task in running if isinstance(task, SharedConcept)}

    def is_ready(task: Task) -> bool:
        return not isinstance(task, Cell) or task.concept not in in_the_making

    def is_free(task: Task) -> bool:
        return not isinstance(task, Cell) or _is_free(lock(task))

    ready = [i for i, task in enumerate(left) if is_ready(task)]
    return next((i for i in ready if is_free(left[i])), ready[0] if ready else None)


def in_turn(cells: Sequence[Cell], lock: Callable[[Cell], Path]) -> Iterator[Cell]:
    """Cells for one process, in their order; those that another command works on come last."""
    left = list(cells)
    while left:
        yield left.pop(next_task(left, [], lock) or 0)


def _is_free(lock: Path) -> bool:
    # nobody holds a file that is not there, and its folder may not be either
    if not lock.exists():
        return True
    with suppress(TimeoutError), locked(lock, patience=0):
        return True
    return False
