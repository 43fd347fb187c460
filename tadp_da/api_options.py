"""Options that the functions of :mod:`tadp_da.api` share: how they run, where captions come from, what labels mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from tadp_da.errors import UsageError
from tadp_da.registry import nearest

if TYPE_CHECKING:
    from tadp_da.base_model import BaseModel
    from tadp_da.datasets import DataSource
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled

AnyPath = str | Path


class RunOptions(TypedDict, total=False):
    """How a stage runs; see :class:`tadp_da.run.Run`."""

    seed: int
    device: str
    precision: str
    tracker: str
    quiet: bool
    skip_bad: bool
    allow_overlap: bool


class CaptionOptions(TypedDict, total=False):
    """Where captions come from: a file, or a captioner; see :class:`tadp_da.captions.provider.CaptionProvider`."""

    captions: AnyPath | None
    captioner: str
    caption_fallback: str


class DataOptions(TypedDict, total=False):
    """What labels mean, and where registered data sets are.

    ``classes``: names in the order of their ids, or text such as ``sky,road``. ``legend``: file that maps values or
    colours of masks to classes. ``ignore_index``: mask value that counts nowhere, or ``"none"``. ``depth_unit``: metres
    that a stored depth of 1 means. ``max_depth``: metres beyond which depths do not count. ``split``: of a registered
    data set. ``data``: its root.
    """

    classes: str | Sequence[str]
    legend: AnyPath | None
    ignore_index: int | Literal["none"] | None
    depth_unit: float | None
    max_depth: float | None
    split: str
    data: AnyPath


class StageOptions(RunOptions, CaptionOptions, DataOptions, total=False):
    """All of them."""


def names_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names from a sequence, or from text such as ``sky,road``, as commands take them."""
    if isinstance(names, str):
        names = [name for part in names.split(",") if (name := part.strip())]
    return tuple(names)


def overrides(sets: str | Sequence[str]) -> tuple[str, ...]:
    """``path=value`` overrides; one of them may come by itself."""
    return (sets,) if isinstance(sets, str) else tuple(sets)


def open_run(folder: AnyPath, options: Mapping[str, Any]) -> Run:
    """The run of a stage, from the options that are about it.

    Raises:
        UsageError: for an option that no stage has.
    """
    from tadp_da.distributed.processes import join
    from tadp_da.run import Run

    known = [name for kind in (RunOptions, CaptionOptions, DataOptions) for name in kind.__annotations__]
    if unknown := [name for name in options if name not in known]:
        raise UsageError(
            f"there is no option {unknown[0]!r}{nearest(unknown[0], known)}",
            fix=f"known options: {', '.join(known)}",
        )
    given = {"precision": "auto"} | {k: v for k, v in options.items() if k in RunOptions.__annotations__}
    run = Run(folder=Path(folder), **given)
    join(run.torch_device)
    return run


def load_data(
    images: AnyPath, labels: AnyPath | None, split: str, run: Run, options: Mapping[str, Any], **facts: Any
) -> tuple[DataSource, str]:
    """The images that a stage works on, looked at once, and the split that they are."""
    from tadp_da.datasets import find

    source, registered = find(
        images,
        Path(options.get("data") or "data"),
        labels=Path(labels) if labels else None,
        classes=names_of(options.get("classes") or ()),
        legend=Path(options["legend"]) if options.get("legend") else None,
        ignore=255 if options.get("ignore_index") is None else options["ignore_index"],
        test=split == "test",
        **{k: options[k] for k in ("depth_unit", "max_depth") if options.get(k) is not None},
        **facts,
    )
    split = (options.get("split") or split) if registered else split
    return source.checked([split], run), split


def images_of(images: AnyPath, run: Run, *, split: str = "", data: AnyPath = "data") -> Unlabeled:
    """Every image of a folder or of a split of a registered data set, without labels, looked at once."""
    source, split = load_data(images, None, "unlabeled", run, {"split": split, "data": data})
    return source.images(split)


def captions_given(
    options: Mapping[str, Any], captioner: str, classes: Sequence[str], **settings: Any
) -> Any:
    from tadp_da.captions.provider import ANY, CaptionProvider

    file = options.get("captions")
    return CaptionProvider(
        captioner=options.get("captioner") or captioner,
        files={ANY: Path(file)} if file else {},
        fallback=options.get("caption_fallback", ""),
        classes=tuple(classes),
        **settings,
    )


def base_model(model: str) -> BaseModel:
    """The base model of some weights, with the backbone of the preset that suits them."""
    from benchmarks.custom import preset_for, read_preset
    from tadp_da.base_model import BaseModel

    return BaseModel(backbone=read_preset(preset_for(model)).backbone, model=model)


def captions_of(
    model: PerceptionModel, images: Unlabeled, split: str, run: Run, options: CaptionOptions
) -> dict[str, str]:
    """Captions of images that a model is applied to, by default from the captioner that it was trained with."""
    known = captions_given(options, model.captioner, model.labels.classes, needed=model.backbone.reads_text)
    return dict(known(images, split, run))
