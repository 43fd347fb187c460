"""The command that checks the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tadp_da.cli.options import Data, Out, out
from tadp_da.errors import EnvironmentSetupError
from tadp_da.terminal import TextConsole, print_json

_STYLES = {"ok": "green", "warn": "yellow", "red": "bold red", "off": "dim"}


def doctor(
    out_folder: Out = Path("runs"),
    data: Data = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Also write a zip for a bug report, without secrets and home paths."),
    ] = None,
) -> None:
    """Test what a run depends on (devices, attention kernels, 8-bit, folders, models) and explain how to fix failures.

    Nothing is downloaded. Exit code 0 if training can run here, 4 if not; optional parts do not change it.

    Example: `tadp-da doctor --bundle doctor.zip`
    """
    from tadp_da.doctor.report import examine

    errors = TextConsole(stderr=True)
    with errors.status("running all tests once, about ten seconds"):
        report = examine(out=out_folder, data=data)
    if as_json:
        print_json(report.as_json())
    else:
        for line in report.lines():
            out.print(line, style=_STYLES.get(line.split(" ")[0]))
    if bundle is not None:
        report.bundle(bundle)
        errors.print(f"bundle: {bundle}")
    if not report.ok:
        raise typer.Exit(EnvironmentSetupError.exit_code)
