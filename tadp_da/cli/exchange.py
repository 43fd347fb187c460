"""Commands that import concepts from other tools, export them, and upload concepts and models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tadp_da import api
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

    concept = import_concept(
        api.base_model(model).load(), word=word, embedding=embedding, lora=lora, unet_only=unet_only
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
            metric_value=round(measure.value, 2),
        )
        for found in Report.load(folder).evaluations.values()
        for measure in (found.main, *found.further)
        if measure.value is not None
    ]
