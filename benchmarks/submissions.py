"""Predictions in the forms that evaluation servers and the tools of others read.

    cityscapes   zip of one 8-bit PNG per image in label ids (7 is road), at the image's size, under its name
    dark-zurich  zip of three folders of such PNGs in train ids (0 is road): labelTrainIds/, labelTrainIds_invalid/ and,
                 in 16 bits, confidence/
    coco         JSON list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}
    voc          folder of comp4_det_test_<class>.txt, lines of "id score left top right bottom" counted from 1

Dark Zurich's server computes IoU from the first folder; its two uncertainty-aware figures come from the other two. A
decision has no confidence here, so it is stated as full and nothing as invalid: those two figures then say nothing that
IoU does not.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tadp_da.domains._driving import LABEL_IDS, LABELS
from tadp_da.domains._files import displayed_size, some
from tadp_da.domains.class_names import same_classes
from tadp_da.errors import DataError, UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.registry import nearest
from tadp_da.run import Run, write_json
from tadp_da.types import Detections, LabelSpace, Task, Unlabeled

TRAIN_IDS = tuple(range(len(LABELS.classes)))
FULL_CONFIDENCE = 2**16 - 1
_CONFIDENCE = "confidence"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal predictions make equal zips


@dataclass(frozen=True)
class MaskZip:
    """A zip of index masks for a server.

    Attributes:
        ids: value that is stored for each train id of Cityscapes.
        folders: folders in the zip, each with a file per image; ``""`` for none.
        numbering: what the values are called.
    """

    ids: tuple[int, ...]
    folders: tuple[str, ...]
    numbering: str

    def write(self, labels: LabelSpace, images: Unlabeled, decisions: Iterable[Any], place: Path) -> None:
        """Write the zip, whole or not at all.

        Args:
            labels: what the decisions say: some of Cityscapes' 19 classes.
            images: what was looked at.
            decisions: ``uint8 (h, w)`` class ids per image, in their order.
            place: the zip.

        Raises:
            UsageError: when a class is none that the server scores.
            DataError: when two images share a name.
        """
        table, names = self._table(labels), self.names(images)
        fresh = _beside(place)
        try:
            with zipfile.ZipFile(fresh, "w", zipfile.ZIP_STORED) as archive:
                for name, decision in zip(names, decisions, strict=True):
                    values = table[np.asarray(decision)]
                    for folder in self.folders:
                        sure = np.full(values.shape, FULL_CONFIDENCE, np.uint16)
                        picture = sure if folder == _CONFIDENCE else values
                        archive.writestr(zipfile.ZipInfo(_inside(folder, name), _EPOCH), _png(picture))
            fresh.replace(place)
        finally:
            fresh.unlink(missing_ok=True)

    def names(self, images: Unlabeled) -> tuple[str, ...]:
        """File name of each image's prediction: its own, as PNG.

        Raises:
            DataError: when two images share it, since the zip is flat.
        """
        names = tuple(f"{path.stem}.png" for path in images.paths)
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise DataError(
                f"{count} images are called {Path(name).stem}, and a submission is flat",
                where=images.root,
                fix="give the images of one split, with the data set's own file names",
            )
        return names

    def check(self, place: Path, images: Unlabeled) -> None:
        """Refuse a zip that the server would refuse or misread.

        Args:
            place: the zip.
            images: what it must hold a prediction of.

        Raises:
            DataError: naming the first thing that is wrong, and what to do.
        """
        expected = {
            _inside(folder, name): path
            for folder in self.folders
            for name, path in zip(self.names(images), images.paths, strict=True)
        }
        try:
            with zipfile.ZipFile(place) as archive:
                if broken := archive.testzip():
                    raise DataError(
                        f"{broken} is damaged", where=place, fix="write the zip again, or copy it again"
                    )
                found = [info.filename for info in archive.infolist() if not info.is_dir()]
                _check_names(found, expected, place)
                for name, path in expected.items():
                    self._check_picture(archive.read(name), name, path, place)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"not a whole zip: {error}", where=place, fix="write it again") from None

    def _table(self, labels: LabelSpace) -> NDArray[np.uint8]:
        known = same_classes(labels.classes, LABELS.classes)
        if strange := [name for i, name in enumerate(labels.classes) if i not in known]:
            raise UsageError(
                f"the server does not score {', '.join(strange)}",
                fix=f"submit a model of Cityscapes' 19 classes: {', '.join(LABELS.classes)}",
            )
        return np.array([self.ids[known[i]] for i in range(len(labels.classes))], np.uint8)

    def _check_picture(self, content: bytes, name: str, image: Path, place: Path) -> None:
        """One prediction: format, size, values."""
        where, sure = f"{place}, {name}", name.startswith(f"{_CONFIDENCE}/")
        mode = "I;16" if sure else "L"
        with Image.open(io.BytesIO(content)) as picture:
            if picture.format != "PNG" or picture.mode != mode:
                raise DataError(
                    f"a prediction is a {picture.format} of mode {picture.mode}, expected one channel of "
                    f"{16 if sure else 8} bits",
                    where=where,
                    fix="save ids, not colours, as PNG of one channel",
                )
            height, width = displayed_size(image)
            if picture.size != (width, height):
                raise DataError(
                    f"a prediction is {picture.width}x{picture.height} pixels, its image {width}x{height}",
                    where=where,
                    fix="predict at the image's own size; resize ids with nearest-neighbour only",
                )
            if not sure:
                self._check_values(np.asarray(picture), where)

    def _check_values(self, values: NDArray[np.uint8], where: str) -> None:
        strange = sorted(set(np.unique(values).tolist()) - set(self.ids))
        if not strange:
            return
        other = "train ids" if self.ids != TRAIN_IDS else "label ids"
        known = TRAIN_IDS if self.ids != TRAIN_IDS else _LABEL_IDS
        looks = f"; these look like {other}" if set(strange) <= set(known) else ""
        raise DataError(
            f"a prediction holds the values {some([str(v) for v in strange])}, which are no {self.numbering}{looks}",
            where=where,
            fix=f"write {self.numbering}: {some([str(i) for i in self.ids], 4)} for "
            f"{some(list(LABELS.classes), 4)}",
        )


def write_coco(
    labels: LabelSpace,
    images: Unlabeled,
    decisions: Iterable[Detections],
    place: Path,
    like: Path | None = None,
) -> None:
    """Write detections as COCO results.

    Args:
        labels: classes of the detections.
        images: what was looked at.
        decisions: per image, in their order.
        place: the JSON file.
        like: COCO file whose ids of images and categories are used; finds of classes that it has not are left out.
            Without one, both are numbered from 1 and ``<place>.images.json`` tells the numbers.

    Raises:
        DataError: when ``like`` is no COCO file, lacks an image, or has none of the classes.
    """
    keys = [images.key(i) for i in range(len(images))]
    if like is None:
        sizes = [displayed_size(path) for path in images.paths]
        numbered = {
            "images": [
                {"id": i, "file_name": key, "height": h, "width": w}
                for i, (key, (h, w)) in enumerate(zip(keys, sizes, strict=True), 1)
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(labels.classes, 1)],
        }
        write_json(place.with_suffix(".images.json"), numbered)
        image_ids, class_ids = (
            list(range(1, len(keys) + 1)),
            dict(enumerate(range(1, 1 + len(labels.classes)))),
        )
    else:
        image_ids, class_ids = _numbers(like, keys, labels)
    results = []
    for number, found in zip(image_ids, decisions, strict=True):
        boxes = zip(found.xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
        for (left, top, right, bottom), label, score in boxes:
            if label in class_ids:
                box = [round(v, 3) for v in (left, top, right - left, bottom - top)]
                results.append(
                    {"image_id": number, "category_id": class_ids[label], "bbox": box, "score": score}
                )
    write_json(place, results)


def _numbers(file: Path, keys: Sequence[str], labels: LabelSpace) -> tuple[list[Any], dict[int, Any]]:
    """Ids of our images, and of our classes where the file has them. File names may be ends of our keys."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        by_name = {str(entry["file_name"]): entry["id"] for entry in content["images"]}
        categories = [(str(entry["name"]), entry["id"]) for entry in content["categories"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not a readable COCO file: {error!r}",
            where=file,
            fix='give a file with {"images": [{"id", "file_name"}], "categories": [{"id", "name"}]}',
        ) from None
    found = [next((by_name[end] for end in _ends(key) if end in by_name), None) for key in keys]
    if missing := [key for key, number in zip(keys, found, strict=True) if number is None]:
        raise DataError(
            f"{len(missing)} of {len(keys)} images are not in the COCO file: {some(missing)}",
            where=file,
            fix="give the file of this split",
        )
    shared = same_classes(labels.classes, [name for name, _ in categories])
    if not shared:
        raise DataError(
            f"the COCO file has none of the model's classes: {', '.join(labels.classes)}",
            where=file,
            fix="give the file of a data set with these classes",
        )
    return found, {ours: categories[theirs][1] for ours, theirs in shared.items()}


def write_voc(labels: LabelSpace, images: Unlabeled, decisions: Iterable[Detections], place: Path) -> None:
    """Write detections as the development kit of Pascal VOC reads them: a file per class in a folder.

    The kit counts pixels from 1 and means both ends, so a half-open box ``x1, x2`` becomes ``x1 + 1, x2``.

    Args:
        labels: classes of the detections.
        images: what was looked at; the stem of a file's name is its id.
        decisions: per image, in their order.
        place: the folder, new or empty.

    Raises:
        DataError: when two images share an id, or an id or a class cannot stand in such a file.
        UsageError: when the folder holds other files.
    """
    ids = [path.stem for path in images.paths]
    name, count = Counter(ids).most_common(1)[0]
    if count > 1 or any(re.search(r"\s", number) for number in ids):
        raise DataError(
            f"{count} images have the id {name!r}" if count > 1 else "an image's name holds a blank",
            where=images.root,
            fix="VOC tells images by their names without folder and ending: give each one of its own, without blanks",
        )
    if bad := [name for name in labels.classes if not re.fullmatch(r"[\w][\w .-]*", name)]:
        raise DataError(f"class {bad[0]!r} cannot stand in a file name", fix="rename the class")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError("the folder is not empty", where=place, fix="choose another --out, or delete it")
    fresh = _beside(place)
    fresh.mkdir()
    try:
        lines: list[list[str]] = [[] for _ in labels.classes]
        for number, found in zip(ids, decisions, strict=True):
            boxes = zip(found.xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
            for (x1, y1, x2, y2), label, score in boxes:
                lines[label].append(f"{number} {score:.9g} {x1 + 1:.3f} {y1 + 1:.3f} {x2:.3f} {y2:.3f}\n")
        for name, written in zip(labels.classes, lines, strict=True):
            (fresh / f"comp4_det_test_{name}.txt").write_text("".join(written), encoding="utf-8")
        if place.exists():
            place.rmdir()
        fresh.replace(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


_LABEL_IDS = tuple(label for _, label in sorted((t, i) for i, t in LABEL_IDS.items() if t != LABELS.ignore))
MASK_ZIPS: Mapping[str, MaskZip] = {
    "cityscapes": MaskZip(_LABEL_IDS, ("",), "label ids"),
    "dark-zurich": MaskZip(TRAIN_IDS, ("labelTrainIds", "labelTrainIds_invalid", _CONFIDENCE), "train ids"),
}
FORMS: Mapping[str, Task] = {
    **dict.fromkeys(MASK_ZIPS, "segmentation"),
    "coco": "detection",
    "voc": "detection",
}
"""Forms by name, with the task whose models can be written so."""


def submit(
    model: PerceptionModel,
    images: Unlabeled,
    captions: Mapping[str, str],
    form: str,
    place: Path,
    run: Run,
    *,
    like: Path | None = None,
) -> None:
    """Predict every image and write the predictions in a form; zips are checked afterwards.

    Args:
        model: decides; it is moved to the run's device.
        images: what to look at.
        captions: caption of each image by key.
        form: a name in ``FORMS``.
        place: file or, for ``voc``, folder to write.
        run: device and progress bars.
        like: for ``coco``, the file whose ids are used.

    Raises:
        UsageError: for an unknown form, one of another task, or ``like`` where it has no meaning.
        DataError: when images or classes do not suit the form.
    """
    task = FORMS.get(form)
    if task is None:
        raise UsageError(
            f"unknown form {form!r}{nearest(form, list(FORMS))}", fix=f"choose one of: {', '.join(FORMS)}"
        )
    if task != model.labels.task:
        raise UsageError(
            f"form {form!r} is for {task}, the model does {model.labels.task}",
            fix=f"choose one of: {', '.join(f for f, t in FORMS.items() if t == model.labels.task) or 'none'}",
        )
    if like is not None and form != "coco":
        raise UsageError(f"form {form!r} takes no ids from a COCO file", fix="leave out --like")
    place.parent.mkdir(parents=True, exist_ok=True)
    decisions = _decisions(model.to(run.torch_device), images, captions, run)
    writers: Mapping[str, Callable[[], None]] = {
        "coco": lambda: write_coco(model.labels, images, decisions, place, like),
        "voc": lambda: write_voc(model.labels, images, decisions, place),
    }
    if form in writers:
        writers[form]()
        return
    MASK_ZIPS[form].write(model.labels, images, decisions, place)
    MASK_ZIPS[form].check(place, images)


def _decisions(
    model: PerceptionModel, images: Unlabeled, captions: Mapping[str, str], run: Run
) -> Iterator[Any]:
    with run.progress(len(images), "predicting") as advance:
        for index in range(len(images)):
            key = images.key(index)
            yield model.predict(images[index], caption=captions[key])
            advance(key)


def _check_names(found: Sequence[str], expected: Mapping[str, Path], place: Path) -> None:
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise DataError(f"{some(twice)} comes twice", where=place, fix="keep one prediction per image")
    missing, strange = [n for n in expected if n not in found], [n for n in found if n not in expected]
    tops = {PurePosixPath(name).parts[0] for name in found}
    if missing and len(tops) == 1 and all(name.partition("/")[2] in expected for name in found):
        raise DataError(
            f"everything lies in a folder {tops.pop()!r}",
            where=place,
            fix="zip what is in the folder, not the folder",
        )
    if strange:
        raise DataError(
            f"{len(strange)} files are predictions of no image: {some(strange)}",
            where=place,
            fix=f"name a prediction as its image, e.g. {next(iter(expected))}",
        )
    if missing:
        raise DataError(
            f"{len(missing)} of {len(expected)} predictions are missing: {some(missing)}",
            where=place,
            fix="predict every image of the split",
        )


def _ends(key: str) -> list[str]:
    """A path and its ends: ``a/b/c``, ``b/c``, ``c``."""
    parts = PurePosixPath(key).parts
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _png(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name}.{os.getpid()}")
