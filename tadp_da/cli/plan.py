"""Commands that train nothing: the cost of a benchmark, and the paper's results beside ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tadp_da.api_options import names_of
from tadp_da.cli.options import Precision, Sets, out
from tadp_da.errors import UsageError

if TYPE_CHECKING:
    from benchmarks.cost.estimate import Cost

_GB = 2**30


def benchmark_table(
    folder: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder of `benchmark run` with our results.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Settings of our results: paper, repo, ours.")] = "ours",
) -> None:
    """The paper's tables 1 to 5: every row with its result in the paper, and ours or `not run`.

    Example: `tadp-da benchmark table --out runs/benchmarks --variant paper`
    """
    from benchmarks.reports.paper import VARIANTS, beside_ours
    from benchmarks.reports.paper_tables import TABLES

    found = next((known for known in VARIANTS if known == variant), None)
    if found is None:
        raise UsageError(f"unknown variant {variant!r}", fix=f"choose one of: {', '.join(VARIANTS)}")
    if folder is not None and not folder.is_dir():
        fix = "give the run folder of benchmark run"
        raise UsageError("there is no such run folder", where=folder, fix=fix)
    for table in TABLES:
        out.print(beside_ours(table, found, folder))
        out.print(*(f"  {remark}" for remark in table.remarks), sep="\n")
        names = " ".join(dict.fromkeys(f"{c.target}-{variant}" for c in table.columns))
        out.print(f"  Recipes: {names}\n")


def plan(
    recipe: Annotated[str, typer.Argument(help="A name from `benchmark list`, or your own YAML file.")],
    row: Annotated[
        str, typer.Option(help="The row whose training step is shown; the first by default.")
    ] = "",
    rows: Annotated[str, typer.Option(help="Count the hours of these rows only.")] = "",
    gpu: Annotated[str, typer.Option(help="A100, H100, V100, L4, T4, RTX-4090 or RTX-3090.")] = "A100",
    tflops: Annotated[
        float | None, typer.Option(help="Peak of another GPU in half precision.", min=1e-3)
    ] = None,
    utilisation: Annotated[
        float, typer.Option(help="Fraction of the peak that is reached.", min=0.01, max=1)
    ] = 0.1,
    precision: Precision = "auto",
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 1,
    image: Annotated[str, typer.Option(help="Size of images of unknown size, HEIGHTxWIDTH.")] = "375x500",
    sets: Sets = None,
) -> None:
    """Estimate the cost of a benchmark: parameters, operations of a training step, memory, hours.

    Nothing is downloaded, and only shapes are computed.

    Example: `tadp-da plan nighttime-driving-ours --row dreambooth --gpu A100 --precision bf16 --seeds 3`
    """
    from benchmarks.cost.estimate import Planner, Work, precision_on, throughput, whole
    from benchmarks.recipe import read_benchmark
    from benchmarks.reports.tables import Grid

    speed = throughput(gpu, tflops, utilisation, precision)
    table = read_benchmark(recipe, tuple(sets or ())).only(names_of(rows))
    name = row or next(iter(table.rows))
    planner = Planner(_size(image), precision_on(gpu, precision))
    chosen = table.only((name,)).rows[name]
    _show(f"{table.name} / {name} on {chosen.model}", planner.cost(chosen))
    stages = ("personalize", "adapt", "evaluate")
    work = whole(table, planner, seeds)
    total = {stage: sum((each[stage] for each in work.values()), Work()) for stage in stages}
    lines = []
    for label, each in (*work.items(), ("all rows", total)):
        values = [speed.hours(each[stage]) for stage in stages]
        lines.append([label, *map(_hours, (*values, sum(values)))])
    out.print(Grid("Hours (estimate)", ["row", *stages, "all"], lines).rich())
    peak = f"a peak of {tflops:g} TFLOPS in half precision" if tflops else f"{gpu}'s peaks"
    half = "full" if speed.mixed == speed.rest else "half"
    out.print(
        f"Training and evaluation at {speed.mixed / 1e12:.3g} TFLOPS, in {half} precision (--precision {precision}); "
        f"encoding before training at {speed.rest / 1e12:.3g}, always in full precision: {utilisation:.0%} of {peak}, "
        f"which is assumed and not measured. {seeds} seed(s). Not included: captions, previews, reading and augmenting "
        "images, which may take longer than the GPU, and what a detector does depending on image content. "
        f"Images of unknown size are assumed to be {image}.",
        soft_wrap=False,
    )


def _hours(value: float) -> str:
    return f"{value:.2g}" if 0 < value < 0.005 else f"{value:.2f}"


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        fix = "write HEIGHTxWIDTH, for example --image 720x960"
        raise UsageError(f"--image {text!r} is not a size", fix=fix)
    return int(found[1]), int(found[2])


def _show(title: str, cost: Cost) -> None:
    """Parameters, operations and memory of one row."""
    shown = Table(title=f"{title} (estimate)", title_justify="left", show_header=False)
    for part, number in (*cost.parameters.items(), ("trained", cost.trained)):
        shown.add_row("parameters", part, f"{number / 1e6:.1f} M")
    height, width = cost.size
    step = f"{cost.passes} x {cost.batch} images of {height}x{width}"
    shown.add_row("one training step", "of", step)
    shown.add_row("one training step", "frozen image encoder", f"{cost.encoding / 1e12:.2f} TFLOP")
    shown.add_row("one training step", "network and head, both ways", f"{cost.training / 1e12:.2f} TFLOP")
    for part, size in cost.memory.items():
        shown.add_row("memory in training", part, f"{size / _GB:.2f} GB")
    total = sum(cost.memory.values())
    shown.add_row("memory in training", "all", f"{total / _GB:.2f} GB, without workspaces of kernels")
    out.print(shown)
    out.print(
        "Activations are the peak of what a step holds beside its gradients; attention is fused where no map is read. "
        "A teacher and its target images come on top.",
        soft_wrap=False,
    )
