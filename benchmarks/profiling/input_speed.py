"""How long training waits for an image and its mask, beside OpenCV doing the same, each on one core:

    pip install opencv-python-headless
    python -m benchmarks.profiling.input_speed                  # a PNG of 2048x1024 pixels with its mask

Both decode, scale at random (0.5 to 2), crop 512x512 so that no class has more than three quarters, flip, change
brightness, contrast, saturation and hue, each with probability a half, and give float32 pixels and int64 ids. OpenCV
does not smooth when it makes an image smaller, and it takes file and mask as they are: here sizes and ids are checked.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from adapt.augmentation import Augmentation
from benchmarks.profiling.measure import machine, options_of
from benchmarks.reports.tables import grid
from tadp_da.domains.formats.masks import read_mask
from tadp_da.images import open_image
from tadp_da.tasks.labels.masks import MaskLabel
from tadp_da.types import LabelSpace

CLASSES = 19
LABELS = LabelSpace("segmentation", tuple(f"class {i}" for i in range(CLASSES)))
SCALE, MOST = (0.5, 2.0), 0.75


def draw(folder: Path, size: tuple[int, int]) -> tuple[Path, Path]:
    """An image that compresses about as badly as a photograph, and its mask."""
    rng, wide = np.random.default_rng(0), (size[1], size[0])
    coarse = Image.fromarray(rng.integers(0, 256, (size[0] // 16, size[1] // 16, 3)).astype(np.uint8))
    grain = rng.normal(0, 3, (*size, 3))
    pixels = (np.asarray(coarse.resize(wide, Image.Resampling.BICUBIC)) + grain).clip(0, 255)
    ids = Image.fromarray(rng.integers(0, CLASSES, (size[0] // 32, size[1] // 32)).astype(np.uint8))
    image, mask = folder / "image.png", folder / "mask.png"
    Image.fromarray(pixels.astype(np.uint8)).save(image)
    ids.resize(wide, Image.Resampling.NEAREST).save(mask)
    return image, mask


def ours(image: Path, mask: Path, crop: int, rng: np.random.Generator) -> tuple[torch.Tensor, Any]:
    """What a worker does for a sample of stage 2."""
    augment = Augmentation(scale=SCALE, crop=(crop, crop), cat_max_ratio=MOST, flip=0.5, photometric=True)
    pixels = np.array(open_image(image))
    size = pixels.shape[0], pixels.shape[1]
    label = MaskLabel.checked(read_mask(mask, LABELS, image=image), size, LABELS, mask)
    return augment(pixels, label, size, rng)


def opencv(image: Path, mask: Path, crop: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """The same by OpenCV, in the order of mmsegmentation."""
    import cv2

    pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    ids = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    factor = math.exp(rng.uniform(*np.log(SCALE)))
    size = round(factor * ids.shape[1]), round(factor * ids.shape[0])
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    for _ in range(10):
        top, left = rng.integers(size[1] - crop + 1), rng.integers(size[0] - crop + 1)
        part = ids[top : top + crop, left : left + crop]
        if np.bincount(part.reshape(-1)).max() <= MOST * part.size:
            break
    pixels = pixels[top : top + crop, left : left + crop]
    if rng.random() < 0.5:
        pixels, part = pixels[:, ::-1], part[:, ::-1]
    if rng.random() < 0.5:
        pixels = cv2.convertScaleAbs(pixels, alpha=rng.uniform(0.875, 1.125))
    if rng.random() < 0.5:
        factor = rng.uniform(0.5, 1.5)
        pixels = cv2.convertScaleAbs(pixels, alpha=factor, beta=(1 - factor) * pixels.mean())
    for channel in (1, 0):  # saturation, hue
        if rng.random() < 0.5:
            hsv = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2HSV)
            if channel:
                hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=rng.uniform(0.5, 1.5))
            else:  # in steps of two degrees
                hsv[..., 0] = (hsv[..., 0].astype(np.int16) + rng.integers(-9, 10)) % 180
            pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return planes.astype(np.float32) / 127.5 - 1, part.astype(np.int64)


def main(argv: list[str] | None = None) -> str:
    """Measure and return the report."""
    parser = options_of("benchmarks.profiling.input_speed", __doc__ or "")
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--samples", type=int, default=60)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    works: dict[str, Callable[..., Any]] = {"tadp-da": ours}
    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        works["OpenCV"] = opencv
    times: dict[str, list[float]] = {name: [] for name in works}
    with tempfile.TemporaryDirectory() as folder:
        image, mask = draw(Path(folder), tuple(options.size))
        for sample in range(options.samples + 1):  # in turns, so that a busy machine slows both
            for name, work in works.items():
                begun = time.process_time()
                work(image, mask, options.crop, np.random.default_rng(sample))
                times[name].append(time.process_time() - begun)
    means = {name: statistics.mean(seconds[1:]) for name, seconds in times.items()}
    lines = [
        [name, f"{1e3 * mean:.1f}", f"{mean / means['OpenCV']:.2f}" if "OpenCV" in means else "not installed"]
        for name, mean in means.items()
    ]
    decoder = "pyspng" if find_spec("pyspng") else "Pillow"
    return "\n".join(
        [
            grid(["pipeline", "CPU ms a sample", "of OpenCV"], lines),
            f"Mean of {options.samples} samples, PNG decoded by {decoder}. {machine(options.device)}",
        ]
    )


if __name__ == "__main__":
    print(main())
