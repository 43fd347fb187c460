"""Commands that bring concepts in from other tools and take them there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tadp_da.cli.options import Model, Out, out
from tadp_da.errors import UsageError


def concept_adopt(
    out_folder: Out,
    embedding: Annotated[
        Path | None, typer.Option(help="Textual-inversion embedding (safetensors) of diffusers or A1111.")
    ] = None,
    lora: Annotated[
        Path | None, typer.Option(help="LoRA of the UNet (safetensors) of diffusers, peft or kohya.")
    ] = None,
    word: Annotated[
        str, typer.Option(help="The word; of a file with several embeddings, which; of a LoRA, its trigger.")
    ] = "",
    unet_only: Annotated[
        bool, typer.Option("--unet-only", help="Leave out a LoRA's layers for the text encoder.")
    ] = False,
    model: Model = "mini",
) -> None:
    """Make a concept of files that another tool has learned. Pickles are not read.

    Example: `tadp-da concept adopt --embedding dusk.safetensors --model sd-1.5 --out runs/dusk`
    """
    from tadp_da.backbones import DEFAULT, load_backbone
    from tadp_da.backbones.sd.exchange import import_concept

    backbone = load_backbone(DEFAULT, model)
    concept = import_concept(backbone, word=word, embedding=embedding, lora=lora, unet_only=unet_only)
    concept.save(out_folder)
    said = f"prompts say it as {concept.prompt_word}" if concept.prompt_word else "no prompt says it"
    out.print(f"The concept lies in {out_folder}; {said}.", markup=False, highlight=False)


def concept_export(
    concept: Annotated[Path, typer.Argument(help="Concept folder of `personalize` or `concept adopt`.")],
    out_file: Annotated[Path, typer.Option("--out", "-o", help="A new .safetensors file.")],
    alpha: Annotated[
        float | None, typer.Option(help="Stored alpha; the rank when not given. The change is the same.")
    ] = None,
) -> None:
    """Write a concept's LoRA in kohya's form, which AUTOMATIC1111, ComfyUI and kohya's scripts read. A learned word
    needs no export: it lies in the concept's folder as `learned_embeds.safetensors`.

    Example: `tadp-da concept export runs/dusk --out dusk.safetensors`
    """
    from tadp_da.backbones.sd.exchange import write_kohya
    from tadp_da.concept import Concept

    if out_file.suffix.lower() != ".safetensors" or out_file.exists():
        raise UsageError(
            f"--out {out_file} is {'there already' if out_file.exists() else 'no .safetensors file'}",
            fix="give a new file that ends in .safetensors",
        )
    write_kohya(Concept.load(concept), out_file, alpha=alpha)
    out.print(f"The LoRA lies in {out_file}.", markup=False, highlight=False)
