"""The stages as functions, for Python and for the command line: ``tadp_da.personalize``, ``tadp_da.adapt``, ...

concept = tadp_da.personalize("dusk/images", method="dreambooth", out="runs/dusk")
model = tadp_da.adapt("day/images", "day/masks", classes=["sky", "road"], concept="runs/dusk", out="runs/model")
report = tadp_da.evaluate("runs/model", "test/images", "test/masks", out="runs/score")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

if TYPE_CHECKING:
    from benchmarks.results import Report
    from tadp_da.base_model import BaseModel
    from tadp_da.concept import Concept
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

    ``classes``: names in the order of their ids. ``legend``: file that maps values or colours of masks to classes.
    ``ignore_index``: mask value that counts nowhere, or ``"none"``. ``depth_unit``: metres that a stored depth of 1
    means. ``max_depth``: metres beyond which depths do not count. ``split``: of a registered data set. ``data``: its
    root.
    """

    classes: Sequence[str]
    legend: AnyPath | None
    ignore_index: int | Literal["none"] | None
    depth_unit: float | None
    max_depth: float | None
    split: str
    data: AnyPath


class _Options(RunOptions, CaptionOptions, DataOptions, total=False):
    pass


def open_run(folder: AnyPath, options: Mapping[str, Any]) -> Run:
    """The run of a stage, from the options that are about it."""
    from tadp_da.distributed.processes import join
    from tadp_da.run import Run

    given = {"precision": "auto"} | {k: v for k, v in options.items() if k in RunOptions.__annotations__}
    run = Run(folder=Path(folder), **given)
    join(run.torch_device)
    return run


def _data(
    images: AnyPath, labels: AnyPath | None, split: str, run: Run, options: Mapping[str, Any], **facts: Any
) -> tuple[DataSource, str]:
    """The images that a stage works on, looked at once, and the split that they are."""
    from tadp_da.datasets import find

    source, registered = find(
        images,
        Path(options.get("data") or "data"),
        labels=Path(labels) if labels else None,
        classes=tuple(options.get("classes") or ()),
        legend=Path(options["legend"]) if options.get("legend") else None,
        ignore=255 if options.get("ignore_index") is None else options["ignore_index"],
        test=split == "test",
        **{k: options[k] for k in ("depth_unit", "max_depth") if options.get(k)},
        **facts,
    )
    split = (options.get("split") or split) if registered else split
    return source.checked([split], run), split


def images_of(images: AnyPath, run: Run, *, split: str = "", data: AnyPath = "data") -> Unlabeled:
    """Every image of a folder or of a split of a registered data set, without labels, looked at once."""
    source, split = _data(images, None, "unlabeled", run, {"split": split, "data": data})
    return source.images(split)


def _captions(options: Mapping[str, Any], captioner: str, classes: Sequence[str], **settings: Any) -> Any:
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
    known = _captions(options, model.captioner, model.labels.classes, needed=model.backbone.reads_text)
    return dict(known(images, split, run))


def personalize(
    images: AnyPath,
    *,
    out: AnyPath,
    method: str = "textual-inversion",
    settings: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    model: str = "mini",
    **options: Unpack[_Options],
) -> Concept:
    """Learn a concept of an unlabelled domain: a word, or a word and weights.

    Args:
        images: folder of images, or the name of a registered data set.
        out: the concept's folder. What is complete there is not done again.
        method: which personalizer.
        settings: its settings.
        sets: overrides of them, as ``path=value``.
        model: weights of the base model.
        options: see :class:`RunOptions`, :class:`CaptionOptions` and :class:`DataOptions`.
    """
    from personalize import personalizers
    from personalize.stage import Personalization
    from tadp_da.settings import Choice, as_json, build_settings

    run = open_run(Path(out).parent, options)
    built = build_settings(personalizers[method], settings or {}, tuple(sets), where=method)
    data, split = _data(images, None, "unlabeled", run, options)
    return Personalization(
        method=Choice(name=method, settings=as_json(built)),
        base=base_model(model),
        data=data,
        split=split,
        captions=_captions(options, "", ()),
        run=run,
        folder=Path(out),
    )()


def _few(images: AnyPath | None, labels: AnyPath | None, run: Run, options: Any) -> DataSource | None:
    """Labelled target images, which join the source's."""
    from adapt.labelled_target import with_labels

    if images is None and labels is None:
        return None
    return _data(with_labels(images, labels), labels, "train", run, options | {"split": ""})[0]


