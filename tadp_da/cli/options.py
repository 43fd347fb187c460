"""Options and small helpers that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tadp_da.distributed.processes import is_main
from tadp_da.errors import UsageError
from tadp_da.terminal import TextConsole

out = TextConsole(quiet=not is_main())

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for artifacts, tables and pictures.")]
Seed = Annotated[int, typer.Option(help="Every random number is a function of it.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    str, typer.Option(help="Mixed precision: no, bf16, fp16; auto is bf16 on GPUs that have it.")
]
TrackerName = Annotated[
    str, typer.Option("--tracker", help="Also log to tensorboard or wandb.", show_default="none")
]
Data = Annotated[Path, typer.Option(help="Folder of the data sets; the drawn world is drawn into it.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: --set adapt.steps=100. Repeatable.")
]
Seeds = Annotated[str, typer.Option(help="Seeds: 0,1,2 or 0 1 2.")]
Jobs = Annotated[int, typer.Option(help="Rows at a time; with several GPUs each takes its own.", min=1)]
Processes = Annotated[
    int, typer.Option(help="Processes that share the work here; with GPUs each takes its own.", min=1)
]
Model = Annotated[str, typer.Option(help="Diffusion model: mini (embedded), a diffusers folder, a hub id.")]
Images = Annotated[str, typer.Argument(help="Folder of images, or a name of `data list`.")]
Labels = Annotated[
    Path | None,
    typer.Argument(help="Folder of masks, depth maps, VOC XML, YOLO or labelme files, or a COCO JSON file."),
]
TargetLabelled = Annotated[
    Path | None, typer.Option(help="Folder of a few labelled target images that join the source's.")
]
TargetLabels = Annotated[
    Path | None, typer.Option(help="Their masks, depth maps, VOC XML, YOLO or labelme files, or a COCO file.")
]
Classes = Annotated[
    str,
    typer.Option(help="Class names by id: sky,road,car; -NAME leaves out boxes of NAME."),
]
Legend = Annotated[
    Path | None, typer.Option(help="What values or colours of masks mean: YAML file, or CVAT's labelmap.txt.")
]

DepthUnit = Annotated[
    float | None,
    typer.Option(
        help="Metres that a stored depth of 1 means: 0.001 for millimetres.",
        show_default="0.001 for whole numbers, 1 for fractions",
    ),
]
MaxDepth = Annotated[
    float | None,
    typer.Option(help="Metres beyond which depths do not count.", show_default="10, or the model's"),
]


def _ignored(given: Any) -> int | str:
    text = str(given)  # a file of options gives a number
    if text != "none" and not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is not a mask value; give a number, or none")
    return text if text == "none" else int(text)


IgnoreIndex = Annotated[
    Any,
    typer.Option(
        "--ignore-index",
        parser=_ignored,
        metavar="VALUE",
        help="Mask value that counts neither in training nor in scores, or none.",
        show_default="255, or what the model was trained with",
    ),
]
Split = Annotated[
    str, typer.Option(help="Split of a registered data set.", show_default="what suits the command")
]
Captions = Annotated[
    Path | None,
    typer.Option(help="JSON file, metadata.jsonl or .csv, or folder of texts; else the captioner is asked."),
]
_CAPTIONER = "Captioner for images without captions."
Captioner = Annotated[str, typer.Option(help=_CAPTIONER, show_default="the model's")]
NewCaptioner = Annotated[str, typer.Option(help=_CAPTIONER, show_default="what suits the model")]
Preset = Annotated[str, typer.Option(help="Settings to start from: mini, stable-diffusion, or a YAML file.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Continue without images that cannot be used, and list them.")
]
AllowOverlap = Annotated[
    bool, typer.Option("--allow-overlap", help="Score although test images are among those learned from.")
]
Fallback = Annotated[
    str, typer.Option("--caption-fallback", help="For images without a caption: class-names; else an error.")
]


class ManySeeds(TyperCommand):
    """A command whose ``--seeds`` takes its numbers with commas or blanks between them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join ``--seeds 0 1 2`` to ``--seeds 0,1,2`` first."""
        joined: list[str] = []
        for arg in args:
            if joined[-2:-1] == ["--seeds"] and arg.isdecimal():
                joined[-1] += f",{arg}"
            else:
                joined.append(arg)
        return super().parse_args(ctx, joined)


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds from text such as ``0,1,2``.

    Raises:
        UsageError: when it is not a list of different whole numbers.
    """
    try:
        seeds = tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(
            f"--seeds {text!r} is not a list of different whole numbers",
            fix="write for example --seeds 0,1,2",
        )
    return seeds


@contextmanager
def report_if_complete(folder: Path) -> Iterator[None]:
    """Around what makes a folder: afterwards report if there was nothing left to make."""
    from tadp_da.storage.artifacts import is_complete

    there = is_complete(folder)
    yield
    if there:
        out.print(f"already complete: {folder}")
