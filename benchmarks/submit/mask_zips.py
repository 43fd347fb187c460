"""Index masks as evaluation servers expect them: a zip of PNGs, checked before a server does it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from tadp_da.class_names import same_classes
from tadp_da.domains.formats.files import some
from tadp_da.domains.shared.driving import LABEL_IDS, LABELS
from tadp_da.errors import DataError, UsageError
from tadp_da.images import displayed_size
from tadp_da.storage.files import replacing
from tadp_da.types import LabelSpace, Unlabeled

FULL_CONFIDENCE = 2**16 - 1
_CONFIDENCE = "confidence"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal predictions make equal zips
Sizes = Mapping[str, tuple[int, int]]


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

    def write(self, labels: LabelSpace, images: Unlabeled, predictions: Iterable[Any], path: Path) -> None:
        """Write the zip, whole or not at all, and check it.

        Args:
            labels: of the predictions: some of Cityscapes' 19 classes.
            images: that were predicted.
            predictions: ``uint8 (h, w)`` class ids per image, in their order.
            path: the zip.

        Raises:
            UsageError: if the server does not score a class.
            DataError: if two images share a name.
        """
        known, names = same_classes(labels.classes, LABELS.classes), self.names(images)
        if unknown := [name for i, name in enumerate(labels.classes) if i not in known]:
            raise UsageError(
                f"the server does not score {', '.join(unknown)}",
                fix=f"submit a model of Cityscapes' 19 classes: {', '.join(LABELS.classes)}",
            )
        table = np.array([self.ids[known[i]] for i in range(len(labels.classes))], np.uint8)
        with replacing(path) as fresh, zipfile.ZipFile(fresh, "w", zipfile.ZIP_STORED) as archive:
            for name, prediction in zip(names, predictions, strict=True):
                values = table[np.asarray(prediction)]
                for folder in self.folders:
                    full = np.full(values.shape, FULL_CONFIDENCE, np.uint16)
                    buffer = io.BytesIO()
                    Image.fromarray(full if folder == _CONFIDENCE else values).save(buffer, "PNG")
                    archive.writestr(zipfile.ZipInfo(_inside(folder, name), _EPOCH), buffer.getvalue())
        self.check(path, images)

    def names(self, images: Unlabeled) -> tuple[str, ...]:
        """File name of each image's prediction: its own, as PNG.

        Raises:
            DataError: if two images share it, since the zip is flat.
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

    def check(self, path: Path, images: Unlabeled) -> None:
        """Refuse a zip that the server would refuse or misread.

        Args:
            path: the zip.
            images: of which it must hold predictions.

        Raises:
            DataError: naming the first fault, and its fix.
        """
        names, sizes = self.names(images), [displayed_size(image) for image in images.paths]
        expected = {
            _inside(folder, name): size
            for folder in self.folders
            for name, size in zip(names, sizes, strict=True)
        }
        try:
            with zipfile.ZipFile(path) as archive:
                files = [info for info in archive.infolist() if not info.is_dir()]
                _check_names([info.filename for info in files], expected, path)
                for info in files:
                    size = expected[info.filename]
                    content = _content(archive, info, size, path)
                    self._check_image(content, size, info.filename, f"{path}, {info.filename}")
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"not a whole zip: {error}", where=path, fix="write it again") from None

    def _check_image(self, content: bytes, size: tuple[int, int], name: str, where: str) -> None:
        """Refuse another format, size or value. Nothing is decoded before format and size are known."""
        confidence = name.startswith(f"{_CONFIDENCE}/")
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.format != "PNG" or image.mode != ("I;16" if confidence else "L"):
                    raise DataError(
                        f"a prediction is a {image.format} of mode {image.mode}, expected one channel of "
                        f"{16 if confidence else 8} bits",
                        where=where,
                        fix="save ids, not colours, as PNG of one channel",
                    )
                if image.size != size[::-1]:
                    raise DataError(
                        f"a prediction is {image.width}x{image.height} pixels, its image {size[1]}x{size[0]}",
                        where=where,
                        fix="predict at the image's own size; resize ids with nearest-neighbour only",
                    )
                values = np.unique(np.asarray(image)).tolist()
        except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
            fix = "write it again as PNG"
            raise DataError(f"a prediction cannot be decoded: {error}", where=where, fix=fix) from None
        if not confidence and (unknown := sorted(set(values) - set(self.ids))):
            others = {m.numbering for m in MASK_ZIPS.values() if m != self and set(unknown) <= set(m.ids)}
            looks = "".join(f"; these look like {other}" for other in others)
            raise DataError(
                f"a prediction has the values {some([*map(str, unknown)])}, which are not {self.numbering}{looks}",
                where=where,
                fix=f"write {self.numbering}: {some([*map(str, self.ids)], 4)} for {some(list(LABELS.classes), 4)}",
            )


_LABEL_IDS = tuple(label for _, label in sorted((t, i) for i, t in LABEL_IDS.items() if t != LABELS.ignore))
_TRAIN_IDS = tuple(range(len(LABELS.classes)))
MASK_ZIPS: Mapping[str, MaskZip] = {
    "cityscapes": MaskZip(_LABEL_IDS, ("",), "label ids"),
    "dark-zurich": MaskZip(_TRAIN_IDS, ("labelTrainIds", "labelTrainIds_invalid", _CONFIDENCE), "train ids"),
}


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: tuple[int, int], path: Path) -> bytes:
    """One file of a zip, read into memory only: nothing is ever unpacked, so no name leads anywhere."""
    height, width = size
    most = 4 * height * width + 2**16  # a PNG of noise in 16 bits is half of that
    if info.file_size > most:  # no more than is stated here is ever decompressed
        raise DataError(
            f"{info.filename} unpacks to {info.file_size} bytes, a prediction of {width}x{height} pixels to "
            f"{most} at most",
            where=path,
            fix="write the zip again from the predictions",
        )
    try:
        return archive.read(info)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
    ) as error:  # also encrypted or packed oddly
        fix = "write the zip again, or copy it again"
        raise DataError(f"{info.filename} is damaged: {error}", where=path, fix=fix) from None


def _check_names(found: list[str], expected: Sizes, path: Path) -> None:
    missing, unknown = [n for n in expected if n not in found], [n for n in found if n not in expected]
    tops = {PurePosixPath(name).parts[0] for name in found}
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        what, fix = f"{some(twice)} occurs twice", "keep one prediction per image"
    elif missing and len(tops) == 1 and all(name.partition("/")[2] in expected for name in found):
        what, fix = f"everything is in a folder {tops.pop()!r}", "zip what is in the folder, not the folder"
    elif unknown:
        what = f"{len(unknown)} files are predictions of no image: {some(unknown)}"
        fix = f"name a prediction as its image, e.g. {next(iter(expected))}"
    elif missing:
        what = f"{len(missing)} of {len(expected)} predictions are missing: {some(missing)}"
        fix = "predict every image of the split"
    else:
        return
    raise DataError(what, where=path, fix=fix)


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
