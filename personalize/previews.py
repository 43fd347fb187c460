"""Images to judge a concept by: the same prompts and seeds before and after training, above real images."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

from tadp_da.errors import UsageError

if TYPE_CHECKING:
    from tadp_da.types import Unlabeled

_MARGIN, _TEXT = 6, 12  # pixels
_CHARACTER = 7  # pixels: of the default font at this size, on average
_LEAST_SIDE = 128  # smaller images are enlarged, so that labels have room


def grid(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str] = (),
) -> Image.Image:
    """Images in a table, with a label beside each row and above each column.

    Every image is fitted, aspect ratio kept, into a cell of the size of the first one.

    Raises:
        UsageError: when there is no image, or the labels are not as many as the rows or columns.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns or len(row_labels) != len(rows) or len(column_labels) not in (0, columns):
        raise UsageError(
            f"{len(rows)} rows of up to {columns} images with {len(row_labels)} row and {len(column_labels)} column "
            "labels do not make a grid",
            fix="give one label per row, and one per column or none",
        )
    first = next(image for row in rows for image in row)
    zoom = max(1, -(-_LEAST_SIDE // min(first.size)))
    cell = first.width * zoom, first.height * zoom
    font = ImageFont.load_default(_TEXT)
    beside = [textwrap.wrap(label, 110 // _CHARACTER) for label in row_labels]
    above = [textwrap.wrap(label, cell[0] // _CHARACTER) for label in column_labels]
    left = 2 * _MARGIN + max((int(font.getlength(line)) for lines in beside for line in lines), default=0)
    top = _MARGIN + (_TEXT + 4) * max(map(len, above), default=0)
    width, height = cell[0] + _MARGIN, cell[1] + _MARGIN
    page = Image.new("RGB", (left + columns * width, top + len(rows) * height), "white")
    draw = ImageDraw.Draw(page)
    for column, lines in enumerate(above):
        draw.text((left + column * width, _MARGIN // 2), "\n".join(lines), "black", font)
    for r, (row, lines) in enumerate(zip(rows, beside, strict=True)):
        draw.text((_MARGIN, top + r * height), "\n".join(lines), "black", font)
        for column, image in enumerate(row):
            larger = image.width > cell[0] or image.height > cell[1]
            method = Image.Resampling.LANCZOS if larger else Image.Resampling.NEAREST
            fitted = ImageOps.pad(image.convert("RGB"), cell, method, "white")
            page.paste(fitted, (left + column * width, top + r * height))
    return page


def spread(images: Unlabeled, count: int) -> list[Image.Image]:
    """Up to ``count`` images, evenly spaced in the list: neighbouring frames of a video look alike."""
    count = min(count, len(images))
    return [images[i * len(images) // count] for i in range(count)]
