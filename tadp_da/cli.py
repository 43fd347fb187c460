"""The front door: ``tadp-da``. Parses and prints; the work is in the stages.

Exit codes: 0 ok, 2 usage, 3 data, 4 environment, 5 diverged, 6 artefact, 75 interrupted after saving.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tadp_da.errors import Interrupted, TadpError, UsageError

app = typer.Typer(
    name="tadp-da",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Labels in one visual domain, only images in another: personalize a diffusion model to the new domain, "
    "and make it a perception model that works there.",
)
benchmark = typer.Typer(
    no_args_is_help=True, help="Tables of caption strategies over seeds.", rich_markup_mode="markdown"
)
app.add_typer(benchmark, name="benchmark")
out = Console()

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for artefacts, tables and pictures.")]
Seed = Annotated[int, typer.Option(help="Every random number is a function of it.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[str, typer.Option(help="Mixed precision of training: no, bf16, fp16.")]
Data = Annotated[
    Path, typer.Option(help="Folder that holds the data sets; the drawn world is drawn into it.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: --set adapt.steps=100. Repeatable.")
]
Seeds = Annotated[str, typer.Option(help="Seeds, e.g. 0,1,2.")]
Model = Annotated[
    str, typer.Option(help="Diffusion model: mini (embedded), a diffusers folder, or a hub id.")
]
Preset = Annotated[
    str, typer.Option(help="Settings to start from: mini, stable-diffusion, or your YAML file.")
]


def _preset(model: str) -> str:
    """Settings that suit the model's size, unless the user names others."""
    return "mini" if model == "mini" else "stable-diffusion"


def _run(folder: Path, seed: int = 0, device: str = "auto", precision: str = "no") -> Any:
    from tadp_da.run import Run

    return Run(folder=folder, seed=seed, device=device, precision=precision)  # type: ignore[arg-type]


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(
            f"--seeds {text!r} is no list of different whole numbers", fix="write for example --seeds 0,1,2"
        )
    return seeds


def _settings(cls: Any, sets: list[str] | None, **fields: Any) -> Any:
    from benchmarks.recipe import build_settings

    return build_settings(cls, {k: v for k, v in fields.items() if v is not None}, tuple(sets or ()))


@app.command()
def demo(
    out_folder: Out = Path("runs/demo"), data: Data = Path("data"), seed: Seed = 0, device: Device = "auto"
) -> None:
    """The whole figure on the embedded mini world in a few minutes: learn the night, adapt, score, draw.

    Example: `tadp-da demo`
    """
    from benchmarks.demo import demonstrate

    demonstrate(_run(out_folder, seed, device), data, out)


@app.command()
def personalize(
    images: Annotated[Path, typer.Argument(help="Folder of unlabelled images of the target domain.")],
    out_folder: Out,
    method: Annotated[str, typer.Option(help="textual-inversion or dreambooth.")] = "textual-inversion",
    model: Model = "mini",
    captions: Annotated[
        Path | None, typer.Option(help="Caption file, for templates that hold {caption}.")
    ] = None,
    sets: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "no",
) -> None:
    """Learn a concept of an unlabelled domain: a word, or a word and weights.

    Example: `tadp-da personalize photos/dusk --method dreambooth --out runs/dusk --set steps=300`
    """
    from personalize import personalizers
    from tadp_da.backbones import backbones
    from tadp_da.captions.files import CaptionFile

    personalizer = _settings(personalizers[method], sets)
    unlabeled = _pictures(images)
    texts = CaptionFile.read(captions).lookup(unlabeled) if captions else None
    backbone = backbones["stable-diffusion"].from_pretrained(model)
    run = _run(out_folder, seed, device, precision)
    out_folder.mkdir(parents=True, exist_ok=True)
    concept = personalizer(backbone.to(run.torch_device), unlabeled, run, texts)
    concept.save(out_folder)
    out.print(
        f"The concept's word is [bold]{concept.prompt_word}[/]. It lies in {out_folder}, with a picture of samples "
        "before and after."
    )


@app.command()
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
) -> None:
    """Caption every image of a folder with BLIP-2.

    Example: `tadp-da caption photos/dusk --out dusk.json`
    """
    from tadp_da.captions.captioner import Captioner, CaptionerSettings, caption_images
    from tadp_da.captions.clean import clean_all
    from tadp_da.captions.files import CaptionFile

    run = _run(out_file.parent, device=device)
    model = Captioner.from_pretrained(captioner, _settings(CaptionerSettings, sets), run.torch_device)
    report = caption_images(_pictures(images), model, out_file, run)
    for line in report.lines():
        out.print(line, highlight=False)
    if clean:
        file = CaptionFile.read(out_file)
        cleaned, changes = clean_all({key: entry.caption for key, entry in file.entries.items()})
        entries = {key: entry.with_caption(cleaned[key]) for key, entry in file.entries.items()}
        CaptionFile(out_file.with_suffix(".clean.json"), entries).write()
        for line in changes.lines():
            out.print(line, highlight=False)


