"""Index masks: one class id per pixel, read as stored and checked before anything is trained or scored on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tadp_da.errors import DataError
from tadp_da.images import displayed_size, opened
from tadp_da.storage.listing import Recorder
from tadp_da.types import LabelSpace

if TYPE_CHECKING:
    from PIL.Image import Image

Mask = NDArray[np.uint8]
Values = NDArray[np.uint8 | np.uint16]
Counts = NDArray[np.int64]
"""How many pixels hold each value, ``(largest value + 1,)``."""
Colour = tuple[int, int, int]
_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_SECOND = (1, 127, 128, 254, 255)
"""Values under which the second of two classes is stored."""
LEGEND = "a legend (--legend FILE)"


@dataclass(frozen=True)
class StoredMask:
    """A mask file as it was stored.

    Attributes:
        path: the file.
        counts: pixels by stored value up to 255, before any value was refused.
        palette: ``(n, 3)`` colours of the stored values, of a palette file.
        direct: the values were used as class ids, and not looked up in a legend.
    """

    path: Path
    counts: Counts
    palette: NDArray[Any] | None
    direct: bool


stored_masks: Recorder[StoredMask] = Recorder("stored_masks")
"""Every mask that was read."""


def total_counts(histograms: Iterable[Counts]) -> Counts:
    """The sum of histograms of different lengths."""
    parts = list(histograms)
    total = np.zeros(max(map(len, parts), default=0), dtype=np.int64)
    for part in parts:
        total[: len(part)] += part
    return total


def read_mask(
    path: Path,
    labels: LabelSpace,
    *,
    image: Path | None = None,
    mapping: Mapping[int, int] | None = None,
    colours: Mapping[Colour, int] | None = None,
    ignoring: bool = True,
) -> Mask:
    """The class ids of one mask file, ``uint8 (h, w)``.

    Of a palette file ("P") the indices are read, not the colours. EXIF rotation is not applied to masks: they must be
    stored as the image is displayed. The file is recorded in ``stored_masks`` before any value is refused.

    Args:
        path: a one-channel image file, preferably PNG.
        labels: classes and the ignore id; any other value is refused.
        image: the image that the mask belongs to; its displayed size must be the mask's.
        mapping: stored value to class id (or ignore id), for files with another numbering; unlisted values are refused.
        colours: RGB colour to class id (or ignore id), for files that paint classes in colours; others are refused.
        ignoring: the ignore id may be stored. Otherwise it is refused, except as the second of two classes, which may
            be stored as 1, 127, 128, 254 or 255.

    Raises:
        DataError: the file is missing or not an index mask, a value is not a class, or the sizes differ.
    """
    values, palette = _indices(path) if colours is None else (_painted(path, colours), None)
    if image is not None:
        _check_size(path, values.shape, image)
    counts = _histogram(values)
    stored_masks.add(
        StoredMask(path, counts[:256].copy(), palette, direct=mapping is None and colours is None)
    )
    if mapping is None and colours is None and not ignoring:
        found = [int(v) for v in np.flatnonzero(counts) if v]
        if len(labels.classes) == 2 and len(found) == 1 and found[0] in _SECOND:
            mapping = {0: 0, found[0]: 1}
    if mapping is not None:
        values, counts = _mapped(path, values, counts, mapping)
        ignoring = True  # what it maps to the ignore id
    _check_values(path, counts, labels, ignoring)
    return values.astype(np.uint8)


def _histogram(values: Values) -> Counts:
    from PIL import Image

    if values.dtype != np.uint8:
        return np.bincount(values.reshape(-1))
    counts = np.array(Image.fromarray(values).histogram())  # several times as fast
    return counts[: np.flatnonzero(counts).max(initial=-1) + 1]


def stored_colours(path: Path) -> tuple[NDArray[Any], Counts, bool]:
    """What a mask file holds, whatever it means: values or, of a file that paints classes, colours.

    Returns:
        Values ``(n,)`` or colours ``(n, 3)``, the pixels of each, and whether they are colours.

    Raises:
        DataError: when it is missing, damaged, or a JPEG.
    """
    with _opened(path) as image:
        painted = image.mode not in _INDEX_MODES
        stored = np.asarray(image.convert("RGB")).reshape(-1, 3) if painted else None
    if stored is None:
        values, _ = _indices(path)
        found, counts = np.unique(values, return_counts=True)
    else:
        found, counts = np.unique(stored, axis=0, return_counts=True)
    return found, counts, painted


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


def _indices(path: Path) -> tuple[Values, NDArray[Any] | None]:
    """Stored values, and their colours ``(n, 3)`` in a palette file."""
    with _opened(path) as image:
        if image.mode not in _INDEX_MODES:
            used: Any = image.convert("RGB").getcolors(16) or []
            lines = ", ".join(f"`{r} {g} {b}: NAME`" for _, (r, g, b) in sorted(used, reverse=True)[:4])
            raise DataError(
                f"a mask is a {image.mode} image, expected one channel of class ids",
                where=path,
                fix=f"if it paints classes in colours, name them in {LEGEND} with a line for each colour: "
                f"{lines or '`128 64 128: road`'}; or save class ids: an 8-bit grayscale or palette PNG",
            )
        stored = np.asarray(image)
        palette = np.array(image.getpalette()).reshape(-1, 3) if image.mode == "P" else None
    # Mode "1" gives booleans, "I" 32 bits; what does not fit 16 bits is not a class id either and becomes 65535.
    narrow = stored if stored.dtype == np.uint8 else np.clip(stored, -1, 2**16 - 1).astype(np.uint16)
    return narrow, palette


def _painted(path: Path, colours: Mapping[Colour, int]) -> Values:
    with _opened(path) as image:
        channels = np.asarray(image.convert("RGB")).astype(np.uint32)
    stored = channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]
    found, places, counts = np.unique(stored, return_inverse=True, return_counts=True)
    known = {red << 16 | green << 8 | blue: number for (red, green, blue), number in colours.items()}
    if unknown := [i for i, value in enumerate(found) if int(value) not in known]:
        first = int(found[unknown[0]])
        red, green, blue = first >> 16, first >> 8 & 255, first & 255
        raise DataError(
            f"a mask holds {len(unknown)} colours of no class, e.g. {(red, green, blue)} in "
            f"{counts[unknown[0]]} pixels",
            where=path,
            fix=f"add the colour to the legend: `{red} {green} {blue}: NAME`, or `...: ignore`; colours in between "
            "come from resizing with smoothing or from JPEG: export the masks again",
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
            f"a mask holds {_counted(counts, unknown)}, which the legend does not list",
            where=path,
            fix=f"add the value to the legend: `{unknown[0]}: NAME`, or `{unknown[0]}: ignore`",
        )
    table = np.zeros(len(counts), dtype=np.uint16)
    table[found] = [mapping[int(v)] for v in found]
    return table[values], np.bincount(table[found], weights=counts[found]).astype(np.int64)


def _check_values(path: Path, counts: Counts, labels: LabelSpace, ignoring: bool) -> None:
    count, ignore = len(labels.classes), labels.ignore if ignoring else -1
    wrong = [int(v) for v in np.flatnonzero(counts) if v >= count and v != ignore]
    if not wrong:
        return
    most = wrong[-1]
    fix = (
        f"name the classes of the values in {LEGEND} with lines such as `{most}: NAME` or `{most}: ignore`; "
        f"`tadp-da data legend {path.parent}` writes a first one"
    )
    if count == 19 and most <= 33:
        fix = (
            "it looks like Cityscapes labelIds: name the file *_labelIds.png, which the driving domains map on load, "
            f"use *_labelTrainIds.png files, or give {LEGEND}"
        )
    elif count == 150 and wrong == [150]:
        fix = (
            "it looks like ADE20K as it was published, with 0 for no class and 1 to 150: give the name ade20k instead "
            f"of folders; or {LEGEND} that begins with `0: ignore` and `1: wall`"
        )
    elif count == 2 and wrong[0] in _SECOND and len(np.flatnonzero(counts)) <= 2:
        fix = f"if {most} is {labels.classes[1]!r}: --ignore-index none; otherwise {fix}"
    elif wrong == [count]:
        fix = (
            f"if 0 is no class and 1 is {labels.classes[0]!r}: {LEGEND} that begins with `0: ignore` and "
            f"`1: {labels.classes[0]}`; if {most} is what counts nowhere: --ignore-index {most}; otherwise {fix}"
        )
    elif len(wrong) == 1:
        fix = f"if {most} is what counts nowhere: --ignore-index {most}; otherwise {fix}"
    elif wrong == [*range(count, most + 1)] and most < 50:
        fix = f"name {most + 1} classes, or {fix}"
    elif len(wrong) > 4 and 2 * len(wrong) > count:
        fix = f"was the mask resized with smoothing, or saved as JPEG? Then export it again. Otherwise {fix}"
    elif most < 50:
        fix = f"name {most + 1} classes, or {fix}"
    expected = f"0 to {count - 1}" + f", or {ignore} for ignore" * ignoring
    raise DataError(f"a mask holds {_counted(counts, wrong)}; expected {expected}", where=path, fix=fix)


def _counted(counts: Counts, wanted: list[int]) -> str:
    parts = [f"value {v} in {counts[v]} pixels" for v in wanted[:3]]
    return ", ".join(parts) + (f" and {len(wanted) - 3} more values" if len(wanted) > 3 else "")
