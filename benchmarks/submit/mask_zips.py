"""Index masks as evaluation servers want them: a zip of PNGs, checked before a server does it."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tadp_da.class_names import same_classes
from tadp_da.domains.formats.files import some
from tadp_da.domains.shared.driving import LABEL_IDS, LABELS
from tadp_da.errors import DataError, UsageError
from tadp_da.images import displayed_size
from tadp_da.types import LabelSpace, Unlabeled

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

    def write(self, labels: LabelSpace, images: Unlabeled, predictions: Iterable[Any], place: Path) -> None:
        """Write the zip, whole or not at all.

        Args:
            labels: of the predictions: some of Cityscapes' 19 classes.
            images: that were predicted.
            predictions: ``uint8 (h, w)`` class ids per image, in their order.
            place: the zip.

        Raises:
            UsageError: when the server does not score a class.
            DataError: when two images share a name.
        """
        table, names = self._table(labels), self.names(images)
        fresh = beside(place)
        try:
            with zipfile.ZipFile(fresh, "w", zipfile.ZIP_STORED) as archive:
                for name, prediction in zip(names, predictions, strict=True):
                    values = table[np.asarray(prediction)]
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
            images: of which it must hold predictions.

        Raises:
            DataError: naming the first fault, and its fix.
        """
        expected = {
            _inside(folder, name): path
            for folder in self.folders
            for name, path in zip(self.names(images), images.paths, strict=True)
        }
        try:
            with zipfile.ZipFile(place) as archive:
                files = [info for info in archive.infolist() if not info.is_dir()]
                _check_names([info.filename for info in files], expected, place)
                for info in files:
                    path = expected[info.filename]
                    self._check_picture(_content(archive, info, path, place), info.filename, path, place)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
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
        with _opened(content, where) as picture:
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
            f"a prediction holds the values {some([str(v) for v in strange])}, which are not {self.numbering}{looks}",
            where=where,
            fix=f"write {self.numbering}: {some([str(i) for i in self.ids], 4)} for "
            f"{some(list(LABELS.classes), 4)}",
        )


_LABEL_IDS = tuple(label for _, label in sorted((t, i) for i, t in LABEL_IDS.items() if t != LABELS.ignore))
MASK_ZIPS: Mapping[str, MaskZip] = {
    "cityscapes": MaskZip(_LABEL_IDS, ("",), "label ids"),
    "dark-zurich": MaskZip(TRAIN_IDS, ("labelTrainIds", "labelTrainIds_invalid", _CONFIDENCE), "train ids"),
}


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, image: Path, place: Path) -> bytes:
    """One file of a zip, read into memory only: nothing is ever unpacked, so no name leads anywhere."""
    height, width = displayed_size(image)
    most = 4 * height * width + 2**16  # a PNG of noise in 16 bits is half of that
    if info.file_size > most:  # no more than is stated here is ever decompressed
        raise DataError(
            f"{info.filename} unpacks to {info.file_size} bytes, a prediction of {width}x{height} pixels to "
            f"{most} at most",
            where=place,
            fix="write the zip again from the predictions",
        )
    try:
        return archive.read(info)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
    ) as error:  # also encrypted, or packed oddly
        raise DataError(
            f"{info.filename} is damaged: {error}", where=place, fix="write the zip again, or copy it again"
        ) from None


@contextmanager
def _opened(content: bytes, where: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            yield picture
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(
            f"a prediction cannot be decoded: {error}", where=where, fix="write it again as PNG"
        ) from None


def _check_names(found: Sequence[str], expected: Mapping[str, Path], place: Path) -> None:
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise DataError(f"{some(twice)} occurs twice", where=place, fix="keep one prediction per image")
    missing, strange = [n for n in expected if n not in found], [n for n in found if n not in expected]
    tops = {PurePosixPath(name).parts[0] for name in found}
    if missing and len(tops) == 1 and all(name.partition("/")[2] in expected for name in found):
        raise DataError(
            f"everything is in a folder {tops.pop()!r}",
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


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _png(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def beside(place: Path) -> Path:
    """Where a file is written before it is moved to its place."""
    return place.with_name(f".{place.name}.{os.getpid()}")
