"""The command that writes predictions for evaluation servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tadp_da.cli.options import Captioner, Data, Device, open_run, out, pictures_in
from tadp_da.errors import DataError


def submit(
    model: Annotated[Path, typer.Argument(help="Model folder from `adapt` or `benchmark run`.")],
    images: Annotated[str, typer.Argument(help="Folder of images; or, with --split, a name of `data list`.")],
    form: Annotated[str, typer.Option(help="cityscapes or dark-zurich (zip), coco (JSON), voc (folder).")],
    place: Annotated[Path, typer.Option("--out", "-o", help="The zip, the JSON file or the new folder.")],
    split: Annotated[str, typer.Option(help="Split of a known data set, e.g. server or test.")] = "",
    data: Data = Path("data"),
    partial: Annotated[bool, typer.Option(help="A part of the split will do.")] = False,
    like: Annotated[
        Path | None, typer.Option(help="For coco: the COCO file whose image and category ids are used.")
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="Caption file; made with the captioner when missing.")
    ] = None,
    captioner: Captioner = "",
    device: Device = "auto",
) -> None:
    """Write predictions as an evaluation server or another tool reads them, and check what was written.

    Example: `tadp-da submit runs/model dark-zurich --split server --data data --form dark-zurich --out dz.zip`
    """
    from benchmarks.own import captions_for
    from benchmarks.submit import submissions
    from tadp_da.domains import domains
    from tadp_da.perception_model import PerceptionModel

    run = open_run(place.parent, device=device)
    if split:
        domain = domains[images]
        pictures = domain.unlabeled(data, split)
        whole = domain.counts.get(split, len(pictures))
        if len(pictures) != whole and not partial:
            raise DataError(
                f"{len(pictures)} of {whole} images of {images} ({split}) are there",
                where=data,
                fix=f"complete the split, or say --partial; {domain.fetch}",
            )
    else:
        pictures = pictures_in(Path(images), run)
    perception = PerceptionModel.load(model, device=run.torch_device)
    texts = captions_for(pictures, captions, captioner or perception.captioner, run)
    submissions.submit(perception, pictures, texts, form, place, run, like=like)
    out.print(f"Predictions of {len(pictures)} images lie in {place}")
