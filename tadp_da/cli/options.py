"""Options and small helpers that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from tadp_da.distributed.processes import is_main, join
from tadp_da.errors import UsageError

out = Console(quiet=not is_main())

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for artifacts, tables and pictures.")]
Seed = Annotated[int, typer.Option(help="Every random number is a function of it.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[str, typer.Option(help="Mixed precision of training: no, bf16, fp16.")]
Data = Annotated[
    Path, typer.Option(help="Folder that holds the data sets; the drawn world is drawn into it.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: --set adapt.steps=100. Repeatable.")
]
Seeds = Annotated[str, typer.Option(help="Seeds: 0,1,2 or 0 1 2.")]
Jobs = Annotated[
    int, typer.Option(help="Rows that run at a time; with several GPUs each takes its own.", min=1)
]
Processes = Annotated[
    int,
    typer.Option(help="Processes that share the work on this machine; with GPUs each takes its own.", min=1),
]
Model = Annotated[
    str, typer.Option(help="Diffusion model: mini (embedded), a diffusers folder, or a hub id.")
]
Captioner = Annotated[
    str,
    typer.Option(
        help="Captioner for images without captions.", show_default="the one the model was trained with"
    ),
]
NewCaptioner = Annotated[
    str, typer.Option(help="Captioner for images without captions.", show_default="what suits the model")
]
Preset = Annotated[
    str, typer.Option(help="Settings to start from: mini, stable-diffusion, or your YAML file.")
]

SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be used, and list them.")
]
AllowOverlap = Annotated[
    bool, typer.Option("--allow-overlap", help="Score although test pictures are among the others.")
]
Fallback = Annotated[
    str,
    typer.Option(
        "--caption-fallback", help="For images that the caption file lacks: class-names; else an error."
    ),
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


def preset_for(model: str, *, boxes: bool = False) -> str:
    """Settings that suit the model's size and the labels, unless the user names others."""
    return ("mini" if model == "mini" else "stable-diffusion") + ("-boxes" if boxes else "")


def captioner_for(model: str) -> str:
    """The captioner that knows what the model knows: the embedded one knows only drawings."""
    return "mini" if model == "mini" else "blip2-opt-2.7b"


def open_run(
    folder: Path, seed: int = 0, device: str = "auto", precision: str = "no", **settings: bool
) -> Any:
    """The run that a command works in."""
    from tadp_da.run import Run

    run = Run(folder=folder, seed=seed, device=device, precision=precision, **settings)  # type: ignore[arg-type]
    join(run.torch_device)
    return run


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds from text such as ``0,1,2``.

    Raises:
        UsageError: when it is no list of different whole numbers.
    """
    try:
        seeds = tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(
            f"--seeds {text!r} is no list of different whole numbers", fix="write for example --seeds 0,1,2"
        )
    return seeds


def settings_of(cls: Any, sets: list[str] | None, **fields: Any) -> Any:
    """Settings of a class from fields and ``--set`` overrides."""
    from benchmarks.recipe import build_settings

    return build_settings(cls, {k: v for k, v in fields.items() if v is not None}, tuple(sets or ()))


def names_of(text: str) -> tuple[str, ...]:
    """Names from text such as ``sky,road``."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def pictures_in(folder: Path, run: Any = None) -> Any:
    """Every picture of a folder without labels; with a run, those that it may use."""
    from tadp_da.domains.checks.preflight import preflight
    from tadp_da.domains.formats.folder import folder_domain

    domain = folder_domain(folder.name, images=folder)
    return (preflight(domain, folder, ["unlabeled"], run) if run else domain).unlabeled(folder)


@contextmanager
def told_if_complete(folder: Path) -> Iterator[None]:
    """Around what makes a folder: afterwards say so if there was nothing left to make."""
    from tadp_da.storage.artifacts import is_complete

    there = is_complete(folder)
    yield
    if there:
        out.print(f"already complete: {folder}", highlight=False, soft_wrap=True)
