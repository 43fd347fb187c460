"""Predictions in the forms that evaluation servers and other tools read.

    cityscapes   zip of one 8-bit PNG per image in label ids (7 is road), at the image's size, under its name
    dark-zurich  zip of three folders of such PNGs in train ids (0 is road): labelTrainIds/, labelTrainIds_invalid/ and,
                 in 16 bits, confidence/
    coco         JSON list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}
    voc          folder of comp4_det_test_<class>.txt, lines of "id score left top right bottom" counted from 1

Dark Zurich's server computes IoU from the first folder and its two uncertainty-aware measures from the other two.
Predictions have no confidence here, so it is given as full and nothing as invalid: those two measures then add nothing
to IoU.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from benchmarks.submit.mask_zips import MASK_ZIPS
from tadp_da.class_names import same_classes
from tadp_da.domains.formats.files import some
from tadp_da.errors import DataError, UsageError
from tadp_da.images import displayed_size, path_key
from tadp_da.perception_model import PerceptionModel
from tadp_da.registry import nearest
from tadp_da.run import Run
from tadp_da.storage.files import replacing, write_json
from tadp_da.types import Detections, LabelSpace, Unlabeled


def write_coco(
    labels: LabelSpace,
    images: Unlabeled,
    predictions: Iterable[Detections],
    path: Path,
    like: Path | None = None,
) -> None:
    """Write detections as COCO results.

    Args:
        labels: classes of the detections.
        images: that were predicted.
        predictions: per image, in their order.
        path: the JSON file.
        like: COCO file whose ids of images and categories are used; detections of classes that it lacks are left out.
            Without one, both are numbered from 1, and ``<path>.images.json`` holds the numbers.

    Raises:
        DataError: if ``like`` is not a COCO file, lacks an image, or has none of the classes.
    """
    keys = [images.key(i) for i in range(len(images))]
    if like is None:
        image_ids: Sequence[Any] = range(1, len(keys) + 1)
        class_ids: dict[int, Any] = {i: i + 1 for i in range(len(labels.classes))}
        entries = [
            {"id": number, "file_name": key, "height": size[0], "width": size[1]}
            for number, key, size in zip(image_ids, keys, map(displayed_size, images.paths), strict=True)
        ]
        categories = [{"id": class_ids[i], "name": name} for i, name in enumerate(labels.classes)]
        write_json(path.with_suffix(".images.json"), {"images": entries, "categories": categories})
    else:
        image_ids, class_ids = _numbers(like, keys, labels)
    results = []
    for number, found in zip(image_ids, predictions, strict=True):
        for (left, top, right, bottom), label, score in _boxes(found):
            if label in class_ids:
                box = [round(v, 3) for v in (left, top, right - left, bottom - top)]
                result = {"image_id": number, "category_id": class_ids[label], "bbox": box, "score": score}
                results.append(result)
    write_json(path, results)


def _boxes(found: Detections) -> Iterator[tuple[list[float], int, float]]:
    return zip(found.xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)


def _numbers(file: Path, keys: Sequence[str], labels: LabelSpace) -> tuple[list[Any], dict[int, Any]]:
    """Ids of our images, and of our classes where the file has them. File names may be suffixes of our keys."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        by_name = {path_key(str(entry["file_name"])): entry["id"] for entry in content["images"]}
        categories = [(str(entry["name"]), entry["id"]) for entry in content["categories"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not a readable COCO file: {error!r}",
            where=file,
            fix='give a file with {"images": [{"id", "file_name"}], "categories": [{"id", "name"}]}',
        ) from None
    names = {key: next((end for end in _suffixes(path_key(key)) if end in by_name), None) for key in keys}
    if missing := [key for key, name in names.items() if name is None]:
        raise DataError(
            f"{len(missing)} of {len(keys)} images are not in the COCO file: {some(missing)}",
            where=file,
            fix="give the file of this split",
        )
    name, count = Counter(names.values()).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"{count} images are named {name!r} in the COCO file: {some([k for k, n in names.items() if n == name])}",
            where=file,
            fix="write the folders of the images into its file_name fields",
        )
    shared = same_classes(labels.classes, [name for name, _ in categories])
    if not shared:
        raise DataError(
            f"the COCO file has none of the model's classes: {', '.join(labels.classes)}",
            where=file,
            fix="give the file of a data set with these classes",
        )
    class_ids = {ours: categories[theirs][1] for ours, theirs in shared.items()}
    return [by_name[str(name)] for name in names.values()], class_ids


def _suffixes(key: str) -> list[str]:
    """A path and its suffixes: ``a/b/c``, ``b/c``, ``c``."""
    parts = PurePosixPath(key).parts
    return ["/".join(parts[i:]) for i in range(len(parts))]