@app.command()
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
    from tadp_da.types import Wording

    texts = list(captions or ())
    if file is not None:
        texts += [entry.caption for entry in list(CaptionFile.read(file).entries.values())[:5]]
    words = domains[target].words if target else Wording(style=style, medium=medium)
    names = tuple(part.strip() for part in classes.split(",") if part.strip())
    rows = rewrite_rows(texts, words, names=strategy or (), word=word, classes=names)
    table = Table("strategy", "side", "prompt", box=None, header_style="bold")
    for row in rows:
        table.add_row(row.strategy, row.side, Text(row.prompt or f"({row.note})" if row.note else row.prompt))
    out.print(table)


@app.command()
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
    captioner: Annotated[str, typer.Option(help="Captioner for images without captions.")] = "mini",
    model: Model = "mini",
    preset: Preset = "",
    sets: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "no",
) -> None:
    """Fine-tune the (personalized) backbone and a head on labelled source images.

    Example: `tadp-da adapt day/images day/masks --classes sky,road,car --concept runs/dusk --strategy dreambooth
    --out runs/model --set steps=400`
    """
    from benchmarks.own import adapt_own
    from tadp_da.types import Wording

    adapt_own(
        images=images,
        masks=masks,
        classes=_names(classes),
        concept=concept,
        strategy=strategy,
        words=Wording(style=style, medium=medium),
        captions=captions,
        captioner=captioner,
        model=model,
        preset=preset or _preset(model),
        sets=tuple(sets or ()),
        run=_run(out_folder, seed, device, precision),
    )
    out.print(
        f"The model lies in {out_folder}. Try it: tadp-da predict {out_folder} IMAGES --out predictions"
    )


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder from `adapt`.")],
    images: Annotated[Path, typer.Argument(help="Folder of test images.")],
    masks: Annotated[Path, typer.Argument(help="Folder of their index masks.")],
    out_folder: Out,
    captions: Annotated[
        Path | None, typer.Option(help="Caption file; made with the captioner when missing.")
    ] = None,
    captioner: Annotated[str, typer.Option(help="Captioner for images without captions.")] = "mini",
    device: Device = "auto",
) -> None:
    """Score a model on labelled test images: mIoU and IoU per class at the labels' own resolution.

    Example: `tadp-da evaluate runs/model dusk/images dusk/masks --out runs/score`
    """
    from benchmarks.own import evaluate_own

    found = evaluate_own(model, images, masks, captions, captioner, _run(out_folder, device=device))
    table = Table("class", found.metric, box=None, header_style="bold")
    for name, value in found.classes.items():
        table.add_row(name, "-" if value is None else f"{value:.1f}")
    out.print(table)
    out.print(
        f"{found.metric} {'-' if found.main is None else f'{found.main:.1f}'} over {found.images} images"
    )


@app.command()
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
    captioner: Annotated[str, typer.Option(help="Captioner for images without captions.")] = "mini",
    device: Device = "auto",
) -> None:
    """Predict: colour overlays, index masks, and attention maps of chosen words.

    Example: `tadp-da predict runs/model dusk/images --out predictions --attention car,road`
    """
    from benchmarks.own import predict_own

    count = predict_own(
        model, images, _names(attention), text, captions, captioner, _run(out_folder, device=device)
    )
    out.print(
        f"{count} images: overlays in {out_folder / 'overlays'}, index masks in {out_folder / 'masks'}"
        + (f", attention in {out_folder / 'attention'}" if attention else "")
    )


