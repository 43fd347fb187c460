"""Commands about data sets: what there is, how to get it, whether it is whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from tadp_da.cli.options import AllowOverlap, SkipBad, names_of, out
from tadp_da.errors import DataError, UsageError

OWN = ("images", "masks", "voc-xml", "coco")
"""Names for folders of one's own, beside those of the registry."""


def data_list(
    name: Annotated[str, typer.Argument(help="A data set, for how to get it; none for a list.")] = "",
) -> None:
    """List the data sets that are known by name, or say where one comes from and how its folder must look.

    Example: `tadp-da data list cityscapes`
    """
    from tadp_da.domains import domains

    if name:
        domain = domains[name]
        out.print(f"{domain.name}: {domain.fetch}", highlight=False, soft_wrap=True)
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


def data_check(
    name: Annotated[
        str, typer.Argument(help="A name of `data list`; or images, masks, voc-xml, coco for your own.")
    ],
    root: Annotated[
        Path, typer.Argument(help="Folder that holds the data set; of your own, the folder of pictures.")
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Of your own: folder of masks, folder of XML, or COCO file.")
    ] = None,
    classes: Annotated[str, typer.Option(help="Of your own: class names in the order of their ids.")] = "",
    split: Annotated[list[str] | None, typer.Option(help="Only this split. Repeatable.")] = None,
    partial: Annotated[bool, typer.Option(help="A part of the data set will do.")] = False,
    skip_bad: SkipBad = False,
    allow_overlap: AllowOverlap = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Open every picture and label of a data set: counts, sizes, classes, what is wrong and how to mend it.

    Example: `tadp-da data check masks day/images --labels day/masks --classes sky,road,car`
    """
    from tadp_da.domains.checks.validate import check_data

    domain = _own(name, root, labels, names_of(classes)) if name in OWN else name
    report = check_data(
        domain,
        root,
        splits=split or (),
        partial=partial,
        skip_bad=skip_bad,
        allow_overlap=allow_overlap,
        tracked=_tracked,
    )
    if as_json:
        sys.stdout.write(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
    else:
        for line in report.lines():
            out.print(line, highlight=False, markup=False, soft_wrap=True)
    if not report.ok:
        raise typer.Exit(DataError.exit_code)


def _own(name: str, images: Path, labels: Path | None, classes: tuple[str, ...]) -> Any:
    from tadp_da.domains.formats.coco import coco_domain
    from tadp_da.domains.formats.folder import folder_domain
    from tadp_da.domains.formats.voc_folder import voc_domain

    if name == "images":
        return folder_domain(images.name, images=images)
    if labels is None:
        raise UsageError(f"{name} was given no labels", fix="give them with --labels PATH")
    if name == "masks":
        return folder_domain(images.name, images=images, masks=labels, classes=classes)
    if name == "voc-xml":
        return voc_domain(images.name, images=images, annotations=labels, classes=classes)
    return coco_domain(images.name, images=images, annotations=labels, classes=classes)


def _tracked(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    from rich.progress import track

    if not sys.stderr.isatty():
        return items
    return track(items, total=total, description=what, console=Console(stderr=True), transient=True)
