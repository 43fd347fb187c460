"""Commands that exchange concepts and models with other tools: import, export, upload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tadp_da.api_options import base_model
from tadp_da.cli.options import Model, Out, out
from tadp_da.errors import UsageError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def concept_import(
    out_folder: Out,
    embedding: Annotated[
        Path | None, typer.Option(help="Textual-inversion embedding (safetensors) of diffusers or A1111.")
    ] = None,
    lora: Annotated[
        Path | None,
        typer.Option(
            help="LoRA of the UNet (safetensors) of diffusers, peft (with its adapter_config.json) or kohya."
        ),
    ] = None,
    word: Annotated[
        str,
        typer.Option(
            help="The word of the concept: a name for the embedding, the one of several to take, or a LoRA's trigger."
        ),
    ] = "",
    unet_only: Annotated[
        bool, typer.Option("--unet-only", help="Ignore a LoRA's layers for the text encoder.")
    ] = False,
    model: Model = "mini",
) -> None:
    """Create a concept from files of another tool. Pickles are not read.

    Example: `tadp-da concept import --embedding dusk.safetensors --model sd-1.5 --out runs/dusk`
    """
    from tadp_da.backbones.sd.exchange import import_concept

    if out_folder.exists() and (not out_folder.is_dir() or any(out_folder.iterdir())):
        raise UsageError("the output folder exists", where=out_folder, fix="choose a new folder with --out")
    concept = import_concept(
        base_model(model).load(), word=word, embedding=embedding, lora=lora, unet_only=unet_only
    )
    concept.save(out_folder)
    out.print(f"The concept is in {out_folder}; {concept.prompt_advice}.")


def concept_export(
    concept: Annotated[Path, typer.Argument(help="Concept folder of `personalize` or `concept import`.")],
    out_file: Annotated[Path, typer.Option("--out", "-o", help="A new .safetensors file.")],
    alpha: Annotated[
        float | None, typer.Option(help="Stored alpha; the rank by default. The weight change is the same.")
    ] = None,
) -> None:
    """Write a concept's LoRA in the format of kohya, for AUTOMATIC1111, ComfyUI and kohya's scripts. A learned word
    needs no export: it is in the concept's folder as `learned_embeds.safetensors`.

    Example: `tadp-da concept export runs/dusk --out dusk.safetensors`
    """
    from tadp_da.backbones.sd.exchange import write_kohya
    from tadp_da.concept import Concept

    if out_file.suffix.lower() != ".safetensors" or out_file.exists():
        raise UsageError(
            f"--out {out_file} {'exists' if out_file.exists() else 'does not end in .safetensors'}",
            fix="give a new file that ends in .safetensors",
        )
    write_kohya(Concept.load(concept), out_file, alpha=alpha)
    out.print(f"The LoRA is in {out_file}.")


def export(
    model: Annotated[
        Path, typer.Argument(help="Model folder from `adapt`, `distill`, `run` or `benchmark run`.")
    ],
    out_file: Annotated[Path, typer.Argument(help="A new .onnx file.")],
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Prompt of every image.", show_default="the model's caption strategy with an empty caption"
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(help="Fixed HEIGHTxWIDTH, for runtimes that need one.", show_default="free")
    ] = "",
) -> None:
    """Write a model as an ONNX file for programs without PyTorch. Needs `pip install 'tadp-da[export]'`.

    Example: `tadp-da export runs/model dusk.onnx --prompt "a dashcam photo at sks night"`
    """
    from tadp_da.onnx_export import as_size, require_packages
    from tadp_da.onnx_export import export as write
    from tadp_da.perception_model import PerceptionModel

    require_packages()
    loaded = PerceptionModel.load(model)
    made = write(loaded, out_file, prompt=prompt, size=as_size(size))
    if prompt is None and loaded.backbone.reads_text:
        out.print(
            f"The model writes a prompt for each image from its caption; the file has one for all, which the strategy "
            f"{loaded.rewrite.strategy!r} makes of an empty caption: {made.prompt!r}. Choose another with --prompt."
        )
    out.print(
        f"The graph is in {made.path}. Under onnxruntime it differs from the model by {made.deviation:.1g}."
    )


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a concept or model.")],
    repo: Annotated[
        str, typer.Argument(help="owner/name on the Hugging Face hub; created if there is none.")
    ],
    report: Annotated[
        Path | None, typer.Option(help="Folder of its `evaluate`, for the scores on the card.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Of a new repository; else it is private.")
    ] = False,
) -> None:
    """Upload a concept or model with its model card, in one commit. Needs `hf auth login` or HF_TOKEN.

    Example: `tadp-da push runs/model ann/dusk-segmentation --report runs/score`
    """
    from tadp_da import model_card

    scores = _scores(report) if report else []
    out.print(f"uploaded: {model_card.push(folder, repo, scores, private=not public)}")


def _scores(folder: Path) -> list[EvalResult]:
    """The measures of a report, as the hub describes them."""
    from huggingface_hub import EvalResult

    from benchmarks.results import Report
    from tadp_da.tasks import tasks

    return [
        EvalResult(
            task_type=tasks[found.labels.task].pipeline_tag,
            dataset_type=found.domain,
            dataset_name=found.domain,
            metric_type=measure.name,
            metric_name=f"{measure.name}, {measure.unit}" if measure.unit else measure.name,
            metric_value=round(measure.value, 2 if measure.unit == "%" else 4),
        )
        for found in Report.load(folder).evaluations.values()
        for measure in (found.main, *found.further)
        if measure.value is not None
    ]
