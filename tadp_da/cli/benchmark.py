"""Commands for the whole figure: the demo, your own data, tables over seeds."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer
from rich.table import Table

from tadp_da.api_options import names_of, open_run
from tadp_da.cli.config import Config, write_config
from tadp_da.cli.options import (
    AllowOverlap,
    Data,
    DepthUnit,
    Device,
    IgnoreIndex,
    Jobs,
    Legend,
    MaxDepth,
    Model,
    NewCaptioner,
    Out,
    Precision,
    Preset,
    Seed,
    Seeds,
    Sets,
    SkipBad,
    TargetLabelled,
    TargetLabels,
    TrackerName,
    out,
    seeds_of,
)
from tadp_da.errors import DataError, UsageError

Masks = Annotated[Path | None, typer.Option(help="Folder of their masks; test masks are only scored by.")]
Boxes = Annotated[
    Path | None,
    typer.Option(help="Or their boxes: folder of VOC XML, YOLO or labelme files, or a COCO file."),
]
Depth = Annotated[Path | None, typer.Option(help="Or their depth: folder of 16-bit PNG or NPY files.")]

_METHOD = (
    "Combination of personalization, source style and objectives, tried beside null and strong: null, strong, fourier, "
    "fourier-strong, dreambooth, dreambooth-strong, self-training, best, or another row of the preset."
)

Baseline = Annotated[
    str,
    typer.Option(
        help="The row that others are compared with; else null where it is one, or the first.",
        show_default=False,
    ),
]


def demo(
    out_folder: Out = Path("runs/demo"), data: Data = Path("data"), seed: Seed = 0, device: Device = "auto"
) -> None:
    """The whole figure on the embedded mini world in a few minutes: learn the night, adapt, score, draw.

    Example: `tadp-da demo`
    """
    from benchmarks.demo import run_demo

    run_demo(open_run(out_folder, {"seed": seed, "device": device}), data, out)


def run(
    context: typer.Context,
    source_images: Annotated[Path, typer.Option(help="Folder of labelled source images.")],
    target_images: Annotated[Path, typer.Option(help="Folder of unlabelled target images.")],
    target_style: Annotated[str, typer.Option(help="Simple words of the target, e.g. 'dark dusk'.")],
    config: Config = None,
    source_masks: Masks = None,
    source_boxes: Boxes = None,
    source_depth: Depth = None,
    classes: Annotated[str, typer.Option(help="Class names in the order of their ids: sky,road,car.")] = "",
    legend: Legend = None,
    ignore_index: IgnoreIndex = None,
    target_test_images: Annotated[
        Path | None, typer.Option(help="Target test images, not among the above.")
    ] = None,
    target_test_masks: Masks = None,
    target_test_boxes: Boxes = None,
    target_test_depth: Depth = None,
    depth_unit: DepthUnit = None,
    max_depth: MaxDepth = None,
    target_classes: Annotated[str, typer.Option(help="Classes of the test labels, where they differ.")] = "",
    target_legend: Legend = None,
    target_labelled: TargetLabelled = None,
    target_labels: TargetLabels = None,
    target_medium: Annotated[str, typer.Option(help="What kind of image the target has.")] = "photo",
    method: Annotated[
        str, typer.Option(help=_METHOD, show_default="the one that development targets favour")
    ] = "",
    rows: Annotated[
        str, typer.Option("--rows", "--strategies", help="Rows of the preset, instead of a method.")
    ] = "",
    out_folder: Out = Path("runs/own"),
    model: Model = "mini",
    captioner: NewCaptioner = "",
    preset: Preset = "",
    sets: Sets = None,
    seeds: Seeds = "0",
    jobs: Jobs = 1,
    device: Device = "auto",
    precision: Precision = "auto",
    tracker: TrackerName = "none",
    skip_bad: SkipBad = False,
    allow_overlap: AllowOverlap = False,
) -> None:
    """The whole figure on your own data: personalize, caption, adapt, and, with target test labels, score.

    Example: `tadp-da run --source-images day/images --source-masks day/masks --classes sky,road,car
    --target-images dusk/images --target-style "dark dusk"`, or, with a file of `tadp-da init`,
    `tadp-da run --config run.yaml`
    """
    write_config(context, out_folder)
    _run_own(SimpleNamespace(**context.params))


def _run_own(given: Any) -> None:
    from benchmarks.custom import custom_benchmark, method_rows, preset_for
    from benchmarks.publishing import models_of, publish_unscored
    from benchmarks.recipe import read_table
    from benchmarks.suite import SHOWN, run_suite, show_predictions, shown_images
    from tadp_da.custom_dataset import CustomDataset, custom_domain

    own = _own_data(given)
    labels = custom_domain(CustomDataset.checked(own["source"])).labels
    if labels is None:
        fix = "give --source-masks FOLDER, --source-boxes PATH or --source-depth FOLDER"
        raise UsageError("the source has no labels", fix=fix)
    if given.rows and given.method:
        raise UsageError("--method names a row, and --rows names them all", fix="omit one of them")
    preset, facts = given.preset or preset_for(given.model, labels.task), ("model", "captioner")
    if given.model == "mini" and "mini" not in (read_table(preset, "presets").get("models") or ["mini"]):
        logging.getLogger(__name__).warning(
            "the preset %s is not for the embedded model, which is what is trained without --model", preset
        )
    rows = names_of(given.rows) or method_rows(preset, given.method)
    choosing = given.target_test_images is None and len(rows) > 1
    table = custom_benchmark(
        rows=rows,
        preset=preset,
        sets=(*([f"held_out={1 / 3}"] if choosing else ()), *(given.sets or ())),
        **{name: getattr(given, name) for name in facts},
        **own,
    )
    options = ("device", "precision", "tracker", "skip_bad", "allow_overlap")
    run = open_run(given.out_folder, {name: getattr(given, name) for name in options})
    count = len(shown_images(next(iter(table.rows.values())), run))
    reports = run_suite(table, (seeds := seeds_of(given.seeds)), run, Path("data"), given.jobs)
    if given.target_test_images is not None:
        _publish(table.name, reports, run.folder)
    shown = show_predictions(table, min(seeds), run)
    out.print(f"Predictions on the first {min(SHOWN, count)} of {count} target images: {shown}")
    for row, models in models_of(reports, run.folder).items():
        out.print(f"Model of {row}: {', '.join(str(run.folder / name) for name in models.values())}")
    if choosing:
        _choose(table.name, run)
    if given.target_test_images is None:
        out.print(f"Report: {publish_unscored(run.folder, table.name, reports)}")


def _choose(name: str, run: Any) -> None:
    """Rank rows without labels, and say how right such rankings were so far."""
    from benchmarks.analyses import Given, analyses
    from benchmarks.suite import table_folder

    try:
        findings = analyses["selection"]()(Given(folders=(run.folder,), table=name), run)
    except UsageError as error:  # what was trained is no worse for it
        out.print("Rows are not ranked:", error.lines()[0])
        return
    written = findings.write(table_folder(run.folder, name) / "selection")
    out.print(findings.text)
    out.print(f"Ranking: {written}")


def _own_data(given: Any) -> dict[str, Any]:
    """Source and target of :func:`run`, and labelled target images."""
    from adapt.labelled_target import with_labels
    from tadp_da.custom_dataset import CustomDataset

    classes, ignore = names_of(given.classes), given.ignore_index
    source: dict[str, Any] = {"name": "source", "images": given.source_images, "masks": given.source_masks}
    source |= {"boxes": given.source_boxes, "depth": given.source_depth, "classes": classes}
    source |= {"legend": given.legend, "ignore": ignore}
    target: dict[str, Any] = {"name": "target", "images": given.target_images, "ignore": ignore}
    target |= {"style": given.target_style, "medium": given.target_medium}
    kinds = ("images", "masks", "boxes", "depth")
    tests = {f"test_{what}": getattr(given, f"target_test_{what}") for what in kinds}
    depth = {"depth_unit": given.depth_unit, "max_depth": given.max_depth}
    legend = given.target_legend or given.legend
    if any(tests.values()):
        target |= tests | {"classes": names_of(given.target_classes) or classes, "legend": legend}
    source, target = ({k: v for k, v in (x | depth).items() if v is not None} for x in (source, target))
    found: dict[str, Any] = {"source": source, "target": target}
    if given.target_labelled or given.target_labels:
        folder = with_labels(given.target_labelled, given.target_labels)
        few = CustomDataset.of(
            folder,
            given.target_labels,
            classes=classes,
            legend=legend,
            ignore=255 if ignore is None else ignore,
            **{name: value for name, value in depth.items() if value is not None},
        )
        found["target_labelled"] = dataclasses.replace(few, name="target-labelled")
    return found


def benchmark_list() -> None:
    """The benchmarks that come with the package, and what each shows.

    Example: `tadp-da benchmark list`
    """
    from benchmarks.recipe import read_benchmark, shipped

    table = Table("benchmark", "rows", "claim", header_style="bold")
    for name in shipped():
        found = read_benchmark(name)
        table.add_row(name, str(len(found.rows)), " ".join(found.claim.split()))
    out.print(table)


def benchmark_run(
    name: Annotated[str, typer.Argument(help="A name from `benchmark list`, or your own YAML file.")],
    data: Data = Path("data"),
    seeds: Seeds = "0,1,2",
    rows: Annotated[str, typer.Option(help="Only these rows.")] = "",
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many images of every split: a smoke run.", min=1)
    ] = None,
    model: Annotated[str, typer.Option(help="Another copy of the diffusion model than the recipe's.")] = "",
    captioner: Annotated[str, typer.Option(help="Another captioner than the recipe's.")] = "",
    out_folder: Out = Path("runs/benchmarks"),
    jobs: Jobs = 1,
    on: Annotated[
        str,
        typer.Option(
            help="Rows on a cluster: ray, ray:ADDRESS, slurm, slurm:KEY=VALUE,...", show_default="here"
        ),
    ] = "",
    sets: Sets = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tracker: TrackerName = "none",
    skip_bad: SkipBad = False,
    allow_overlap: AllowOverlap = False,
) -> None:
    """Fill a table over seeds. What is finished in the folder is not done again; commands that share it share the work.

    Example: `tadp-da benchmark run mini-night --seeds 0 1 2`, or, to check that everything is there,
    `tadp-da benchmark run nighttime-driving-ours --seeds 0 --limit 2 --set adapt.steps=1`
    """
    from benchmarks.recipe import read_benchmark
    from benchmarks.suite import run_suite

    given = {"model": model, "captioner": captioner, "limit": limit}
    table = read_benchmark(name, tuple(sets or ()), base={k: v for k, v in given.items() if v})
    table = table.only(names_of(rows))
    if limit is not None:  # its numbers are none of the table's
        table = dataclasses.replace(table, name=f"{table.name}-first-{limit}")
    options = {"device": device, "precision": precision, "tracker": tracker}
    run = open_run(out_folder, options | {"skip_bad": skip_bad, "allow_overlap": allow_overlap})
    if on and (device, precision) == ("auto", "auto") and run.torch_device.type == "cpu":
        logging.getLogger(__name__).warning(
            "--precision auto found no GPU on this machine, and rows train in full precision on all of them; for GPUs "
            "that have it, give --precision bf16"
        )
    _publish(table.name, run_suite(table, seeds_of(seeds), run, data, jobs, on), run.folder)


def compare(
    folder: Annotated[Path, typer.Argument(help="Run folder of `benchmark run` or `run`.")],
    name: Annotated[str, typer.Argument(help="Which benchmark in it.")],
    baseline: Baseline = "",
    without_class: Annotated[
        str, typer.Option(help="Compare by the mean over all classes but these: sky,road.")
    ] = "",
) -> None:
    """The table of what is finished: mean, spread, and paired differences with their confidence intervals, from the
    baseline and from the strongest row that sees no target image. Trains nothing.

    Example: `tadp-da compare runs/benchmarks mini-night`
    """
    from benchmarks.suite import load_results

    _publish(name, load_results(folder, name), folder, baseline, names_of(without_class))


def report(
    folder: Annotated[Path, typer.Argument(help="Run folder of `demo`, `run` or `benchmark run`.")],
    baseline: Baseline = "",
) -> None:
    """Write the report of every table in a folder again: one HTML file with scores, images, training and settings.
    Trains nothing.

    Example: `tadp-da report runs/benchmarks`
    """
    from benchmarks.publishing import publish, publish_unscored
    from benchmarks.reports.statistics import baseline_of
    from benchmarks.suite import load_results, table_folder, tables_in

    if not (names := tables_in(folder)):
        raise DataError(
            "no table of finished runs is there",
            where=folder,
            fix="give the folder that `run`, `benchmark run` or `demo` was given with --out",
        )
    for name in names:
        reports = load_results(folder, name)
        if any(found.evaluations for seeds in reports.values() for found in seeds.values()):
            chosen = baseline or baseline_of(reports)
            *_, page = publish(name, reports, table_folder(folder, name), chosen, table=(folder, name))
        else:
            page = publish_unscored(folder, name, reports)
        out.print(f"Report: {page}")


def _publish(
    name: str, reports: Any, folder: Path, baseline: str = "", without: tuple[str, ...] = ()
) -> None:
    from benchmarks.publishing import publish
    from benchmarks.reports.statistics import BASELINE, baseline_of
    from benchmarks.reports.tables import terminal, terminal_classes
    from benchmarks.suite import table_folder
    from tadp_da.storage.files import file_name

    # decided by what is there: another process may have made null by now, or not yet
    chosen = baseline or baseline_of(reports)
    title = name if chosen == BASELINE else f"{name}, compared with {chosen}"
    place = table_folder(folder, name)
    if without:  # beside the table of all classes, not in its place
        place = place / f"without-{file_name('-'.join(without))}"
    comparison, written, page = publish(title, reports, place, chosen, without, table=(folder, name))
    out.print(terminal(comparison))
    if comparison.classes:
        out.print(terminal_classes(comparison))
    panels = f"\nPanels: {written.panels}" if written.panels else ""
    out.print(f"Report: {page}\nTable: {written.markdown}\nPlot: {written.plot}{panels}")
