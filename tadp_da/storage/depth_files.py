"""Depth maps as files: NPY, and 16-bit PNG whose unit is stated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tadp_da.errors import DataError
from tadp_da.images import most_pixels, opened

MILLIMETRE, KITTI = 0.001, 1 / 256
"""Metres that a stored value of 1 means: in NYUv2 and most sensors' files, and in KITTI's."""
UNIT = "depth unit in metres"
"""Key of a PNG's text that holds it."""
_MOST = 2**16 - 1


def write_depth(depth: NDArray[np.float32], path: Path, furthest: float, suffix: str = "") -> None:
    """Write metres ``(h, w)``.

    Args:
        depth: 0 where unknown.
        path: of the file.
        furthest: metres that must fit into a PNG: its unit is the millimetre, or 1/256 m where 65.535 m are not enough.
        suffix: ``.npy`` for ``float32`` metres, ``.png`` for 16-bit whole numbers; that of the path if empty.
    """
    if (suffix or path.suffix) == ".npy":
        with path.open("wb") as file:
            np.save(file, depth.astype(np.float32))
        return
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    unit, text = MILLIMETRE if furthest <= _MOST * MILLIMETRE else KITTI, PngInfo()
    text.add_text(UNIT, repr(unit))
    stored = (depth / np.float64(unit)).round().clip(0, _MOST).astype(np.uint16)
    Image.fromarray(stored).save(path, format="png", pnginfo=text)


def read_values(path: Path) -> tuple[NDArray[Any], float | None]:
    """Stored values ``(h, w)`` of a file, and metres that a value of 1 means, where the file says so.

    Raises:
        DataError: when the file is missing, damaged, larger than :func:`~tadp_da.images.most_pixels`, or not of this
            form: a PNG of 8 bits, or an array of another shape.
    """
    if path.suffix.lower() == ".npy":
        return _read_array(path), None
    with opened(path, "a depth map") as image:
        if not image.mode.startswith("I"):
            raise DataError(
                f"a depth map has 8 bits a channel (mode {image.mode}): 256 steps are no metric depth",
                where=path,
                fix="export depth as 16-bit PNG (millimetres), or as NPY (metres); pictures of depth in colours cannot "
                "be read",
            )
        stated = image.info.get(UNIT)
        values = np.asarray(image)
    try:
        return values, None if stated is None else float(stated)
    except (TypeError, ValueError):
        raise DataError(
            f"the unit of a depth map is {stated!r}", where=path, fix="write the file again"
        ) from None


def _read_array(path: Path) -> NDArray[Any]:
    try:
        # mapped, so that a header cannot ask for more memory than the file has
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
            values = values[0] if values.shape[0] == 1 else values[..., 0]
        if values.ndim != 2 or values.dtype.kind not in "fiu" or values.size > most_pixels():
            raise ValueError(f"shape {values.shape}, type {values.dtype}")
        return np.array(values)
    except FileNotFoundError:
        raise DataError("a depth map is missing", where=path, fix="check the folder") from None
    except Exception as error:  # NumPy parses headers as Python: damaged ones raise errors of many kinds
        raise DataError(
            f"not an array of depths: {error}",
            where=path,
            fix="save metres of shape (height, width) with numpy.save",
        ) from None
