"""Fill a table: every row at every seed, what is finished is not done again; then compare and write it down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from reprlib import repr as shorten
from typing import Any

from adapt.stage import reads_target
from benchmarks.cells import Cell, SharedConcept, Task, for_several, in_turn, next_task
from benchmarks.clusters import run_on
from benchmarks.experiment import Experiment
from benchmarks.pipeline import reproduce
from benchmarks.recipe import Benchmark, Recipe, deciding
from benchmarks.results import Report
from benchmarks.workers import run_parallel
from personalize import personalizers
from tadp_da.attention_maps import IMAGES, save_maps
from tadp_da.captions.strategies import find
from tadp_da.datasets import resolve
from tadp_da.errors import DataError, UsageError
from tadp_da.prediction import predict_overlays, save_images
from tadp_da.run import Run
from tadp_da.settings import Choice
from tadp_da.storage.files import file_name, locked, write_json
from tadp_da.tasks import in_unit
from tadp_da.types import Unlabeled

Reports = Mapping[str, Mapping[int, Report]]
Note = Mapping[str, Any]
SHOWN = 24
"""Target images whose predictions a whole figure shows."""
_OF_A_ROW = frozenset(
    [
        "strategy",
        "sides",
        "personalize",
        "concept",
        "target_images",
        "target_labelled",
        "pretrained",
        "train_on",
    ]
)
"""Settings in which rows differ; in all others they do only where the benchmark's own rows do."""


def run_suite(
    benchmark: Benchmark, seeds: Sequence[int], run: Run, data: Path, jobs: int = 1, on: str = ""
) -> Reports:
    """Run every row at every seed and note where each report lies, so that several processes can share the work.

    Args:
        benchmark: the rows.
        seeds: training seeds; every row uses the same ones, so that differences are paired.
        run: folder, device, precision.
        data: folder of the registry's domains.
        jobs: rows that run at a time, each in a process of its own.
        on: a cluster that runs them instead, see :func:`benchmarks.clusters.run_on`.

    Returns:
        Reports of all rows and seeds of this name in the folder.

    Raises:
        UsageError: when the folder holds runs of this name with other settings or of other data; before anything is
            trained.
    """
    varying = _varying(benchmark.whole)
    cells = [
        Cell(benchmark.name, name, benchmark.order.index(name), seed, recipe, data, varying)
        for seed in seeds
        for name, recipe in benchmark.rows.items()
    ]
    known = read_notes(run.folder, benchmark.name)
    for cell in cells[: len(benchmark.rows)] if known else ():
        _refuse_unlike(run.folder, cell.table, [*known, cell.note(Experiment(cell.recipe, run, data))])
    lock = partial(_lock, run=run)
    if on:
        run_on(on, _run_task, [replace(cell, data=data.absolute()) for cell in cells], run, benchmark.name)
    elif jobs > 1:
        choose = partial(next_task, lock=lock)
        run_parallel(_run_task, for_several(cells), run, jobs, benchmark.name, choose)
    else:
        for number, cell in enumerate(in_turn(cells, lock), 1):
            with run.progress(1, f"{cell.table}, {number} of {len(cells)}") as advance:
                advance(_run_task(cell, run))
    return load_results(run.folder, benchmark.name)


def _run_task(cell: Task, run: Run) -> str:
    if isinstance(cell, SharedConcept):
        return cell(run)
    lock = _lock(cell, run)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock, f"{cell.name}, seed {cell.seed},"):
        return _fill(cell, run)


def _lock(cell: Cell, run: Run) -> Path:
    """Held by the command that works on it; others take other rows meanwhile."""
    return _notes(run.folder, cell.table) / f".{file_name(cell.name)}-{cell.seed}.lock"


def _fill(cell: Cell, run: Run) -> str:
    experiment = cell.experiment(run)
    report = reproduce(experiment)
    # a report lies at an absolute path, and --out may be a relative one
    lies = report.folder.relative_to(run.folder.absolute()).as_posix() if report.folder else ""
    folder = _notes(run.folder, cell.table)
    with locked(folder / ".lock"):  # another command may have filled the table with other settings meanwhile
        note = cell.note(experiment)
        _refuse_unlike(run.folder, cell.table, [*read_notes(run.folder, cell.table), note])
        write_json(folder / f"{file_name(cell.name)}-{cell.seed}.json", note | {"report": lies})
    main = report.primary.main if report.primary else None
    score = "" if main is None else f": {main.name} {in_unit(main.value, main.unit)}"
    return f"{cell.name}, seed {cell.seed}{score}"


