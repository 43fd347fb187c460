"""Commands for single stages."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tadp_da.cli.options import (
    AllowOverlap,
    Captioner,
    Device,
    Fallback,
    Model,
    NewCaptioner,
    Out,
    Precision,
    Preset,
    Processes,
    Seed,
    Sets,
    SkipBad,
    captioner_for,
    names_of,
    open_run,
    out,
    pictures_in,
    preset_for,
    settings_of,
    told_if_complete,
)
from tadp_da.distributed.processes import count, is_main, relaunch
from tadp_da.errors import UsageError


def personalize(
    images: Annotated[Path, typer.Argument(help="Folder of unlabelled images of the target domain.")],
    out_folder: Out,
    method: Annotated[str, typer.Option(help="textual-inversion or dreambooth.")] = "textual-inversion",
    word: Annotated[
        str, typer.Option(help="The new word; <target> or, for DreamBooth, sks when not given.")
    ] = "",
    like: Annotated[str, typer.Option(help="Known words that textual inversion starts from.")] = "photo",
    model: Model = "mini",
    captions: Annotated[
        Path | None, typer.Option(help="Caption file, for templates that hold {caption}.")
    ] = None,
    sets: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "no",
    skip_bad: SkipBad = False,
    processes: Processes = 1,
) -> None:
    """Learn a concept of an unlabelled domain: a word, or a word and weights.

    Example: `tadp-da personalize photos/dusk --word "<dusk>" --like dark --out runs/dusk --set steps=300`
    """
    relaunch(processes)
    from benchmarks.evaluate import digests
    from benchmarks.own import captions_digest, contents
    from benchmarks.stages import write_provenance
    from personalize.settings import as_record
    from tadp_da.backbones import DEFAULT, load_backbone
    from tadp_da.captions.files import CaptionFile
    from tadp_da.concept import Concept
    from tadp_da.storage.artifacts import get_or_create

    personalizer = _personalizer(method, word, like, sets)
    run = open_run(out_folder, seed, device, precision, skip_bad=skip_bad)
    backbone = load_backbone(DEFAULT, model)
    inputs: dict[str, Any] = {"method": method, "settings": as_record(personalizer)}
    inputs |= {"captions": captions_digest(captions) if captions else None, "model": backbone.fingerprint}
    inputs |= {"seed": seed, "precision": precision, "skip_bad": skip_bad, "images": contents(images)}

    def make(folder: Path) -> None:
        here = run.inside(folder)
        unlabeled = pictures_in(images, here)
        texts = CaptionFile.read(captions).lookup(unlabeled) if captions else None
        known = digests(unlabeled)
        learned = personalizer(backbone.to(run.torch_device), unlabeled, here, texts)
        if is_main():
            learned.save(folder)
            write_provenance(folder, backbone, known)

    with told_if_complete(out_folder):
        concept = get_or_create(out_folder, inputs, make, Concept.load, may_change=("settings.steps",))
    word = (
        f"The concept's word is [bold]{concept.prompt_word}[/]. It" if concept.word else "It has no word. It"
    )
    shown = (
        ", with a picture of samples before and after" if (out_folder / "before_after.png").exists() else ""
    )
    out.print(f"{word} lies in {out_folder}{shown}.")


def _personalizer(method: str, word: str, like: str, sets: list[str] | None) -> Any:
    """A method with its settings: those that it has of the word and what it starts from, and the overrides."""
    from personalize import personalizers

    names = {f.name for f in dataclasses.fields(personalizers[method])}
    given = {"word": word or ("<target>" if "like" in names else "sks"), "like": like}
    return settings_of(personalizers[method], sets, **{k: v for k, v in given.items() if k in names})


def caption(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    out_file: Annotated[
        Path, typer.Option("--out", "-o", help="Caption file (JSON); a half-done one is finished.")
    ],
    captioner: Annotated[str, typer.Option(help="mini (embedded), a BLIP-2 folder, or a hub id.")] = "mini",
    clean: Annotated[
        bool, typer.Option(help="Also write <out>.clean.json without bullets and style phrases.")
    ] = False,
    sets: Sets = None,
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

    run = open_run(out_file.parent, device=device, skip_bad=skip_bad)
    pictures = pictures_in(images, run)
    model = captioners.Captioner.from_pretrained(
        captioner, settings_of(captioners.CaptionerSettings, sets), run.torch_device
    )
    report = captioners.caption_images(pictures, model, out_file, run)
    for line in report.lines():
        out.print(line, highlight=False)
    if clean:
        file = CaptionFile.read(out_file)
        cleaned, changes = clean_all({key: entry.caption for key, entry in file.entries.items()})
        entries = {key: entry.with_caption(cleaned[key]) for key, entry in file.entries.items()}
        CaptionFile(out_file.with_suffix(".clean.json"), entries).write()
        for line in changes.lines():
            out.print(line, highlight=False)


def rewrite(
    captions: Annotated[list[str] | None, typer.Argument(help="Captions, or none with --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="A caption file; its first captions are shown.")] = None,
    target: Annotated[str | None, typer.Option(help="A registered domain whose words are used.")] = None,
    style: Annotated[str, typer.Option(help="Simple words of the target, e.g. 'dark night'.")] = "dark night",
    medium: Annotated[str, typer.Option(help="What target pictures are, e.g. photo, painting.")] = "photo",
    word: Annotated[str | None, typer.Option(help="A concept's word, e.g. '<night>' or sks.")] = None,
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
    names = tuple(part.strip() for part in classes.split(",") if part.strip())
    rows = rewrite_rows(texts, words, names=strategy or (), word=word, classes=names)
    table = Table("strategy", "side", "prompt", box=None, header_style="bold")
    for row in rows:
        table.add_row(row.strategy, row.side, Text(row.prompt or f"({row.note})" if row.note else row.prompt))
    out.print(table)


def adapt(
    images: Annotated[Path, typer.Argument(help="Folder of labelled source images.")],
    masks: Annotated[Path, typer.Argument(help="Folder of index masks with the same names.")],
    classes: Annotated[str, typer.Option(help="Class names in the order of their ids: sky,road,car.")],
    out_folder: Out,
    concept: Annotated[Path | None, typer.Option(help="Concept folder from `personalize`.")] = None,
    strategy: Annotated[str, typer.Option(help="Caption strategy or template.")] = "null",
    style: Annotated[str, typer.Option(help="Simple words of the target domain.")] = "",
    medium: Annotated[str, typer.Option(help="What target pictures are.")] = "photo",
    captions: Annotated[
        Path | None, typer.Option(help="Caption file; made with the captioner when missing.")
    ] = None,
    captioner: NewCaptioner = "",
    model: Model = "mini",
    preset: Preset = "",
    sets: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "no",
    skip_bad: SkipBad = False,
    caption_fallback: Fallback = "",
    processes: Processes = 1,
) -> None:
    """Fine-tune the (personalized) backbone and a head on labelled source images.

    Example: `tadp-da adapt day/images day/masks --classes sky,road,car --concept runs/dusk --strategy dreambooth
    --out runs/model --set steps=400`
    """
    relaunch(processes)
    from benchmarks.own import adapt_own
    from tadp_da.types import DomainDescription

    with told_if_complete(out_folder):
        adapt_own(
            images=images,
            masks=masks,
            classes=names_of(classes),
            concept=concept,
            strategy=strategy,
            description=DomainDescription(style=style, medium=medium),
            captions=captions,
            captioner=captioner or captioner_for(model),
            model=model,
            preset=preset or preset_for(model),
            sets=tuple(sets or ()),
            run=open_run(out_folder, seed, device, precision, skip_bad=skip_bad),
            fallback=caption_fallback,
        )
    out.print(
        f"The model lies in {out_folder}. Try it: tadp-da predict {out_folder} IMAGES --out predictions"
    )


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder from `adapt`.")],
    images: Annotated[Path, typer.Argument(help="Folder of test images.")],
    masks: Annotated[Path, typer.Argument(help="Folder of their index masks.")],
    out_folder: Out,
    captions: Annotated[
        Path | None, typer.Option(help="Caption file; made with the captioner when missing.")
    ] = None,
    captioner: Captioner = "",
    device: Device = "auto",
    skip_bad: SkipBad = False,
    allow_overlap: AllowOverlap = False,
    caption_fallback: Fallback = "",
    processes: Processes = 1,
) -> None:
    """Score a model on labelled test images: mIoU and IoU per class at the labels' own resolution.

    Example: `tadp-da evaluate runs/model dusk/images dusk/masks --out runs/score`
    """
    relaunch(processes)
    from benchmarks.own import evaluate_own

    run = open_run(out_folder, device=device, skip_bad=skip_bad, allow_overlap=allow_overlap)
    with told_if_complete(out_folder):
        found = evaluate_own(model, images, masks, captions, captioner, run, caption_fallback)
    table = Table("class", found.metric, box=None, header_style="bold")
    for name, value in found.classes.items():
        table.add_row(name, "-" if value is None else f"{value:.1f}")
    out.print(table)
    out.print(
        f"{found.metric} {'-' if found.main is None else f'{found.main:.1f}'} over {found.images} images"
    )


def predict(
    model: Annotated[Path, typer.Argument(help="Model folder from `adapt`, `run` or `benchmark run`.")],
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    out_folder: Out,
    attention: Annotated[
        str, typer.Option(help="Words of the prompt whose attention maps are drawn: car,road.")
    ] = "",
    text: Annotated[str | None, typer.Option("--caption", help="One caption for every image.")] = None,
    captions: Annotated[
        Path | None, typer.Option(help="Caption file; made with the captioner when missing.")
    ] = None,
    captioner: Captioner = "",
    device: Device = "auto",
    skip_bad: SkipBad = False,
    caption_fallback: Fallback = "",
) -> None:
    """Predict: colour overlays, index masks or objects as JSON, and attention maps of chosen words.

    Example: `tadp-da predict runs/model dusk/images --out predictions --attention car,road`
    """
    from benchmarks.own import predict_own

    run = open_run(out_folder, device=device, skip_bad=skip_bad)
    count = predict_own(model, images, names_of(attention), text, captions, captioner, run, caption_fallback)
    kinds = {"overlays": "overlays", "masks": "index masks", "objects": "objects", "attention": "attention"}
    made = [
        f"{words} in {out_folder / name}" for name, words in kinds.items() if (out_folder / name).is_dir()
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
