"""PNG files by the fast decoder are what Pillow reads, and what it must not decode is left to Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tadp_da.errors import DataError
from tadp_da.images import displayed_size, open_image

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)


def turned() -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


def described() -> dict[str, Any]:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a street")
    return {"pnginfo": info}


@pytest.mark.parametrize(
    "more", [{}, turned(), described(), {"transparency": (1, 2, 3)}, {"compress_level": 0}]
)
def test_an_rgb_png_is_what_pillow_reads(tmp_path: Path, more: dict[str, Any]) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, **more)
    expected = np.rot90(PIXELS, -1) if "exif" in more else PIXELS
    read = open_image(path)
    assert read.mode == "RGB"
    assert np.array_equal(read, expected)
    assert displayed_size(path) == expected.shape[:2]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(path)
    assert np.array_equal(open_image(path), image.convert("RGB"))


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4), (4, 2)], ids=["RGB", "RGBA", "LA"])
def test_a_png_of_16_bits_a_channel_is_refused(tmp_path: Path, kind: int, channels: int) -> None:
    import struct
    import zlib

    wide = np.full((7, 9, channels), 4095, ">u2")  # of a camera with 12 bits
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 9, 7, 16, kind, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        open_image(tmp_path / "a.png")


def test_a_damaged_png_is_an_error_of_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match="cannot decode an image"):
        open_image(path)
