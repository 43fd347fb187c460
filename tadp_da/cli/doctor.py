"""The command that checks the machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tadp_da.cli.options import Data, Out, out
from tadp_da.errors import EnvironmentSetupError

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

    with Console(stderr=True).status("running all tests once, about ten seconds"):
        report = examine(out=out_folder, data=data)
    if as_json:
        sys.stdout.write(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
    else:
        for line in report.lines():
            out.print(Text(line, style=_STYLES.get(line.split(" ")[0], "")), soft_wrap=True)
    if bundle is not None:
        report.bundle(bundle)
        Console(stderr=True).print(Text(f"bundle: {bundle}"), soft_wrap=True)
    if not report.ok:
        raise typer.Exit(EnvironmentSetupError.exit_code)