@app.command()
def run(
    source_images: Annotated[Path, typer.Option(help="Folder of labelled source images.")],
    source_masks: Annotated[Path, typer.Option(help="Folder of their index masks.")],
    classes: Annotated[str, typer.Option(help="Class names in the order of their ids: sky,road,car.")],
    target_images: Annotated[Path, typer.Option(help="Folder of unlabelled target images.")],
    target_style: Annotated[str, typer.Option(help="Simple words of the target, e.g. 'dark dusk'.")],
    target_test_images: Annotated[
        Path | None, typer.Option(help="Target test images, not among the above.")
    ] = None,
    target_test_masks: Annotated[
        Path | None, typer.Option(help="Their masks: read for the score only.")
    ] = None,
    target_medium: Annotated[str, typer.Option(help="What target pictures are.")] = "photo",
    strategies: Annotated[
        str, typer.Option(help="Rows of the table.")
    ] = "no-text,null,simple,textual-inversion,dreambooth",
    out_folder: Out = Path("runs/own"),
    model: Model = "mini",
    captioner: Annotated[str, typer.Option(help="Captioner of both domains.")] = "mini",
    preset: Preset = "",
    sets: Sets = None,
    seeds: Seeds = "0",
    device: Device = "auto",
    precision: Precision = "no",
) -> None:
    """The whole figure on your own data: personalize, caption, adapt, and, with target test labels, score.

    Example: `tadp-da run --source-images day/images --source-masks day/masks --classes sky,road,car
    --target-images dusk/images --target-style "dark dusk"`
    """
    from benchmarks.own import own_benchmark, show_predictions
    from benchmarks.tables import fill

    table = own_benchmark(
        strategies=_names(strategies),
        source={"name": "source", "images": source_images, "masks": source_masks, "classes": _names(classes)},
        target={
            "name": "target",
            "images": target_images,
            "test_images": target_test_images,
            "test_masks": target_test_masks,
            "classes": _names(classes),
            "style": target_style,
            "medium": target_medium,
        },
        model=model,
        captioner=captioner,
        preset=preset or _preset(model),
        sets=tuple(sets or ()),
    )
    the_run = _run(out_folder, device=device, precision=precision)
    reports = fill(table, _seeds(seeds), the_run, Path("data"))
    if target_test_masks is not None:
        _publish(table.name, reports, the_run.folder)
    out.print(f"Predictions on the target images: {show_predictions(table, _seeds(seeds)[0], the_run)}")


@benchmark.command("list")
def benchmark_list() -> None:
    """The benchmarks that come with the package, and what each shows.

    Example: `tadp-da benchmark list`
    """
    from benchmarks.recipe import read_benchmark, shipped

    table = Table("benchmark", "rows", "claim", header_style="bold")
    for name in shipped():
        found = read_benchmark(name)
        table.add_row(name, str(len(found.rows)), " ".join(found.claim.split()))
    out.print(table)


@benchmark.command("run")
def benchmark_run(
    name: Annotated[str, typer.Argument(help="A name from `benchmark list`, or your own YAML file.")],
    data: Data = Path("data"),
    seeds: Seeds = "0,1,2",
    rows: Annotated[str, typer.Option(help="Only these rows.")] = "",
    out_folder: Out = Path("runs/benchmarks"),
    sets: Sets = None,
    device: Device = "auto",
    precision: Precision = "no",
) -> None:
    """Fill a table over seeds. What is finished in the folder is not done again; several processes may share it.

    Example: `tadp-da benchmark run mini-night --seeds 0,1,2`
    """
    from benchmarks.recipe import read_benchmark
    from benchmarks.tables import fill

    table = read_benchmark(name, tuple(sets or ())).only(_names(rows))
    the_run = _run(out_folder, device=device, precision=precision)
    _publish(table.name, fill(table, _seeds(seeds), the_run, data), the_run.folder)


@app.command()
def compare(
    folder: Annotated[Path, typer.Argument(help="Run folder of `benchmark run` or `run`.")],
    name: Annotated[str, typer.Argument(help="Which benchmark in it.")],
    baseline: Annotated[str, typer.Option(help="The row that others are compared with.")] = "null",
) -> None:
    """The table of what is finished: mean, spread, paired difference with its confidence interval. Trains nothing.

    Example: `tadp-da compare runs/benchmarks mini-night`
    """
    from benchmarks.tables import finished

    _publish(name, finished(folder, name), folder, baseline)


def _publish(name: str, reports: Any, folder: Path, baseline: str = "null") -> None:
    from benchmarks.report import terminal, terminal_classes
    from benchmarks.tables import publish

    comparison, written = publish(name, reports, folder / "tables" / name, baseline)
    out.print(terminal(comparison))
    out.print(terminal_classes(comparison))
    out.print(
        f"Table: {written.markdown}\nPlot: {written.plot}"
        + (f"\nPanels: {written.panels}" if written.panels else "")
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pictures(folder: Path) -> Any:
    from tadp_da.domains.folder import folder_domain

    return folder_domain(folder.name, images=folder).unlabeled(folder)


def main() -> None:
    """Entry point: one place turns errors into lines and exit codes."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    errors = Console(stderr=True, soft_wrap=True)
    try:
        app()
    except TadpError as error:
        if debug:
            raise
        first, *rest = error.lines()
        errors.print(Text(f"error: {first}", style="bold red"))
        for line in rest:
            errors.print(Text(line))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("interrupted; finished artefacts are kept, run the same command to go on")
        sys.exit(Interrupted.exit_code)


if __name__ == "__main__":
    main()
