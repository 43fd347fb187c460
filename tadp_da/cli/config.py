"""Options from a file: ``--config run.yaml``, the one that a run leaves behind, and ``tadp-da init``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from tadp_da.api_options import names_of
from tadp_da.cli.data import data_check
from tadp_da.cli.options import Classes, IgnoreIndex, Legend, Model, out
from tadp_da.errors import UsageError
from tadp_da.plain_yaml import parse_yaml, read_yaml
from tadp_da.registry import nearest

NAME = "run.yaml"


def _read(context: typer.Context, file: Path | None) -> Path | None:
    """Take the options of a file as defaults, so that those of the command line win."""
    if file is None:
        return None
    known = _options(context)
    given = {
        str(key).replace("_", "-"): value for key, value in parse_yaml(read_yaml(file), str(file)).items()
    }
    for key, value in given.items():
        if key not in known or key == "config":
            raise UsageError(
                f"there is no option {key!r}{nearest(key, list(known))}",
                where=file,
                fix="write the options of `tadp-da run --help` without their dashes",
            )
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(v, dict | list) for v in value)
        ):
            raise UsageError(
                f"the value of {key!r} is not plain", where=file, fix="write what the option takes"
            )
    plain = {known[key]: _as_given(key, value) for key, value in given.items() if value is not None}
    context.default_map = {**(context.default_map or {}), **plain}
    return file


def _as_given(option: str, value: Any) -> Any:
    """A value of a file as an option takes it: names with commas between them, and repeatable ones as a list."""
    if option == "set":
        return [value] if isinstance(value, str) else value
    return ",".join(map(str, value)) if isinstance(value, list) else value


Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file with any of these options.", callback=_read, is_eager=True),
]


def _options(context: typer.Context) -> dict[str, str]:
    """Parameters of a command by the names of their options."""
    return {
        name.lstrip("-"): str(parameter.name)
        for parameter in context.command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }


def write_config(context: typer.Context, folder: Path) -> None:
    """Write the options that a command was run with, in the form that ``--config`` reads."""
    first = {parameter: name for name, parameter in reversed(_options(context).items())}
    used = {
        first[name]: value for name, value in context.params.items() if name in first and name != "config"
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(_as_yaml(used), encoding="utf-8")


def init(
    source_images: Annotated[Path | None, typer.Option(help="Folder of labelled source images.")] = None,
    source_labels: Annotated[
        Path | None,
        typer.Option(help="Their masks, depth maps, VOC XML, YOLO or labelme files, or a COCO JSON file."),
    ] = None,
    classes: Classes = "",
    legend: Legend = None,
    ignore_index: IgnoreIndex = None,
    target_images: Annotated[Path | None, typer.Option(help="Folder of unlabelled target images.")] = None,
    target_style: Annotated[str, typer.Option(help="Simple words of the target, e.g. 'dark dusk'.")] = "",
    out_folder: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.")] = None,
    model: Model = "mini",
    file: Annotated[Path, typer.Option(help="The file to write.")] = Path(NAME),
) -> None:
    """Ask what `tadp-da run` needs, check the folders, and write it to a file for `--config`.

    What is given as an option is not asked; without a terminal all of it has to be given.

    Example: `tadp-da init`
    """
    from tadp_da.custom_dataset import CustomDataset

    if file.exists():
        raise UsageError("the file exists", where=file, fix="edit it, or name another: --file FILE")
    file.parent.mkdir(parents=True, exist_ok=True)  # before the questions, whose answers would be lost
    images = Path(
        _answer(source_images, "--source-images", "Folder of labelled source images", check=_existing)
    )
    labels = Path(
        _answer(source_labels, "--source-labels", "Their labels (folder, or COCO file)", check=_existing)
    )
    if legend is None:
        asked = "Class names in the order of their ids: sky,road,car; none for depth"
        classes = _answer(classes, "--classes", asked, default="")
    target = Path(
        _answer(target_images, "--target-images", "Folder of unlabelled target images", check=_existing)
    )
    style = _answer(target_style, "--target-style", "The target in simple words, such as: dark dusk")
    results = Path(_answer(out_folder, "--out", "Folder of the results", default="runs/own"))
    data_check(str(images), labels, classes, legend, ignore_index, model=model)
    data_check(str(target))
    known = CustomDataset.of(images, labels, classes=names_of(classes), legend=legend)
    kinds = {"source-masks": known.masks, "source-boxes": known.boxes, "source-depth": known.depth}
    meaning = {"classes": classes, "legend": legend, "ignore-index": ignore_index}
    wanted = {"target-images": target, "target-style": style, "model": model, "out": results}
    with file.open("x", encoding="utf-8") as opened:
        opened.write(_as_yaml({"source-images": images} | kinds | meaning | wanted))
    out.print(f"Written: {file}. Start: tadp-da run --config {file}")


def _as_yaml(options: Mapping[str, Any]) -> str:
    """Those options that are given."""
    plain = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value not in (None, "", [])
    }
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def _existing(answer: str) -> str:
    if not Path(answer).exists():
        raise typer.BadParameter(f"{answer} does not exist")
    return answer


def _answer(
    given: Any, option: str, question: str, default: str | None = None, check: Callable[[str], str] = str
) -> str:
    """What was given, or else the answer to a question, which is asked again until it passes the check."""
    if given not in (None, ""):
        return str(given)
    if not sys.stdin.isatty():
        if default is not None:
            return default
        raise UsageError(
            f"{option} is not given, and there is no terminal to ask in",
            fix=f"give {option}; see tadp-da init --help",
        )
    return str(typer.prompt(question, default=default, err=True, value_proc=check))
