"""The stages as functions, for Python and for the command line: ``tadp_da.personalize``, ``tadp_da.adapt``, ...

concept = tadp_da.personalize("dusk/images", method="dreambooth", out="runs/dusk")
model = tadp_da.adapt("day/images", "day/masks", classes=["sky", "road"], concept="runs/dusk", out="runs/model")
report = tadp_da.evaluate("runs/model", "test/images", "test/masks", out="runs/score")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tadp_da.api_options import (
    AnyPath,
    StageOptions,
    base_model,
    captions_given,
    captions_of,
    load_data,
    names_of,
    open_run,
    overrides,
)
from tadp_da.errors import UsageError

if TYPE_CHECKING:
    from benchmarks.recipe import Recipe
    from benchmarks.results import Report
    from tadp_da.concept import Concept
    from tadp_da.datasets import DataSource
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.run import Run


def personalize(
    images: AnyPath,
    *,
    out: AnyPath,
    method: str = "textual-inversion",
    word: str = "",
    like: str = "photo",
    settings: Mapping[str, Any] | None = None,
    sets: str | Sequence[str] = (),
    model: str = "mini",
    **options: Unpack[StageOptions],
) -> Concept:
    """Learn a concept of an unlabelled domain: a word, or a word and weights.

    Args:
        images: folder of images, or the name of a registered data set.
        out: the concept's folder. What is complete there is not done again.
        method: which personalizer.
        word: the new word; ``<target>``, or ``sks`` for DreamBooth, when not given.
        like: known words that textual inversion starts from.
        settings: settings of the method.
        sets: overrides of them, as ``path=value``.
        model: weights of the base model.
        options: see :mod:`tadp_da.api_options`.
    """
    from personalize import personalizers
    from personalize.stage import Personalization
    from tadp_da.settings import Choice, as_json, build_settings

    run = open_run(Path(out).parent, options)
    names = {f.name for f in dataclasses.fields(personalizers[method])}
    own = {"word": word or ("<target>" if "like" in names else "sks"), "like": like}
    given = {name: value for name, value in own.items() if name in names} | dict(settings or {})
    built = build_settings(personalizers[method], given, overrides(sets), where=method)
    data, split = load_data(images, None, "unlabeled", run, options)
    return Personalization(
        method=Choice(name=method, settings=as_json(built)),
        base=base_model(model),
        data=data,
        split=split,
        captions=captions_given(options, "", ()),
        run=run,
        folder=Path(out),
    )()


def _few(images: AnyPath | None, labels: AnyPath | None, run: Run, options: Any) -> DataSource | None:
    """Labelled target images, which join the source's."""
    from adapt.labelled_target import with_labels

    if images is None and labels is None:
        return None
    return load_data(with_labels(images, labels), labels, "train", run, options | {"split": ""})[0]


_OF_STAGE_2 = "head", "inference", "objectives", "source_style", "pretrained", "text_adapter"


def _settings(preset: str, sets: tuple[str, ...]) -> Recipe:
    """What stage 2 takes of a preset with overrides.

    Raises:
        UsageError: for an override of what only a whole table reads, which would be ignored.
    """
    from benchmarks.custom import read_preset

    recipe, plain = read_preset(preset, sets), read_preset(preset)
    read = {*_OF_STAGE_2, "backbone", "captioner", "captions", "adapt"}
    for field in dataclasses.fields(recipe):
        if field.name not in read and getattr(recipe, field.name) != getattr(plain, field.name):
            raise UsageError(
                f"adapt does not read the setting {field.name!r}",
                where="--set",
                fix="use the option of that name, if there is one; `tadp-da run` and `benchmark run` read all settings",
            )
    return recipe


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
    sets: str | Sequence[str] = (),
    **options: Unpack[StageOptions],
) -> PerceptionModel:
    """Train a perception model on labelled source images.

    Args:
        images: folder of images, or the name of a registered data set.
        labels: folder of masks, depth maps, VOC XML, YOLO or labelme files, or a COCO file; for a folder of images.
        out, target_labelled, target_labels: the model's folder, and a few labelled images of the target.
        concept, strategy: folder from :func:`personalize`, and the caption strategy or template.
        style, medium, model: how captions describe the target, and the weights of the base model.
        preset, sets: settings to start from (empty: what suits model and labels), and ``adapt.steps=100`` overrides.
        options: see :mod:`tadp_da.api_options`.
    """
    from adapt.stage import Adaptation
    from benchmarks.custom import preset_for
    from tadp_da.base_model import BaseModel
    from tadp_da.captions.rewrite import Rewrite
    from tadp_da.concept import Concept
    from tadp_da.types import DomainDescription

    run = open_run(Path(out).parent, options)
    data, split = load_data(images, labels, "train", run, options)
    space = data.domain.labels
    classes, task = (space.classes, space.task) if space else ((), None)
    recipe = _settings(preset or preset_for(model, task), overrides(sets))
    learned = Concept.load(Path(concept)) if concept else None
    return Adaptation(
        base=BaseModel(backbone=recipe.backbone, model=model),
        concept=learned,
        data=data,
        split=split,
        captions=captions_given(options, recipe.captioner, classes, settings=recipe.captions),
        rewrite=Rewrite(
            strategy=strategy,
            source_description=data.domain.description,
            target_description=DomainDescription(style=style, medium=medium),
            word=learned.prompt_word if learned else None,
            classes=classes,
        ),
        **{name: getattr(recipe, name) for name in _OF_STAGE_2},
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
    sets: str | Sequence[str] = (),
    **options: Unpack[StageOptions],
) -> Report:
    """Score a model on labelled test images, at the resolution of the labels.

    Args:
        model: folder from :func:`adapt` or of a benchmark.
        images: folder of test images, or the name of a registered data set.
        labels: folder of masks, depth maps, VOC XML, YOLO or labelme files, or a COCO file; for a folder of images.
            Masks without class names are of the model's classes.
        out, sets: the report's folder, and overrides of how images are scored, such as ``batch=8``.
        options: see :mod:`tadp_da.api_options`.
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
    if loaded.labels.range and options.get("max_depth") is None:
        options["max_depth"] = loaded.labels.range[1]
    data, split = load_data(images, labels, "test", run, options)
    return Scoring(
        model=loaded,
        tests={"test": TestSet(data=data, split=split, write=loaded.rewrite.target)},
        captions=captions_given(
            options, loaded.captioner, loaded.labels.classes, needed=loaded.backbone.reads_text
        ),
        settings=build_settings(EvaluationSettings, {}, overrides(sets)),
        run=run,
        folder=Path(out),
    )()


def predict(
    model: AnyPath,
    images: AnyPath,
    *,
    out: AnyPath,
    attention: str | Sequence[str] = (),
    caption: str | None = None,
    **options: Unpack[StageOptions],
) -> int:
    """Write overlays, predictions and attention maps of an image or of a folder of images.

    Args:
        model: folder from :func:`adapt` or of a benchmark.
        images: an image, a folder of images, or the name of a registered data set.
        out: folder to write to.
        attention: words of the prompts whose attention maps are drawn.
        caption: one caption for every image.
        options: see :mod:`tadp_da.api_options`.

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
        data, split = load_data(images, None, "unlabeled", run, options)
        chosen = data.images(split)
    if caption is None:
        texts = captions_of(loaded, chosen, split, run, options)
    else:
        texts = {chosen.key(i): caption for i in range(len(chosen))}
    predict_images(loaded, chosen, texts, run, attention=names_of(attention))
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
