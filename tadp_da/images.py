"""Images: their names, decoding, resizing and normalising, one function each, used by all stages."""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tadp_da.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile
    from torch import Tensor


MOST_PIXELS = 80_000_000
"""Pixels that an image may have unless ``TADP_MAX_PIXELS`` says otherwise; just below Pillow's own limit."""

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
"""Suffixes of image files, in either case."""

OUTPUT = ".tadp-da"
"""A file that marks a folder of images which this project wrote: it is not read when a folder above it is listed."""

_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def name_key(name: str) -> str:
    """The form in which names of files are compared: Macs may store ``é`` as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def path_key(name: str) -> str:
    """The form in which relative paths are compared with those that other programs wrote: :func:`name_key` with slashes
    for the backslashes of Windows, without a leading ``./``."""
    return name_key(name).replace("\\", "/").removeprefix("./")


def output_folder(folder: Path) -> Path:
    """Create a folder that images are written to, and mark it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OUTPUT).touch()
    return folder


def most_pixels() -> int:
    """The pixel limit of images: ``TADP_MAX_PIXELS`` in the environment, or ``MOST_PIXELS``.

    Raises:
        UsageError: when the variable is not a positive whole number.
    """
    text = os.environ.get("TADP_MAX_PIXELS", str(MOST_PIXELS))
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(
            f"TADP_MAX_PIXELS is {text!r}", fix="give a positive whole number of pixels, or unset it"
        )
    return int(text)


@contextmanager
def opened(path: Path, what: str = "an image", digest: str = "") -> Iterator[ImageFile]:
    """An image file whose header has been read and whose pixels have not; errors while it is open name its path.

    Args:
        path: the file.
        what: what to call it in messages.
        digest: blake2b that its bytes must have; empty for any.

    Raises:
        DataError: when the file is missing, has changed, is truncated, not an image, or larger than
            :func:`most_pixels`, or when its path is not valid UTF-8, so that no caption file or manifest can hold it.
    """
    from PIL import Image

    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the name of {what} is not valid UTF-8",
            where=path,
            fix="rename it, or all files of a folder: convmv -f latin1 -t utf8 -r --notest FOLDER",
        ) from None
    most = most_pixels()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below speaks for it
    try:
        content = path.read_bytes() if digest else b""
        if digest and hashlib.blake2b(content, digest_size=16).hexdigest() != digest:
            raise changed(what, path)
        with Image.open(io.BytesIO(content) if digest else path) as image:
            if image.width * image.height > most:
                raise Image.DecompressionBombError(
                    f"{image.width}x{image.height} pixels, the limit is {most}"
                )
            yield image
    except FileNotFoundError:
        raise DataError(f"{what} is missing", where=path, fix="check the data root") from None
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{what} is too large to open: {error}",
            where=path,
            fix="shrink or remove it; if it is what it should be, raise the limit: TADP_MAX_PIXELS=120000000",
        ) from None
    # Pillow raises TypeError for EXIF data of the wrong kind
    except (OSError, ValueError, TypeError, SyntaxError, EOFError, struct.error) as error:
        raise DataError(
            f"cannot decode {what}: {error}", where=path, fix="re-encode or remove the file"
        ) from None


def changed(what: str, path: Path) -> DataError:
    """The error for data that is not what was checked and what artifacts are named after."""
    return DataError(
        f"{what} has changed since it was checked",
        where=path,
        fix="start the command again, and change no data while it runs",
    )


def open_image(path: Path, digest: str = "") -> Image:
    """The image at ``path`` as RGB, turned as its EXIF says. Grey, palette and CMYK images become RGB too;
    transparency is dropped. PNG files of 8-bit RGB are decoded by pyspng where it is installed, which takes less time.

    Args:
        path: the file.
        digest: blake2b that its bytes must have; empty for any.

    Raises:
        DataError: when the file is missing, has changed, is truncated, not an image, larger than :func:`most_pixels`,
            or one of more than 8 bits a channel, which no general rule maps to 0..255.
    """
    from PIL import ImageOps

    with opened(path, digest=digest) as image:
        if image.mode in _DEEP or _is_deep(image):
            raise DataError(
                f"an image has more than 8 bits a channel (mode {image.mode})",
                where=path,
                fix="convert it with the scaling that suits it, e.g. magick in.png -auto-level -depth 8 out.png",
            )
        if image.mode == "RGB" and _never_turned(image) and (quickly := _png(image)) is not None:
            return quickly
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")


