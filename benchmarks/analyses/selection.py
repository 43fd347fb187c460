"""Which row to take when there are no labels to choose by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.analyses import Cell, Findings, Given, Needs, analyses
from benchmarks.experiment import Experiment
from benchmarks.recipe import Recipe
from benchmarks.reports.statistics import BASELINE
from benchmarks.selection import scores
from benchmarks.selection.predictions import Predicting, Predictions
from benchmarks.selection.ranking import (
    Candidate,
    Judgement,
    choose,
    judge,
    ranked,
    read_record,
    so_far,
    write_record,
)
from tadp_da import model_files
from tadp_da.datasets import resolve
from tadp_da.errors import DataError, UsageError
from tadp_da.provenance import learned_from
from tadp_da.run import Run
from tadp_da.settings import STRICT
from tadp_da.types import Detections, LabelSpace, Unlabeled

_Pair = tuple[Predictions, Predictions | None]
"""What a model predicts on target images, and on source images."""


@analyses.add("selection")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Selection:
    """Ranks the rows of a table by how well their models agree, on unlabelled target images that none of them has
    learned from, with themselves and with each other (:mod:`benchmarks.selection.scores`).

    Attributes:
        share: of the unlabelled images, where the recipe holds out none.
        images: at most so many.
        guard: how far a row's source score may lie below that of ``null``.
        source_images: about so many of the source's test images are predicted too, for ATC; 0 for none.
        record: JSON file to note in how right the ranking is, for tables with test labels.
        batch: images of one size in one forward pass.
    """

    needs: ClassVar[Needs] = "table"

    share: Annotated[float, Field(gt=0, lt=1)] = 1 / 3
    images: Annotated[int, Field(ge=1)] = 100
    guard: Annotated[float, Field(ge=0)] = 5.0
    source_images: Annotated[int, Field(ge=0)] = 50
    record: Path | None = None
    batch: Annotated[int, Field(ge=1)] = 8

    def __call__(self, given: Given, run: Run) -> Findings:
        """Rank, choose, and judge where there are test labels."""
        cells = [cell for cell in given.cells() if cell.recipe["train_on"] == "source"]
        rows: dict[str, list[Cell]] = {}
        for cell in cells:
            rows.setdefault(cell.row, []).append(cell)
        if len(rows) < 2:
            raise UsageError(
                f"{len(rows)} rows that are not trained on target labels leave nothing to choose",
                fix="fill the table with at least two",
            )
        images = self._images(cells[0], given, run)
        predicted = {name: self._predict(found, given, run, images) for name, found in rows.items()}
        found = self._candidates(rows, predicted, images)
        measured = next((e.main for c in cells if (e := c.report.primary)), None)
        higher = measured is None or measured.higher_is_better
        found = ranked(found, self.guard, higher=higher)
        judged = judge(found, higher=higher)
        if self.record is not None:
            if measured is None or "all" not in judged:
                raise UsageError("there are no test scores to judge the ranking by", fix="omit record")
            write_record(self.record, given.title, measured.name, judged)
        return _findings(found, judged, images, self.guard)

    def _images(self, cell: Cell, given: Given, run: Run) -> Unlabeled:
        """Unlabelled target images that are held out."""
        recipe = Recipe.from_mapping(cell.recipe)
        source = resolve(recipe.target or recipe.source, given.data, recipe.limit)
        if "unlabeled" not in source.domain.splits or not len(source.images("unlabeled")):
            raise DataError(
                "the target of this table has no unlabelled images to choose by",
                where=source.root,
                fix="name a target with an `unlabeled` split",
            )
        source = source.checked(["unlabeled"], run)
        held_out = source.part(recipe.held_out or self.share, held_out=True).images("unlabeled")
        return (held_out or source.images("unlabeled"))[: self.images]

    def _predict(self, cells: Sequence[Cell], given: Given, run: Run, images: Unlabeled) -> dict[int, _Pair]:
        """Predictions of the models of one row, by seed."""
        experiment = Experiment(Recipe.from_mapping(cells[0].recipe), run, given.data)
        captions = experiment.captions(images, "unlabeled", run)
        common: dict[str, Any] = {"run": run, "batch": self.batch}
        found = {
            c.seed: Predicting(model=c.model, images=images, captions=captions, **common)() for c in cells
        }
        masks = all(p.confidence is not None for p in found.values())
        if not masks or not self.source_images or not experiment.source.has("test"):
            return {seed: (predictions, None) for seed, predictions in found.items()}
        tests = experiment.source.images("test")
        tests = tests[:: max(1, len(tests) // self.source_images)]
        common |= {"images": tests, "captions": experiment.captions(tests, "test", run), "side": "source"}
        return {c.seed: (found[c.seed], Predicting(model=c.model, jittered=False, **common)()) for c in cells}

    def _candidates(
        self,
        rows: Mapping[str, Sequence[Cell]],
        predicted: Mapping[str, Mapping[int, _Pair]],
        images: Unlabeled,
    ) -> list[Candidate]:
        table = {
            row: {seed: target for seed, (target, _) in seeds.items()} for row, seeds in predicted.items()
        }
        first = next(iter(rows.values()))[0]
        labels = model_files.parse(LabelSpace, model_files.read(first.model)["labels"])
        boxes = isinstance(table[first.row][first.seed].plain[0], Detections)
        score = scores.boxes(table, labels) if boxes else scores.masks(table, len(labels.classes))
        return [
            Candidate(
                row=name,
                scores=score[name],
                further={} if boxes else _further(found, predicted[name]),
                source=_measure(found, "source"),
                test=_measure(found, found[0].report.primary_name),
                seen=max(_seen(c.model, images) for c in found),
                kinds=_kinds(found[0].recipe),
            )
            for name, found in rows.items()
        ]


def _further(cells: Sequence[Cell], predicted: Mapping[int, _Pair]) -> dict[str, float | None]:
    """Scores that rank nothing: means over the seeds."""
    found: dict[str, list[float | None]] = {"information": [], "ATC": []}
    for cell in cells:
        target, source = predicted[cell.seed]
        if report := cell.report.evaluations.get("source"):
            shares = [sum(row) for row in report.details.get("confusion", [])]
            found["information"].append(scores.information(target, shares or None))
            accuracy = report.measure("pixel accuracy")
            if source is not None and accuracy is not None:
                found["ATC"].append(scores.estimated_accuracy(target, source, accuracy.value))
    return {name: scores.mean(values) for name, values in found.items()}


def _measure(cells: Sequence[Cell], evaluation: str) -> float | None:
    return scores.mean([e.main.value for c in cells if (e := c.report.evaluations.get(evaluation))])


def _seen(model: Path, images: Unlabeled) -> int:
    known = learned_from(model)
    return sum(images.digests.get(path) in known for path in images.paths)


def _kinds(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    objectives = " + ".join(each["name"] for each in recipe.get("objectives", ()))
    return (
        f"personalize {recipe['personalize']['name']}",
        f"source {recipe.get('source_style', {}).get('name', 'original')}",
        f"objectives {objectives or 'supervised'}",
    )


def _findings(
    found: Sequence[Candidate], judged: Mapping[str, Judgement], images: Unlabeled, guard: float
) -> Findings:
    chosen = choose(found)
    order = sorted(found, key=lambda c: (c.rank is None, c.rank or 0))
    ranking = [
        {"row": c.row, "rank": c.rank, **c.scores, **c.further, "source": c.source}
        | {"flagged": c.flagged, "images seen": c.seen, "chosen": c is chosen}
        | ({"test": c.test} if c.test is not None else {})
        for c in order
    ]
    tables = {"ranking": ranking}
    text = [_told(order, chosen, images, guard)]
    if judged:
        tables["judged by test labels"] = [{"kind": kind} | vars(j) for kind, j in judged.items()]
        whole = judged.get("all")
        if whole:
            rho = "" if whole.spearman is None else f"Spearman {whole.spearman:+.2f} with the test scores, "
            text.append(
                f"Judged by test labels over {whole.rows} rows: {rho}regret {whole.regret:.1f} (best: {whole.best})."
            )
    text.append(so_far(read_record()))
    facts = {"chosen": chosen.row if chosen else None, "judged": {k: vars(j) for k, j in judged.items()}}
    return Findings(text=" ".join(text), tables=tables, facts=facts | {"images": len(images)})


def _told(order: Sequence[Candidate], chosen: Candidate | None, images: Unlabeled, guard: float) -> str:
    """The choice in plain words."""
    if chosen is None:
        parts = ["No row can be chosen: nothing ranks them, or all are flagged."]
    else:
        names = ", ".join(name for name in chosen.scores if all(c.scores[name] is not None for c in order))
        parts = [f"By {names} on {len(images)} unlabelled target images the choice is {chosen.row}."]
        null = next((c for c in order if c.row == BASELINE), None)
        if null is not None and null is not chosen:
            parts.append(
                f"Keeping null remains a choice: its rank is {null.rank:.1f}, that of {chosen.row} {chosen.rank:.1f}."
            )
    if all(c.flagged is None for c in order):
        lack = (
            "the source has no scores of labelled test images"
            if any(c.row == BASELINE for c in order)
            else f"there is no row {BASELINE} to lose against"
        )
        parts.append(f"No row is kept from being chosen: {lack}.")
    if flagged := [c.row for c in order if c.flagged]:
        parts.append(
            f"Not chosen, for the source score is more than {guard:g} below null's: {', '.join(flagged)}."
        )
    if seen := [f"{c.row} ({c.seen})" for c in order if c.seen]:
        parts.append(
            f"Rows that have learned from some of these images, which flatters them: {', '.join(seen)}; "
            "fill the table with --set held_out=0.33 for a fair ranking."
        )
    return " ".join(parts)
