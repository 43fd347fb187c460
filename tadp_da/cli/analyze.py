"""The command for analyses of finished models and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tadp_da.api_options import open_run
from tadp_da.cli.options import Data, Device, Precision, Seed, Sets, SkipBad, out


def analyze(
    name: Annotated[str, typer.Argument(help="Which analysis, e.g. selection.")],
    folders: Annotated[list[Path], typer.Argument(help="Model folders, or the run folder of a table.")],
    table: Annotated[str, typer.Option(help="Which table of the run folder, where it has several.")] = "",
    images: Annotated[str, typer.Option(help="Folder of images, one image, or a name of `data list`.")] = "",
    labels: Annotated[Path | None, typer.Option(help="Labels of a folder of images.")] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="Caption file of the images.", show_default="the model's captioner writes them"),
    ] = None,
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the findings.", show_default="beside the table, or runs/NAME"
        ),
    ] = None,
    data: Data = Path("data"),
    sets: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Look at finished models or tables; nothing is trained. `selection` says which row to take without labels; what
    text does to a model is shown by `off-target`, `image-variation`, `attention`, `alignment` and `oracle-quality`.

    Examples: `tadp-da analyze selection runs/benchmarks --table mini-night`,
    `tadp-da analyze off-target runs/model --images mini-day`
    """
    from benchmarks.analyses import Given, analyses
    from benchmarks.suite import table_folder
    from tadp_da.settings import build_settings

    analysis = build_settings(analyses[name], {}, tuple(sets or ()), where=name)
    given = Given(
        folders=tuple(folders), table=table, images=images, labels=labels, captions=captions, data=data
    )
    given.check(analysis.needs)
    about_table = analysis.needs == "table"
    place = out_folder or (table_folder(folders[0], given.title) if about_table else Path("runs")) / name
    options = {"seed": seed, "device": device, "precision": precision, "skip_bad": skip_bad}
    run = open_run(folders[0] if about_table else place, options)
    findings = analysis(given, run)
    written = findings.write(place)
    out.print(findings.text)
    out.print(f"Findings: {written}")
