"""Commands about data sets: what there is, how to get it, whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from tadp_da.api_options import names_of
from tadp_da.cli.options import (
    AllowOverlap,
    Classes,
    Data,
    DepthUnit,
    IgnoreIndex,
    Images,
    Labels,
    Legend,
    MaxDepth,
    Model,
    Preset,
    Sets,
    SkipBad,
    out,
)
from tadp_da.errors import DataError, UsageError
from tadp_da.terminal import print_json, tracked


def data_list(
    name: Annotated[str, typer.Argument(help="A data set, for how to get it; none for a list.")] = "",
) -> None:
    """List the data sets that are known by name, or say where one comes from and how its folder must look.

    Example: `tadp-da data list cityscapes`
    """
    from tadp_da.domains import domains

    if name:
        domain = domains[name]
        out.print(f"{domain.name}: {domain.fetch}")
        return
    table = Table(
        Column("name", no_wrap=True), "labels", "classes", "splits", "style", box=None, header_style="bold"
    )
    for known in domains:
        domain = domains[known]
        splits = ", ".join(f"{s} {domain.counts[s]}" if s in domain.counts else s for s in domain.splits)
        task, count = (domain.labels.task, len(domain.labels.classes)) if domain.labels else ("none", 0)
        table.add_row(
            known, task, str(count), splits, f"{domain.description.style} {domain.description.medium}".strip()
        )
    out.print(table)


def data_legend(
    masks: Annotated[Path, typer.Argument(help="Folder of masks.")],
    out_file: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new file; else it is printed.")
    ] = None,
) -> None:
    """Write a first legend from the values or colours that masks hold, for `--legend`. Edit its names.

    Example: `tadp-da data legend day/masks --out legend.yaml`
    """
    from tadp_da.domains.formats.legend import draft_legend

    text = draft_legend(masks)
    if out_file is None:
        out.print(text, end="")
        return
    try:
        out_file.parent.mkdir(parents=True, exist_ok=True)
        with out_file.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError("the file exists", where=out_file, fix="name a new one") from error
    out.print(f"The legend is in {out_file}; edit the names in it, and give it as --legend {out_file}.")


def data_check(
    images: Images,
    labels: Labels = None,
    classes: Classes = "",
    legend: Legend = None,
    ignore_index: IgnoreIndex = None,
    depth_unit: DepthUnit = None,
    max_depth: MaxDepth = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split. Repeatable.")] = None,
    data: Data = Path("data"),
    model: Model = "mini",
    preset: Preset = "",
    sets: Sets = None,
    partial: Annotated[bool, typer.Option(help="A part of the data set is enough.")] = False,
    skip_bad: SkipBad = False,
    allow_overlap: AllowOverlap = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Open every image and label of a data set: counts, sizes, classes, what is wrong and how to fix it.

    Boxes that are too small to be learned from are counted at the size at which `--model` would be trained.

    Example: `tadp-da data check day/images day/masks --classes sky,road,car`, or `tadp-da data check cityscapes --data
    data`
    """
    from benchmarks.custom import preset_for
    from tadp_da.datasets import find
    from tadp_da.domains.checks.validate import AS_STORED, check_data

    source, _ = find(
        images,
        data,
        labels=labels,
        classes=names_of(classes),
        legend=legend,
        ignore=255 if ignore_index is None else ignore_index,
        **{k: v for k, v in (("depth_unit", depth_unit), ("max_depth", max_depth)) if v is not None},
    )
    boxes = source.domain.labels is not None and source.domain.labels.task == "detection"
    report = check_data(
        source.domain,
        source.root,
        splits=split or (),
        partial=partial,
        skip_bad=skip_bad,
        allow_overlap=allow_overlap,
        tracked=tracked,
        working=_working(preset or preset_for(model, "detection"), sets) if boxes else AS_STORED,
    )
    if as_json:
        print_json(report.as_json())
    else:
        out.print(*report.lines(), sep="\n")
    if not report.ok:
        raise typer.Exit(DataError.exit_code)


def _working(preset: str, sets: list[str] | None) -> Any:
    """The size at which a preset's settings train."""
    from benchmarks.custom import read_preset
    from tadp_da.domains.checks.validate import Working

    inference = read_preset(preset, tuple(sets or ())).inference
    bounds = [f"inference.{k}={v}" for k in ("short", "long", "squash") if (v := getattr(inference, k))]
    named = f"the size of {preset}'s settings ({', '.join(bounds) or 'that of the image'})"
    return Working(inference.size, named)
