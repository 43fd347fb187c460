"""The command that writes predictions for evaluation servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tadp_da import api
from tadp_da.api_options import captions_of, images_of, open_run
from tadp_da.cli.options import Captioner, Captions, Data, Device, out
from tadp_da.errors import DataError


def submit(
    model: Annotated[Path, typer.Argument(help="Model folder from `adapt` or `benchmark run`.")],
    images: Annotated[str, typer.Argument(help="Folder of images; or, with --split, a name of `data list`.")],
    form: Annotated[str, typer.Option(help="cityscapes or dark-zurich (zip), coco (JSON), voc (folder).")],
    path: Annotated[Path, typer.Option("--out", "-o", help="The zip, the JSON file or the new folder.")],
    split: Annotated[str, typer.Option(help="Split of a known data set, e.g. server or test.")] = "",
    data: Data = Path("data"),
    partial: Annotated[bool, typer.Option(help="A part of the split will do.")] = False,
    like: Annotated[
        Path | None, typer.Option(help="For coco: the COCO file whose image and category ids are used.")
    ] = None,
    captions: Captions = None,
    captioner: Captioner = "",
    device: Device = "auto",
) -> None:
    """Write predictions as an evaluation server or another tool reads them, and check what was written.

    Example: `tadp-da submit runs/model dark-zurich --split server --data data --form dark-zurich --out dz.zip`
    """
    from benchmarks.submit import submissions

    run = open_run(path.parent, {"device": device})
    found = images_of(images, run, split=split, data=data)
    if split and not partial:
        _refuse_part(images, split, data, len(found))
    perception = api.load_model(model, device=str(run.torch_device))

    def texts() -> dict[str, str]:
        return captions_of(perception, found, split, run, {"captions": captions, "captioner": captioner})

    submissions.submit(perception, found, texts, form, path, run, like=like)
    out.print(f"Predictions of {len(found)} images are in {path}")


def _refuse_part(name: str, split: str, data: Path, found: int) -> None:
    """Refuse a split of a registered data set that is not complete."""
    from tadp_da.domains import domains

    whole = domains[name].counts.get(split, found)
    if found != whole:
        raise DataError(
            f"{found} of {whole} images of {name} ({split}) are there",
            where=data,
            fix=f"complete the split, or use --partial; {domains[name].fetch}",
        )