def _is_deep(image: ImageFile) -> bool:
    """Whether a file holds 16 bits a channel in colour, of which Pillow keeps the upper eight without a word."""
    stored = (
        tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0]) for tile in image.tile
    )
    return any(";16" in raw for raw in stored)


def _png(image: ImageFile) -> Image | None:
    """The pixels of an opened PNG file by pyspng, or None where Pillow must be asked: pyspng is not installed, the file
    has more than 8 bits or a transparent colour, or is damaged, which Pillow says best."""
    try:
        import pyspng
    except ImportError:
        return None
    from PIL.Image import fromarray

    try:
        pixels = pyspng.load(_content(image))
    except RuntimeError:
        return None
    return fromarray(pixels) if pixels.dtype == "uint8" and pixels.shape[2:] == (3,) else None


def _content(image: ImageFile) -> bytes:
    return image.fp.getvalue() if isinstance(image.fp, io.BytesIO) else Path(str(image.filename)).read_bytes()


def _never_turned(image: ImageFile) -> bool:
    """Whether an opened file is a PNG that says nothing of its orientation. Pillow decodes all of a PNG to answer that,
    because the answer may stand behind the pixels."""
    if image.format != "PNG":
        return False
    content, place = _content(image), 8
    while place < len(content):
        if content[place + 4 : place + 8] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            return False
        place += int.from_bytes(content[place : place + 4]) + 12
    return True


def displayed_size(path: Path) -> tuple[int, int]:
    """Height and width of the image at ``path`` once it is turned as its EXIF says; only its header is read.

    Raises:
        DataError: when the file is missing, not an image, or larger than :func:`most_pixels`.
    """
    from PIL import ExifTags

    with opened(path) as image:
        turned = not _never_turned(image) and image.getexif().get(ExifTags.Base.Orientation, 1) in (
            5,
            6,
            7,
            8,
        )
        return (image.width, image.height) if turned else (image.height, image.width)


def as_tensor(image: Image) -> Tensor:
    """An image as ``uint8 (3, h, w)``."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image ``uint8 (3, h, w)`` at another height and width, bilinear with antialiasing."""
    if tuple(image.shape[-2:]) == size:
        return image
    resized: Tensor = geometry().resize(image, list(size), antialias=True)
    return resized


def resize_part(
    image: NDArray[np.uint8], size: tuple[int, int], part: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """A part of an image at another height and width, without computing the rest; up to rounding, what
    :func:`resize` gives there.

    Args:
        image: ``uint8 (h, w, 3)``.
        size: height and width of the whole image once it is resized.
        part: top, left, bottom and right of the part, half open, in pixels of the resized image.
    """
    import numpy as np
    from PIL import Image

    top, left, bottom, right = part
    if image.shape[:2] == size:
        return image[top:bottom, left:right]
    first, last, starts, ends = [], [], [], []
    for axis, (start, end) in enumerate(((top, bottom), (left, right))):
        scale = image.shape[axis] / size[axis]
        reach = math.ceil(max(scale, 1.0)) + 1  # of the filter's triangle, in pixels of the image
        first.append(max(0, math.floor(start * scale) - reach))
        last.append(min(image.shape[axis], math.ceil(end * scale) + reach))
        starts.append(start * scale - first[axis])
        ends.append(end * scale - first[axis])
    box = starts[1], starts[0], ends[1], ends[0]
    read = np.ascontiguousarray(image[first[0] : last[0], first[1] : last[1]])
    resized = Image.fromarray(read).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR, tuple(box)
    )
    return np.array(resized)


def normalize(image: Tensor) -> Tensor:
    """An image ``uint8 (3, h, w)`` as the ``float32`` pixels in [-1, 1] that models read."""
    import torch

    return image.to(torch.float32) / 127.5 - 1


def geometry() -> Any:
    """torchvision's functions on images, masks and boxes; imported late, because that takes seconds and listings need
    none of them."""
    from torchvision.transforms.v2 import functional

    return functional


def imagenet_normalize(pixels: Tensor) -> Tensor:
    """Pixels ``(b, 3, h, w)`` in [-1, 1] with ImageNet's mean subtracted and divided by its standard deviation."""
    mean, std = (
        pixels.new_tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return ((pixels + 1) / 2 - mean) / std
