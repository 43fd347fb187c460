"""Small trees in the true form of the data sets, drawn here: no picture of theirs is needed to test their readers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Thing = tuple[str, float, float, float, float]
"""An object as VOC tells it: name, xmin, ymin, xmax, ymax, counted from 1, both ends meant."""


def picture(path: Path, size: tuple[int, int] = (40, 30), *, mode: str = "RGB", **options: Any) -> Path:
    """A picture of noise, another for every path; ``size`` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.as_posix().encode()))
    noise = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    noise.convert(mode).save(path, **options)
    return path


def mask(path: Path, values: Any = 0, size: tuple[int, int] = (40, 30), palette: bool = False) -> Path:
    """A mask whose first pixels hold the values, in order, and the rest the first of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = np.full(size[0] * size[1], np.ravel(values)[0], dtype=np.uint8)
    flat[: np.size(values)] = np.ravel(values)
    image = Image.fromarray(flat.reshape(size[1], size[0]))
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)
    return path


def turned(path: Path, size: tuple[int, int]) -> Path:
    """A photo of (width, height) stored pixels that its EXIF tag turns by a quarter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    return path


def xml(
    path: Path,
    things: Sequence[Thing | str] = (("dog", 1, 1, 10, 10),),
    size: tuple[int, int] | None = (40, 30),
    difficult: int | None = 0,
) -> Path:
    """A VOC annotation; things that are strings are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["<annotation>", "  <folder>x</folder>", f"  <filename>{path.stem}.jpg</filename>"]
    if size:
        lines.append(f"  <size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>")
    for thing in things:
        if isinstance(thing, str):
            lines.append(thing)
            continue
        name, *corners = thing
        box = "".join(
            f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        )
        odd = "" if difficult is None else f"<difficult>{difficult}</difficult>"
        lines.append(f"  <object><name>{name}</name><pose>Left</pose>{odd}<bndbox>{box}</bndbox></object>")
    path.write_text("\n".join([*lines, "</annotation>", ""]))
    return path


def voc(
    folder: Path, lists: dict[str, Iterable[str]], *, things: Sequence[Thing] = (("dog", 1, 1, 10, 10),)
) -> Path:
    """A folder in VOC's form with these ``ImageSets/Main`` lists."""
    for name, ids in lists.items():
        (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Main/{name}.txt").write_text("".join(f"{i}\n" for i in ids))
        for number in ids:
            picture(folder / f"JPEGImages/{number}.jpg")
            xml(folder / f"Annotations/{number}.xml", things)
    return folder


def cityscapes(root: Path, *, kind: str = "labelIds", values: Any = (7, 26, 0)) -> Path:
    """Two training frames, one of val, one of the server's test, with labels of one kind."""
    frames = {"train": ("aachen", "bochum"), "val": ("lindau",), "test": ("berlin",)}
    for split, cities in frames.items():
        for city in cities:
            stem = f"{city}_000000_000019"
            picture(root / f"cityscapes/leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
            if split != "test":
                mask(root / f"cityscapes/gtFine/{split}/{city}/{stem}_gtFine_{kind}.png", values)
    return root


def dark_zurich(root: Path) -> Path:
    """Night, twilight and day of train without labels, two frames of val with theirs."""
    base = root / "dark_zurich"
    for time, drive in (("night", "GOPR0351"), ("twilight", "GOPR0345"), ("day", "GOPR0345")):
        picture(base / f"rgb_anon/train/{time}/{drive}/{drive}_frame_000159_rgb_anon.png")
    for frame in ("000375", "000437"):
        stem = f"night/GOPR0356/GOPR0356_frame_{frame}"
        picture(base / f"rgb_anon/val/{stem}_rgb_anon.png")
        mask(base / f"gt/val/{stem}_gt_labelTrainIds.png", (0, 13, 255))
        mask(base / f"gt/val/{stem}_gt_labelIds.png", (7, 26, 0))
    return root


def nighttime_driving(root: Path, place: str = "NighttimeDrivingTest") -> Path:
    """One frame with its coarse labels."""
    base = root / place
    picture(base / "leftImg8bit/test/night/0_frame_1824_leftImg8bit.png")
    labels = base / "gtCoarse_daytime_trainvaltest/test/night"
    mask(labels / "0_frame_1824_gtCoarse_labelTrainIds.png", (0, 18, 255))
    return root


def coco(
    path: Path, images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], names: Sequence[str]
) -> Path:
    """A COCO file; categories are numbered 10, 20, ... in the order of their names."""
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def camvid(root: Path) -> Path:
    """All frames that the data set has, since its reader counts them; the classes of each label are the first ten."""
    first = mask(root / "labels/first.png", range(11))
    frames = {"day_train": 305, "day_val": 101, "dusk": 62}
    for folder, count in frames.items():
        (root / "labels" / folder).mkdir()
        for index in range(count):
            picture(root / f"images/{folder}/{index:05d}.jpg")
            (root / f"labels/{folder}/{index:05d}.png").hardlink_to(first)
    return root


def depth(path: Path, metres: Any, furthest: float = 10.0) -> Path:
    """A depth map, 16-bit PNG in millimetres without a stated unit, or NPY in metres."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, np.asarray(metres, np.float32))
    else:
        Image.fromarray((np.asarray(metres) * 1000).round().astype(np.uint16)).save(path)
    return path


def nyu(root: Path, size: tuple[int, int] = (640, 480)) -> Path:
    """Two images of two scenes of ``sync``, two of the official test split, with a floor, and a border that the sensor
    does not see."""
    rng = np.random.default_rng(0)
    for split in ("sync", "official_splits/test"):
        for scene in ("bathroom_0001", "living_room_0010")[: None if split == "sync" else 1]:
            for number in ("00045", "00046"):
                place = root / f"nyu_depth_v2/{split}/{scene}"
                picture(place / f"rgb_{number}.jpg", size)
                metres = np.linspace(4 + rng.random(), 1, size[1])[:, None] + 0.1 * rng.random(size[::-1])
                metres[:, : size[0] // 20] = 0
                depth(place / f"sync_depth_{number}.png", metres)
    return root


def ade20k(root: Path, values: Any = (0, 1, 150, 13), count: int = 2) -> Path:
    """Images and annotations as published: 0 for no class, 1 to 150."""
    for split, name in (("training", "train"), ("validation", "val")):
        for index in range(1, count + 1):
            stem = f"{split}/ADE_{name}_{index:08d}"
            picture(root / f"ADEChallengeData2016/images/{stem}.jpg")
            mask(root / f"ADEChallengeData2016/annotations/{stem}.png", values)
    return root


def voc_masks(root: Path, values: Any = (0, 7, 20, 255), count: int = 2) -> Path:
    """VOC 2012 with its own masks of val and of the first half of trainaug, and SBD's of the other half."""
    folder = root / "VOCdevkit/VOC2012"
    lists = {"val": [], "trainaug": []}
    for index in range(count):
        lists["val"].append(f"2007_{index:06d}")
        lists["trainaug"] += [f"2008_{index:06d}", f"2009_{index:06d}"]
    for name, ids in lists.items():
        (folder / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Segmentation/{name}.txt").write_text("".join(f"{i}\n" for i in ids))
        for number in ids:
            picture(folder / f"JPEGImages/{number}.jpg")
            own = "Aug" if number.startswith("2009") else ""
            mask(folder / f"SegmentationClass{own}/{number}.png", values, palette=not own)
    return root
