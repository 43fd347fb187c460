"""Pictures that a person can judge a concept by: the same prompts and seeds before and after, above real
images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from tadp_da.errors import UsageError

if TYPE_CHECKING:
    from tadp_da.types import Unlabeled

_MARGIN, _TEXT = 6, 12  # pixels
_LEAST_SIDE = 128  # smaller pictures are enlarged, so that captions find room beside them


def grid(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str] = (),
) -> Image.Image:
    """Pictures in a table, one label beside each row and one above each column.

    Every picture is fitted, aspect ratio kept, into a cell of the size of the first one.

    Raises:
        UsageError: when there is no picture, or the labels are not as many as the rows or columns.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns or len(row_labels) != len(rows) or len(column_labels) not in (0, columns):
        raise UsageError(
            f"{len(rows)} rows of up to {columns} pictures with {len(row_labels)} row and "
            f"{len(column_labels)} column labels do not make a grid",
            fix="give one label per row, and one per column or none",
        )
    first = next(picture for row in rows for picture in row)
    zoom = max(1, -(-_LEAST_SIDE // min(first.size)))
    width, height = first.width * zoom, first.height * zoom
    font = ImageFont.load_default(_TEXT)
    beside = [_wrapped(label, 110, font) for label in row_labels]
    above = [_wrapped(label, width, font) for label in column_labels]
    left = 2 * _MARGIN + max(int(font.getlength(line)) for lines in beside for line in lines)
    top = _MARGIN + (_TEXT + 4) * max((len(lines) for lines in above), default=0)
    page = Image.new(
        "RGB", (left + columns * (width + _MARGIN), top + len(rows) * (height + _MARGIN)), "white"
    )
    draw = ImageDraw.Draw(page)
    for c, lines in enumerate(above):
        draw.text((left + c * (width + _MARGIN), _MARGIN // 2), "\n".join(lines), "black", font)
    for r, (row, lines) in enumerate(zip(rows, beside, strict=True)):
        y = top + r * (height + _MARGIN)
        draw.text((_MARGIN, y), "\n".join(lines), "black", font)
        for c, picture in enumerate(row):
            _paste(page, picture, (left + c * (width + _MARGIN), y), (width, height))
    return page


def _paste(page: Image.Image, picture: Image.Image, corner: tuple[int, int], size: tuple[int, int]) -> None:
    scale = min(size[0] / picture.width, size[1] / picture.height)
    fitted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    page.paste(
        picture.convert("RGB").resize(fitted, how),
        (corner[0] + (size[0] - fitted[0]) // 2, corner[1] + (size[1] - fitted[1]) // 2),
    )


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines no wider than ``width`` pixels, as far as single words allow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def spread(images: Unlabeled, count: int) -> list[Image.Image]:
    """Up to ``count`` images, taken evenly from the whole list: neighbours in a drive look alike."""
    count = min(count, len(images))
    return [images[i * len(images) // count] for i in range(count)]
