"""Index masks: one class id per pixel, read as stored and checked before anything is trained or scored on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tadp_da.errors import DataError
from tadp_da.images import displayed_size, opened
from tadp_da.types import LabelSpace

if TYPE_CHECKING:
    from PIL.Image import Image

Mask = NDArray[np.uint8]
Values = NDArray[np.uint8 | np.uint16]
Counts = NDArray[np.int64]
"""How many pixels hold each value, ``(largest value + 1,)``."""
Colour = tuple[int, int, int]
_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def read_mask(
    path: Path,
    labels: LabelSpace,
    *,
    image: Path | None = None,
    mapping: Mapping[int, int] | None = None,
    colours: Mapping[Colour, int] | None = None,
    watch: Callable[[Path, Counts], None] | None = None,
) -> Mask:
    """The class ids of one mask file, ``uint8 (h, w)``.

    Of a palette file ("P") the indices are read, not the colours. EXIF rotation is not applied to masks: they must be
    stored as the image is displayed.

    Args:
        path: a one-channel image file, preferably PNG.
        labels: classes and the ignore id; any other value is refused.
        image: the image that the mask belongs to; its displayed size must be the mask's.
        mapping: stored value to class id (or ignore id), for files with another numbering; unlisted values are refused.
        colours: RGB colour to class id (or ignore id), for files that paint classes in colours; others are refused.
        watch: called with the file and the number of pixels of each stored value, before any value is refused.

    Raises:
        DataError: the file is missing or not an index mask, a value is not a class, or the sizes differ.
    """
    values = _indices(path) if colours is None else _painted(path, colours)
    if image is not None:
        _check_size(path, values.shape, image)
    counts = np.bincount(values.reshape(-1))
    if watch is not None:
        watch(path, counts)
    if mapping is not None:
        values, counts = _mapped(path, values, counts, mapping)
    _check_values(path, counts, labels)
    return values.astype(np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    if not path.is_file():
        fix = "give every labelled image a mask of the same name"
        raise DataError("a mask is missing", where=path, fix=fix)
    with opened(path, "a mask") as image:
        if image.format == "JPEG":
            fix = "export masks as 8-bit PNG"
            raise DataError("a mask is a JPEG, which changes ids", where=path, fix=fix)
        yield image


def _indices(path: Path) -> Values:
    with _opened(path) as image:
        if image.mode not in _INDEX_MODES:
            raise DataError(
                f"a mask is a {image.mode} image, expected one channel of class ids",
                where=path,
                fix="save class ids instead of colours: an 8-bit grayscale or palette PNG, one value per class; or say "
                "which colour is which class: folder_domain(colours={(128, 64, 128): 0, ...})",
            )
        stored = np.asarray(image)
    # Mode "1" gives booleans, "I" 32 bits; what does not fit 16 bits is not a class id either and becomes 65535.
    return stored if stored.dtype == np.uint8 else np.clip(stored, -1, 2**16 - 1).astype(np.uint16)


def _painted(path: Path, colours: Mapping[Colour, int]) -> Values:
    with _opened(path) as image:
        channels = np.asarray(image.convert("RGB")).astype(np.uint32)
    stored = channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]
    found, places, counts = np.unique(stored, return_inverse=True, return_counts=True)
    known = {red << 16 | green << 8 | blue: number for (red, green, blue), number in colours.items()}
    if unknown := [i for i, value in enumerate(found) if int(value) not in known]:
        first = int(found[unknown[0]])
        raise DataError(
            f"a mask holds {len(unknown)} colours of no class, e.g. {(first >> 16, first >> 8 & 255, first & 255)} in "
            f"{counts[unknown[0]]} pixels",
            where=path,
            fix="add the colour to `colours`; colours in between come from resizing or from JPEG, neither suits masks",
        )
    return np.array([known[int(value)] for value in found], dtype=np.uint16)[places].reshape(stored.shape)


def _check_size(path: Path, shape: tuple[int, ...], image: Path) -> None:
    expected = displayed_size(image)
    if shape != expected:
        raise DataError(
            f"a mask is {shape[1]}x{shape[0]} pixels, its image {expected[1]}x{expected[0]}",
            where=f"{path} and {image}",
            fix="export the mask at the size of its image; resize masks with nearest-neighbour only",
        )


def _mapped(path: Path, values: Values, counts: Counts, mapping: Mapping[int, int]) -> tuple[Values, Counts]:
    found = np.flatnonzero(counts)
    if unknown := [int(v) for v in found if int(v) not in mapping]:
        raise DataError(
            f"a mask holds {_counted(counts, unknown)}, which the mapping does not list",
            where=path,
            fix="add the value to the mapping, with its class id or the ignore id",
        )
    table = np.zeros(len(counts), dtype=np.uint16)
    table[found] = [mapping[int(v)] for v in found]
    renumbered = np.zeros(int(table.max(initial=0)) + 1, dtype=counts.dtype)
    np.add.at(renumbered, table[found], counts[found])
    return table[values], renumbered


def _check_values(path: Path, counts: Counts, labels: LabelSpace) -> None:
    count = len(labels.classes)
    wrong = [int(v) for v in np.flatnonzero(counts) if v >= count and v != labels.ignore]
    if not wrong:
        return
    fix = f"name {max(wrong) + 1} classes, or turn the value into a class id or {labels.ignore} (ignore)"
    if count == 19 and max(wrong) <= 33:
        fix = (
            "it looks like Cityscapes labelIds: name the file *_labelIds.png, which the driving domains map on load, "
            "use *_labelTrainIds.png files, or give a mapping"
        )
    raise DataError(
        f"a mask holds {_counted(counts, wrong)}; expected 0 to {count - 1}, or {labels.ignore} for ignore",
        where=path,
        fix=fix,
    )


def _counted(counts: Counts, wanted: list[int]) -> str:
    parts = [f"value {v} in {counts[v]} pixels" for v in wanted[:3]]
    return ", ".join(parts) + (f" and {len(wanted) - 3} more values" if len(wanted) > 3 else "")