def adapt(
    images: AnyPath,
    labels: AnyPath | None = None,
    *,
    out: AnyPath,
    target_labelled: AnyPath | None = None,
    target_labels: AnyPath | None = None,
    concept: AnyPath | None = None,
    strategy: str = "null",
    style: str = "",
    medium: str = "photo",
    model: str = "mini",
    preset: str = "",
    sets: Sequence[str] = (),
    **options: Unpack[_Options],
) -> PerceptionModel:
    """Train a perception model on labelled source images.

    Args:
        images: folder of images, or the name of a registered data set.
        labels: folder of masks, depth maps, VOC XML, YOLO or labelme files, or a COCO file; for a folder of images.
        out, target_labelled, target_labels: the model's folder, and a few labelled images of the target.
        concept, strategy: folder from :func:`personalize`, and the caption strategy or template.
        style, medium, model: how captions describe the target, and the weights of the base model.
        preset, sets: settings to start from (empty: what suits model and labels), and ``adapt.steps=100`` overrides.
        options: see :class:`RunOptions`, :class:`CaptionOptions`, :class:`DataOptions`.
    """
    from adapt.stage import Adaptation
    from benchmarks.custom import preset_for, read_preset
    from tadp_da.base_model import BaseModel
    from tadp_da.captions.rewrite import Rewrite
    from tadp_da.concept import Concept
    from tadp_da.types import DomainDescription

    run = open_run(Path(out).parent, options)
    data, split = _data(images, labels, "train", run, options)
    space = data.domain.labels
    classes, task = (space.classes, space.task) if space else ((), None)
    recipe = read_preset(preset or preset_for(model, task), tuple(sets))
    learned = Concept.load(Path(concept)) if concept else None
    return Adaptation(
        base=BaseModel(backbone=recipe.backbone, model=model),
        concept=learned,
        data=data,
        split=split,
        captions=_captions(options, recipe.captioner, classes, settings=recipe.captions),
        rewrite=Rewrite(
            strategy=strategy,
            source_description=data.domain.description,
            target_description=DomainDescription(style=style, medium=medium),
            word=learned.prompt_word if learned else None,
            classes=classes,
        ),
        **{name: getattr(recipe, name) for name in ("head", "inference", "objectives", "source_style")},
        labelled_target=_few(target_labelled, target_labels, run, {"classes": classes} | options),
        tuning=recipe.adapt,
        run=run,
        folder=Path(out),
    )()


def evaluate(
    model: AnyPath,
    images: AnyPath,
    labels: AnyPath | None = None,
    *,
    out: AnyPath,
    sets: Sequence[str] = (),
    **options: Unpack[_Options],
) -> Report:
    """Score a model on labelled test images, at the resolution of the labels.

    Args:
        model: folder from :func:`adapt` or of a benchmark.
        images: folder of test images, or the name of a registered data set.
        labels: folder of masks, depth maps, VOC XML, YOLO or labelme files, or a COCO file; for a folder of images.
            Masks without class names are of the model's classes.
        out, sets: the report's folder, and overrides of how images are scored, such as ``batch=8``.
        options: see :class:`RunOptions`, :class:`CaptionOptions` and :class:`DataOptions`.
    """
    from benchmarks.evaluate import EvaluationSettings
    from benchmarks.scoring import Scoring, TestSet
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.settings import build_settings

    run = open_run(Path(out).parent, options)
    loaded = PerceptionModel.load(Path(model), device=run.torch_device)
    if not options.get("classes") and not options.get("legend"):
        options["classes"] = loaded.labels.classes
        if options.get("ignore_index") is None:
            options["ignore_index"] = loaded.labels.ignore
    if loaded.labels.range and not options.get("max_depth"):
        options["max_depth"] = loaded.labels.range[1]
    data, split = _data(images, labels, "test", run, options)
    return Scoring(
        model=loaded,
        tests={"test": TestSet(data=data, split=split, write=loaded.rewrite.target)},
        captions=_captions(
            options, loaded.captioner, loaded.labels.classes, needed=loaded.backbone.reads_text
        ),
        settings=build_settings(EvaluationSettings, {}, tuple(sets)),
        run=run,
        folder=Path(out),
    )()


def predict(
    model: AnyPath,
    images: AnyPath,
    *,
    out: AnyPath,
    attention: Sequence[str] = (),
    caption: str | None = None,
    **options: Unpack[_Options],
) -> int:
    """Write overlays, predictions and attention maps of an image or of a folder of images.

    Args:
        model: folder from :func:`adapt` or of a benchmark.
        images: an image, a folder of images, or the name of a registered data set.
        out: folder to write to.
        attention: words of the prompts whose attention maps are drawn.
        caption: one caption for every image.
        options: see :class:`RunOptions`, :class:`CaptionOptions` and :class:`DataOptions`.

    Returns:
        How many images there were.
    """
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.prediction import predict_images
    from tadp_da.types import Unlabeled

    run = open_run(out, options)
    loaded = PerceptionModel.load(Path(model), device=run.torch_device)
    path = Path(images)
    if path.is_file():
        chosen, split = Unlabeled(domain=path.stem, root=path.parent, paths=(path,)), ""
    else:
        data, split = _data(images, None, "unlabeled", run, options)
        chosen = data.images(split)
    if caption is None:
        texts = captions_of(loaded, chosen, split, run, options)
    else:
        texts = {chosen.key(i): caption for i in range(len(chosen))}
    predict_images(loaded, chosen, texts, run, attention=tuple(attention))
    return len(chosen)


def load_model(folder: AnyPath, *, device: str = "cpu") -> PerceptionModel:
    """A model that :func:`adapt` or a benchmark made.

    Raises:
        ArtifactError: when the folder does not hold one, or a file is not what it was.
    """
    from tadp_da.perception_model import PerceptionModel

    return PerceptionModel.load(Path(folder), device=device)


def load_concept(folder: AnyPath) -> Concept:
    """A concept that :func:`personalize` or another tool's import made.

    Raises:
        ArtifactError: when the folder does not hold one, or its tensors are not those that were saved.
    """
    from tadp_da.concept import Concept

    return Concept.load(Path(folder))
