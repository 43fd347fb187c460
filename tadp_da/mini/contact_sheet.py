"""A image of the drawn world: ``python -m tadp_da.mini.contact_sheet --out world.png``."""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from tadp_da.mini.styles import LOOKS, render
from tadp_da.mini.world import PALETTE, draw_scene


def contact_sheet(
    seed: int = 0, size: tuple[int, int] = (128, 128), columns: int = 8, gap: int = 4
) -> NDArray[np.uint8]:
    """Masks in the first row, then one row per look; ``columns`` scenes of ``size`` (height, width) per row."""
    scenes = [draw_scene(seed, index, size) for index in range(columns)]
    palette = np.asarray(PALETTE, np.uint8)
    rows = [[palette[s.mask] for s in scenes]]
    rows += [[render(s, name, seed, i) for i, s in enumerate(scenes)] for name in LOOKS]
    height, width = size
    sheet = np.full((len(rows) * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = gap + r * (height + gap), gap + c * (width + gap)
            sheet[top : top + height, left : left + width] = tile
    return sheet


def main(arguments: list[str] | None = None) -> None:
    """Write a contact sheet: one row of masks, then one row per look."""
    from PIL import Image

    parser = argparse.ArgumentParser(description="Draw a contact sheet of the mini world.")
    parser.add_argument("--out", required=True, help="image file to write, for example world.png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), metavar=("HEIGHT", "WIDTH"))
    given = parser.parse_args(arguments)
    Image.fromarray(contact_sheet(given.seed, (given.size[0], given.size[1]))).save(given.out)


if __name__ == "__main__":
    main()
