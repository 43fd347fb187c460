"""Commands for single stages: parse, call :mod:`tadp_da.api`, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tadp_da import api
from tadp_da.api_options import images_of, names_of, open_run
from tadp_da.cli.options import (
    AllowOverlap,
    Captioner,
    Captions,
    Classes,
    Data,
    DepthUnit,
    Device,
    Fallback,
    IgnoreIndex,
    Images,
    Labels,
    Legend,
    MaxDepth,
    Model,
    NewCaptioner,
    Out,
    Precision,
    Preset,
    Processes,
    Seed,
    Sets,
    SkipBad,
    Split,
    TargetLabelled,
    TargetLabels,
    TrackerName,
    out,
    report_if_complete,
)
from tadp_da.distributed.processes import count, relaunch
from tadp_da.errors import UsageError


def personalize(
    context: typer.Context,
    images: Images,
    out_folder: Out,
    method: Annotated[str, typer.Option(help="textual-inversion or dreambooth.")] = "textual-inversion",
    word: Annotated[
        str, typer.Option(help="The new word; `<target>` or, for DreamBooth, `sks` when not given.")
    ] = "",
    like: Annotated[str, typer.Option(help="Known words that textual inversion starts from.")] = "photo",
    model: Model = "mini",
    captions: Annotated[
        Path | None, typer.Option(help="Caption file, for templates that hold {caption}.")
    ] = None,
    sets: Sets = None,
    split: Split = "",
    data: Data = Path("data"),
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    tracker: TrackerName = "none",
    skip_bad: SkipBad = False,
    processes: Processes = 1,
) -> None:
    """Learn a concept of an unlabelled domain: a word, or a word and weights.

    Example: `tadp-da personalize photos/dusk --word "<dusk>" --like dark --out runs/dusk --set steps=300`
    """
    relaunch(processes)
    with report_if_complete(out_folder):
        concept = api.personalize(**_arguments(context))
    shown = ", with an image of samples before and after" * (out_folder / "before_after.png").exists()
    out.print(f"The concept is in {out_folder}{shown}; {concept.prompt_advice}.")


def _arguments(context: typer.Context) -> dict[str, Any]:
    """The options of a command as arguments of its function in :mod:`tadp_da.api`, which has the same names."""
    given = {k: v for k, v in context.params.items() if k not in ("processes", "out_folder")}
    given |= {"sets": given["sets"] or ()} if "sets" in given else {}
    return given | {"out": context.params["out_folder"]}


def caption(
    images: Images,
    out_file: Annotated[
        Path, typer.Option("--out", "-o", help="Caption file (JSON); a half-done one is finished.")
    ],
    captioner: Annotated[str, typer.Option(help="mini (embedded), a BLIP-2 folder, or a hub id.")] = "mini",
    clean: Annotated[
        bool, typer.Option(help="Also write `<out>.clean.json` without bullets and style phrases.")
    ] = False,
    sets: Sets = None,
    split: Split = "",
    data: Data = Path("data"),
    device: Device = "auto",
    skip_bad: SkipBad = False,
    processes: Processes = 1,
) -> None:
    """Caption every image of a folder with BLIP-2.

    Example: `tadp-da caption photos/dusk --out dusk.json`
    """
    relaunch(processes)
    from tadp_da.captions import captioner as captioners
    from tadp_da.captions.clean import clean_all
    from tadp_da.captions.files import CaptionFile
    from tadp_da.settings import build_settings

    run = open_run(out_file.parent, {"device": device, "skip_bad": skip_bad})
    pictures = images_of(images, run, split=split, data=data)
    model = captioners.Captioner.from_pretrained(
        captioner, build_settings(captioners.CaptionerSettings, {}, tuple(sets or ())), run.torch_device
    )
    report = captioners.caption_images(pictures, model, out_file, run)
    out.print(*report.lines(), sep="\n")
    if clean:
        file = CaptionFile.read(out_file)
        cleaned, changes = clean_all({key: entry.caption for key, entry in file.entries.items()})
        entries = {key: entry.with_caption(cleaned[key]) for key, entry in file.entries.items()}
        CaptionFile(out_file.with_suffix(".clean.json"), entries).write()
        out.print(*changes.lines(), sep="\n")


def rewrite(
    captions: Annotated[list[str] | None, typer.Argument(help="Captions, or none with --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="A caption file; its first captions are shown.")] = None,
    target: Annotated[str | None, typer.Option(help="A registered domain whose words are used.")] = None,
    style: Annotated[str, typer.Option(help="Simple words of the target, e.g. 'dark night'.")] = "dark night",
    medium: Annotated[str, typer.Option(help="What target pictures are, e.g. photo, painting.")] = "photo",
    word: Annotated[str | None, typer.Option(help="A concept's word, e.g. `<night>` or `sks`.")] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="Strategy or template; repeatable. All when none.")
    ] = None,
    classes: Annotated[str, typer.Option(help="Class names, e.g. car,person.")] = "",
) -> None:
    """Show what each caption strategy makes of captions. Changes nothing.

    Example: `tadp-da rewrite "a car on a street" --style "dark night" --word "<night>"`
    """
    from tadp_da.captions.files import CaptionFile
    from tadp_da.captions.rewrite import rewrite_rows
    from tadp_da.domains import domains
    from tadp_da.types import DomainDescription

    texts = list(captions or ())
    if file is not None:
        texts += [entry.caption for entry in list(CaptionFile.read(file).entries.values())[:5]]
    words = domains[target].description if target else DomainDescription(style=style, medium=medium)
    table = Table("strategy", "side", "prompt", box=None, header_style="bold")
    for row in rewrite_rows(texts, words, names=strategy or (), word=word, classes=names_of(classes)):
        table.add_row(row.strategy, row.side, row.prompt or (f"({row.note})" if row.note else ""))
    out.print(table)


def adapt(
    context: typer.Context,
    images: Images,
    out_folder: Out,
    labels: Labels = None,
    classes: Classes = "",
    legend: Legend = None,
    ignore_index: IgnoreIndex = None,
    depth_unit: DepthUnit = None,
    max_depth: MaxDepth = None,
    target_labelled: TargetLabelled = None,
    target_labels: TargetLabels = None,
    concept: Annotated[Path | None, typer.Option(help="Concept folder from `personalize`.")] = None,
    strategy: Annotated[str, typer.Option(help="Caption strategy or template.")] = "null",
    style: Annotated[str, typer.Option(help="Simple words of the target domain.")] = "",
    medium: Annotated[str, typer.Option(help="What target images are.")] = "photo",
    captions: Captions = None,
    captioner: NewCaptioner = "",
    model: Model = "mini",
    preset: Preset = "",
    sets: Sets = None,
    split: Split = "",
    data: Data = Path("data"),
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    tracker: TrackerName = "none",
    skip_bad: SkipBad = False,
    caption_fallback: Fallback = "",
    processes: Processes = 1,
) -> None:
    """Fine-tune the (personalized) backbone and a head on labelled source images.

    Example: `tadp-da adapt day/images day/masks --classes sky,road,car --concept runs/dusk --strategy dreambooth
    --out runs/model --set adapt.steps=400`
    """
    relaunch(processes)
    with report_if_complete(out_folder):
        api.adapt(**_arguments(context))
    out.print(f"The model is in {out_folder}. Try it: tadp-da predict {out_folder} IMAGES --out predictions")


def evaluate(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model folder from `adapt`, `run` or `benchmark run`.")],
    images: Images,
    out_folder: Out,
    labels: Labels = None,
    classes: Classes = "",
    legend: Legend = None,
    ignore_index: IgnoreIndex = None,
    depth_unit: DepthUnit = None,
    max_depth: MaxDepth = None,
    captions: Captions = None,
    captioner: Captioner = "",
    sets: Sets = None,
    split: Split = "",
    data: Data = Path("data"),
    device: Device = "auto",
    precision: Precision = "auto",
    tracker: TrackerName = "none",
    skip_bad: SkipBad = False,
    allow_overlap: AllowOverlap = False,
    caption_fallback: Fallback = "",
    processes: Processes = 1,
) -> None:
    """Score a model on labelled test images, at the labels' own resolution.

    Example: `tadp-da evaluate runs/model dusk/images dusk/masks --out runs/score`
    """
    from tadp_da.tasks import in_unit

    relaunch(processes)
    with report_if_complete(out_folder):
        report = api.evaluate(**_arguments(context))
    (found,) = report.evaluations.values()
    main = found.main
    table = Table("class", main.name, box=None, header_style="bold")
    for name, value in main.per_class.items():
        table.add_row(name, in_unit(value, main.unit))
    if not main.per_class:
        table = Table("measure", "value", "unit", box=None, header_style="bold")
        for each in found.further:
            table.add_row(each.name, in_unit(each.value, each.unit), each.unit)
    out.print(table)
    out.print(f"{main.name} {in_unit(main.value, main.unit)} {main.unit} over {found.images} images")


def predict(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model folder from `adapt`, `run` or `benchmark run`.")],
    images: Annotated[str, typer.Argument(help="An image, a folder of images, or a name of `data list`.")],
    out_folder: Out,
    attention: Annotated[
        str, typer.Option(help="Words of the prompt whose attention maps are drawn: car,road.")
    ] = "",
    caption: Annotated[str | None, typer.Option("--caption", help="One caption for every image.")] = None,
    captions: Captions = None,
    captioner: Captioner = "",
    split: Split = "",
    data: Data = Path("data"),
    device: Device = "auto",
    precision: Precision = "auto",
    skip_bad: SkipBad = False,
    caption_fallback: Fallback = "",
) -> None:
    """Predict: colour overlays, index masks, objects as JSON or depth maps, and attention maps of chosen words.

    Example: `tadp-da predict runs/model dusk/images --out predictions --attention car,road`
    """
    count = api.predict(**_arguments(context))
    kinds = {
        "overlays": "overlays",
        "masks": "index masks",
        "objects": "objects",
        "depth": "depth maps",
        "attention": "attention",
    }
    made = [
        f"{words} in {out_folder / kind}" for kind, words in kinds.items() if (out_folder / kind).is_dir()
    ]
    out.print(f"{count} images: {', '.join(made)}")


def refuse_alone(arguments: list[str]) -> None:
    """Refuse to run in several processes what cannot share its work.

    Raises:
        UsageError: naming the commands that can.
    """
    shared = [command.__name__ for command in (personalize, caption, adapt, evaluate)]
    if count() > 1 and arguments[:1] and arguments[0] not in shared:
        raise UsageError(
            f"tadp-da {arguments[0]} cannot share its work between {count()} processes",
            fix=f"start it without a launcher; those that can: {', '.join(shared)}",
        )