def write_voc(labels: LabelSpace, images: Unlabeled, predictions: Iterable[Detections], path: Path) -> None:
    """Write detections as the development kit of Pascal VOC reads them: a file per class in a folder.

    The kit counts pixels from 1 and includes both ends, so a half-open box ``x1, x2`` becomes ``x1 + 1, x2``.

    Args:
        labels: classes of the detections.
        images: that were predicted; the stem of a file's name is its id.
        predictions: per image, in their order.
        path: the folder, new or empty.

    Raises:
        DataError: if two images share an id, or an id or a class name is not allowed in such a file.
        UsageError: if the folder holds other files.
    """
    ids = [image.stem for image in images.paths]
    name, count = Counter(ids).most_common(1)[0]
    if count > 1 or any(re.search(r"\s", number) for number in ids):
        raise DataError(
            f"{count} images have the id {name!r}" if count > 1 else "an image's name contains a blank",
            where=images.root,
            fix="VOC identifies images by name without folder and ending: give each a name of its own, without blanks",
        )
    if bad := [name for name in labels.classes if not re.fullmatch(r"[\w][\w .-]*", name)]:
        raise DataError(f"class {bad[0]!r} is not allowed in a file name", fix="rename the class")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError("the folder is not empty", where=path, fix="choose another --out, or delete it")
    with replacing(path) as fresh:
        fresh.mkdir()
        lines: list[list[str]] = [[] for _ in labels.classes]
        for number, found in zip(ids, predictions, strict=True):
            for (x1, y1, x2, y2), label, score in _boxes(found):
                lines[label].append(f"{number} {score:.9g} {x1 + 1:.3f} {y1 + 1:.3f} {x2:.3f} {y2:.3f}\n")
        for name, written in zip(labels.classes, lines, strict=True):
            (fresh / f"comp4_det_test_{name}.txt").write_text("".join(written), encoding="utf-8")


class Form(NamedTuple):
    """A form of predictions: the task whose predictions it holds; what writes it from label space, images, predictions
    and path; and whether that takes ids from a COCO file (``like``)."""

    task: str
    write: Callable[..., None]
    takes_ids: bool = False


FORMS: Mapping[str, Form] = {
    **{name: Form("segmentation", masks.write) for name, masks in MASK_ZIPS.items()},
    "coco": Form("detection", write_coco, takes_ids=True),
    "voc": Form("detection", write_voc),
}
"""Forms by name."""


def submit(
    model: PerceptionModel,
    images: Unlabeled,
    captions: Callable[[], Mapping[str, str]],
    form: str,
    path: Path,
    run: Run,
    *,
    like: Path | None = None,
) -> None:
    """Predict every image and write the predictions in a form; zips are checked afterwards.

    Args:
        model: is moved to the run's device.
        images: to predict.
        captions: gives the caption of each image by key; called once names and classes are known to fit the form.
        form: a name in ``FORMS``.
        path: file or, for ``voc``, folder to write.
        run: device and progress bars.
        like: for ``coco``, the file whose ids are used.

    Raises:
        UsageError: for an unknown form, one of another task, or ``like`` where it is not used.
        DataError: if images or classes do not fit the form.
    """
    chosen = FORMS.get(form)
    if chosen is None:
        fix = f"choose one of: {', '.join(FORMS)}"
        raise UsageError(f"unknown form {form!r}{nearest(form, list(FORMS))}", fix=fix)
    if chosen.task != model.labels.task:
        suited = [name for name, other in FORMS.items() if other.task == model.labels.task]
        raise UsageError(
            f"form {form!r} is for {chosen.task}, the model does {model.labels.task}",
            fix=f"choose one of: {', '.join(suited) or 'none'}",
        )
    if like is not None and not chosen.takes_ids:
        raise UsageError(f"form {form!r} takes no ids from a COCO file", fix="leave out --like")
    path.parent.mkdir(parents=True, exist_ok=True)
    predictions = _predictions(model.to(run.torch_device), images, captions, run)
    chosen.write(model.labels, images, predictions, path, **({} if like is None else {"like": like}))


def _predictions(
    model: PerceptionModel, images: Unlabeled, captions: Callable[[], Mapping[str, str]], run: Run
) -> Iterator[Any]:
    keys, texts = [images.key(i) for i in range(len(images))], captions()
    items = ((images[i], model.prompt(texts[key])) for i, key in enumerate(keys))
    found = model.predict_images(items, precision=run.precision)
    with run.progress(len(images), "predicting") as advance:
        for key, prediction in zip(keys, found, strict=True):
            yield prediction
            advance(key)