def load_results(folder: Path, name: str, *, only: Mapping[str, Recipe] | None = None) -> Reports:
    """Reports of a benchmark that stand in a run folder, by row and seed, in the order of its table.

    Args:
        folder: run folder.
        name: of the benchmark.
        only: leave out reports of rows that were made with other settings than these, but for settings that change no
            result and where models and captions lie.

    Raises:
        DataError: when none does.
        UsageError: when they were made with different settings or of different data, and say nothing side by side.
    """
    notes = [
        n for n in read_notes(folder, name) if only is None or _same_config(n["recipe"], only.get(n["row"]))
    ]
    _refuse_unlike(folder, name, notes, _varying(only or {}))
    return _reports(folder, name, notes)


def _refuse_unlike(folder: Path, name: str, notes: Sequence[Note], varying: Sequence[str] = ()) -> None:
    """Refuse runs that were made with different settings or of different data: side by side they say nothing."""
    free = {*_OF_A_ROW, *varying}.union(*(note.get("varying", ()) for note in notes))
    seen: dict[Any, Any] = {}
    for note in notes:
        if clash := _find_conflict(note, seen, free):
            raise UsageError(
                f"the runs of {name!r} are not alike: {clash}",
                where=table_folder(folder, name),
                fix="use the settings and data it was made with, choose another --out, or delete that folder to fill "
                "the table anew: trained models stay, and those that fit are found again",
            )


def read_notes(folder: Path, name: str) -> list[Note]:
    """What is noted of every finished row and seed of a benchmark, in the order of its table."""
    notes = [json.loads(n.read_text(encoding="utf-8")) for n in _notes(folder, name).glob("*.json")]
    return sorted(notes, key=lambda note: (note["place"], note["row"], note["seed"]))


def _reports(folder: Path, name: str, notes: Sequence[Note]) -> Reports:
    found: dict[str, dict[int, Report]] = {}
    for told in notes:
        found.setdefault(told["row"], {})[int(told["seed"])] = read_report(folder, told)
    if not found:
        raise DataError(
            f"no finished run of {name!r}",
            where=folder,
            fix=f"run it first: tadp-da benchmark run {name} --out {folder}",
        )
    return found


def read_report(folder: Path, note: Note) -> Report:
    """The report of a note in a run folder."""
    return replace(Report.load(folder / note["report"]), sees_target=sees_target(note["recipe"]))


def sees_target(record: Mapping[str, Any]) -> bool | None:
    """Whether anything is learned from target images, labelled or not, by the recipe of a record, or prompts hold what
    is in their labels; None where its plug-ins are unknown here. Simple words that a person says about the target are
    no image."""
    try:
        chosen = [Choice(**each) for each in record.get("objectives", ())]
        style = Choice(**record.get("source_style", {"name": "original"}))
        personalizer = personalizers[record.get("personalize", {}).get("name", "none")]
        reads = personalizer.needs_images or reads_target(chosen, style)
        reads = reads or reads_test_labels(record)
    except UsageError:
        return None
    return bool(reads or record.get("target_labelled")) or record.get("train_on") == "target"


def reads_test_labels(record: Mapping[str, Any]) -> bool:
    """Whether the prompts of a record's recipe hold what is in the labels of its test images."""
    try:
        return find(record.get("strategy", "null")).reads_labels
    except UsageError:  # a plug-in that is unknown here
        return False


def _same_config(told: Mapping[str, Any], recipe: Recipe | None) -> bool:
    if recipe is None:
        return False
    # records of earlier versions lack settings that are None unless they are used
    one, other = ({k: v for k, v in _deciding(r).items() if v is not None} for r in (told, recipe.as_json()))
    return one == other


