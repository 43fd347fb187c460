"""The command that trains a small student on a model's predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tadp_da.cli.options import (
    Captioner,
    Captions,
    Data,
    Device,
    Fallback,
    Precision,
    Seed,
    Sets,
    SkipBad,
    Split,
    TrackerName,
    out,
    report_if_complete,
)


def distill(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(help="The teacher: a model folder from `adapt`, `run` or `benchmark run`.")
    ],
    images: Annotated[
        str, typer.Option(help="Unlabelled target images: a folder, or a name of `data list`.")
    ],
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="Folder of the student.")],
    student: Annotated[
        str, typer.Option(help="lraspp-mobilenet-v3, segformer-b0 or fasterrcnn-mobilenet-v3.")
    ] = "lraspp-mobilenet-v3",
    weights: Annotated[
        str,
        typer.Option(
            help="Weights that the student starts from: a file, a folder, a name that it knows, or random.",
            show_default="its pretrained ones, or random ones where those cannot be had",
        ),
    ] = "",
    labelled: Annotated[
        str | None, typer.Option(help="Labelled source images: a folder, or a name of `data list`.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Their labels, for a folder.")] = None,
    captions: Captions = None,
    captioner: Captioner = "",
    sets: Sets = None,
    split: Split = "",
    data: Data = Path("data"),
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    tracker: TrackerName = "none",
    skip_bad: SkipBad = False,
    caption_fallback: Fallback = "",
) -> None:
    """Train a small network on what a model predicts on unlabelled target images.

    Example: `tadp-da distill runs/model --images dusk/images --out runs/student --set steps=2000`
    """
    from tadp_da.api_distillation import distill as train

    given = {k: v for k, v in context.params.items() if k != "out_folder"} | {"sets": tuple(sets or ())}
    with report_if_complete(out_folder):
        train(**given, out=out_folder)
    out.print(
        f"The student is in {out_folder}, a model like any other. Try it: tadp-da predict {out_folder} IMAGES "
        f"--out predictions; tadp-da export {out_folder} student.onnx"
    )