def _deciding(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a recipe's record by dotted name, without those that change no result or say where things are."""
    shown = {name: value for name, value in _flat(deciding(recipe)).items() if name != "caption_files"}
    for model in ("model", "captioner"):  # a path or a mirror is the same model, the embedded one is another
        shown[model] = shown.get(model) == "mini"
    return shown


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by name, those of nested settings by dotted name; a domain is one value however it is given."""
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        nested = isinstance(value, dict) and name not in ("source", "target", "caption_files")
        if nested and value.keys() == {"name", "settings"}:  # a choice
            value = {"name": value["name"], **value["settings"]}
        flat |= {f"{name}.{inner}": v for inner, v in value.items()} if nested else {name: value}
    return flat


def _varying(rows: Mapping[str, Recipe]) -> tuple[str, ...]:
    """Names of fields in which rows differ by design."""
    flats = [_flat(recipe.as_json()) for recipe in rows.values()]
    names = {name for flat in flats for name in flat}
    return tuple(sorted(n for n in names if any(flat.get(n) != flats[0].get(n) for flat in flats)))


def _facts(note: Note) -> Iterator[tuple[str, str, Any]]:
    """What should be the same in a table: name, what more it is about, value."""
    recipe, made = note["recipe"], note.get("made_of", {})  # notes of earlier versions do not say
    yield from ((name, "", value) for name, value in _deciding(recipe).items())
    named = {
        "precision": "precision",
        "caption_files": "caption_files",
        "model": "weights",
        "captioner": "captioner",
    }
    yield from ((name, kept, made[kept]) for name, kept in named.items() if kept in made)
    for split, found in made.get("data", {}).items():
        side = split.partition("/")[0]
        yield f"content of {split}", f"{recipe[side]} {recipe['limit']}", found


def _find_conflict(note: Note, seen: dict[Any, Any], free: set[str]) -> str:
    """In what a note differs from those seen before, in words. If in nothing, it is seen from now on.

    Args:
        note: of a row at a seed.
        seen: what is known, by row (empty for what all rows share) and fact.
        free: fields, or groups of them, that need only be the same at every seed of a row.
    """
    fresh: dict[Any, Any] = {}
    for name, of, value in _facts(note):
        own = name in free or name.partition(".")[0] in free
        key = (note["row"] if own else "", name, of)
        fresh[key] = value, f"row {note['row']} at seed {note['seed']}"
        known, where = seen.get(key, fresh[key])
        if known != value:
            if isinstance(known, Mapping) and isinstance(value, Mapping):  # a data set: which of its fields
                field = next(k for k in {**known, **value} if known.get(k) != value.get(k))
                name, known, value = f"{name}.{field}", known.get(field), value.get(field)
            return f"{name} is {shorten(value)} in {fresh[key][1]} and {shorten(known)} in {where}"
    seen.update(fresh)
    return ""


def shown_images(recipe: Recipe, run: Run) -> Unlabeled:
    """The unlabelled target images that predictions are shown on, looked at once. Rows that learn nothing from them do
    not look at them: called before the training, this finds what is wrong with them while nothing is spent yet."""
    if recipe.target is None:
        raise UsageError("the recipe has no target to predict", fix="name one")
    return resolve(recipe.target, Path(), recipe.limit).checked(["unlabeled"], run).images("unlabeled")


def show_predictions(table: Benchmark, seed: int, run: Run, most: int = SHOWN) -> Path:
    """Overlays of every row on the first unlabelled target images, for targets that have no labels to score by, and
    these images as they are."""
    for name, recipe in table.rows.items():
        experiment = Experiment(recipe, run.with_seed(seed), Path())
        model = experiment.adaptation(experiment.personalization()())()
        images = shown_images(recipe, run)[:most]
        folder = run.folder / "predictions" / f"seed-{seed}" / file_name(name)
        plain = run.folder / "predictions" / "images"
        for old in (folder, plain):
            shutil.rmtree(old, ignore_errors=True)  # of other images, perhaps
        save_images(images, plain)
        captions = experiment.captions(images, "unlabeled", run)
        predict_overlays(model.to(run.torch_device), images, captions, folder)
        keys = map(images.key, range(min(IMAGES, len(images))))
        save_maps(model, ((k, images[i], model.prompt(captions[k])) for i, k in enumerate(keys)), folder)
    return run.folder / "predictions" / f"seed-{seed}"


def tables_in(folder: Path) -> list[str]:
    """Names of the tables in a run folder."""
    notes = {note.parent: note for note in sorted(folder.glob("tables/*/rows/*.json"))}
    return [
        json.loads(note.read_text(encoding="utf-8")).get("table", rows.parent.name)
        for rows, note in notes.items()
    ]


def table_folder(folder: Path, name: str) -> Path:
    """Where the table of a benchmark and its notes are in a run folder."""
    return folder / "tables" / file_name(name)


def _notes(folder: Path, name: str) -> Path:
    return table_folder(folder, name) / "rows"
