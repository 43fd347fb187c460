"""The drawn world as domains: plain day as the source, every other look as a target. Drawn into the root on first use.

    <root>/mini-night/test/images/00000.png     128x128, the image in its look
    <root>/mini-night/test/labels/00000.png     class ids
    <root>/mini-night/test/captions.json        the true captions, as a caption file: {key: {"captions": [text]}}

Scenes of different splits are different scenes. ``val`` and ``test`` show the same scenes in every domain, so that
looks can be compared; the target's ``train`` and ``unlabeled`` scenes are neither the source's nor each other's. The
target's ``val`` is for reports only and must not be used to choose settings.

Settings are chosen on ``mini-dev-thermal`` and ``mini-dev-night``, a misty one: no split of theirs shows a scene of
another domain.

Some domains also come with boxes of cars, people, trees and poles, as ``mini-day-boxes`` and so on. Their images are
the same files; the boxes are written beside them on first use:

    <root>/mini-manga/test/boxes.json           {"00000": [{"class": "car", "xyxy": [left, top, right, bottom]}, ...]}

Others come with depth, as ``mini-day-depth``: 16-bit PNGs that state their unit, 1/256 m, each written when it is first
read. The street ends at 80 m; the sky has no depth that counts.

    <root>/mini-day/test/metres/00000.png       128x128
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.depth import Depth, read_depth
from tadp_da.domains.formats.masks import Mask, read_mask
from tadp_da.errors import DataError, EnvironmentSetupError
from tadp_da.mini.styles import LOOKS, Look, render
from tadp_da.mini.world import CLASSES, PALETTE, SKY_DEPTH, Scene, draw_scene
from tadp_da.storage.depth_files import write_depth
from tadp_da.storage.files import replacing, storing, write_json
from tadp_da.terminal import tracked
from tadp_da.types import Boxes, DomainDescription, LabelSpace

LABELS = LabelSpace(task="segmentation", classes=CLASSES, palette=PALETTE)
_THINGS = {"car": "car", "person": "person", "tree": "vegetation", "pole": "pole"}
"""Classes of boxes, and the masks' class of each."""
THINGS = LabelSpace(
    task="detection",
    classes=tuple(_THINGS),
    palette=tuple(PALETTE[CLASSES.index(stuff)] for stuff in _THINGS.values()),
)
BOXED = ("mini-day", "mini-manga", "mini-aquarelle", "mini-dev-thermal", "mini-dev-night")
"""Domains that also come with boxes."""
METRES = "metres"  # maps in a folder "depth" are of before hedges had their own distance
DEPTH = LabelSpace("depth", (), range=(1.0, 100.0))
DEEP = ("mini-day", "mini-night", "mini-dev-night")
"""Domains that also come with depth."""

COUNTS = {"train": 600, "val": 100, "test": 200, "unlabeled": 300}
SIZE = (128, 128)
SOURCE = "mini-day"
CAPTIONS, BOXES = "captions.json", "boxes.json"

DEVELOPMENT = {"mini-dev-thermal": "thermal", "mini-dev-night": "misty-night"}
"""Domains that settings are chosen on, and their looks."""
_NAMES = {"city-night": "mini-night", "night": "mini-seen-night", "misty-night": "mini-dev-night"}
"""``mini-night`` is the held-out night, ``mini-seen-night`` the one that was in the pretraining."""

_COMMON_WORLDS = {"val": 7_000_001, "test": 7_000_002}
_SOURCE_WORLDS = _COMMON_WORLDS | {"train": 7_000_003, "unlabeled": 7_000_004}
_TARGET_WORLDS = _COMMON_WORLDS | {"train": 7_000_005, "unlabeled": 7_000_006}
_DEVELOPMENT_WORLDS = {"val": 7_100_001, "test": 7_100_002, "train": 7_100_003, "unlabeled": 7_100_004}
"""World seeds, far from those used for pretraining."""

_WRITING = threading.Lock()
_CHANGED = 2.0
"""Mean gray levels: library versions may round a pixel differently, another world differs by tens."""


def domain_name(look: str) -> str:
    """Registry name of the domain of a look, e.g. ``"mini-manga"``."""
    return _NAMES.get(look, f"mini-{look}")


LOOK_OF = {domain_name(look): look for look in LOOKS} | DEVELOPMENT
"""The look of each domain."""


def draw(root: Path, name: str, split: str, *, count: int | None = None) -> Path:
    """Draw a split, unless it exists, and return its folder, which is created atomically.

    Args:
        root: data root; the domain's folder is created in it.
        name: of the domain, a key of ``LOOK_OF``.
        split: one of ``COUNTS``.
        count: number of scenes; None for the whole split.

    Raises:
        DataError: if the existing split was drawn by another version of the world, or with another count.
        EnvironmentSetupError: if the root is not writable.
    """
    count = COUNTS[split] if count is None else count
    place = root / name / split
    try:
        if not place.exists():
            _draw_all(root, place, count)
    except OSError as error:
        raise EnvironmentSetupError(
            f"cannot draw {count} images: {error}",
            where=place,
            fix="give a writable root with 100 MB of free space",
        ) from error
    _check_drawn(place, count)
    return place


def _draw_all(root: Path, place: Path, count: int) -> None:
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    captions = {}
    try:
        (fresh / "images").mkdir(parents=True)
        (fresh / "labels").mkdir()
        for index in tracked(range(count), count, f"drawing {place.parent.name} {place.name}"):
            scene, image = _scene(place, index)
            name = f"{index:05d}.png"
            _save(image, fresh / "images" / name)
            _save(scene.mask, fresh / "labels" / name)
            captions[(place / "images" / name).relative_to(root).as_posix()] = {"captions": [scene.caption]}
        (fresh / CAPTIONS).write_text(json.dumps(captions, indent=1) + "\n", encoding="utf-8")
        try:
            fresh.replace(place)
        except OSError:
            if not place.exists():  # another process was first and drew the same
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _scene(place: Path, index: int) -> tuple[Scene, NDArray[np.uint8]]:
    """A scene of a drawn split, whose folder names domain and split, and its image."""
    seed = _seed(place)
    scene = draw_scene(seed, index, size=SIZE)
    return scene, render(scene, LOOK_OF[place.parent.name], seed, index)


def _seed(place: Path) -> int:
    name, split = place.parent.name, place.name
    if name in DEVELOPMENT:
        return _DEVELOPMENT_WORLDS[split]
    return (_SOURCE_WORLDS if name == SOURCE else _TARGET_WORLDS)[split]


def _check_drawn(place: Path, count: int) -> None:
    """Compare the count and the first image and mask with what would be drawn now."""
    from PIL import Image

    found = sum(1 for _ in (place / "images").glob("*.png"))
    fix = f"delete {place}; it will be drawn again"
    if found != count or not (place / CAPTIONS).exists():
        raise DataError(f"a drawn split has {found} images, expected {count}", where=place, fix=fix)
    for folder, expected in _first(place.parent.name, place.name).items():
        with Image.open(place / folder / "00000.png") as file:
            stored = np.asarray(file)
        if stored.shape != expected.shape or np.abs(stored - expected.astype(float)).mean() > _CHANGED:
            raise DataError(f"{folder} were drawn by another version of the world", where=place, fix=fix)


@cache
def _first(name: str, split: str) -> Mapping[str, NDArray[np.uint8]]:
    """What the first image and mask of a split must be, by folder. Every stage that reads the split asks for them."""
    scene, image = _scene(Path(name, split), 0)
    return {"images": image, "labels": scene.mask}


def _save(values: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    Image.fromarray(values).save(path, compress_level=1)


def _images(name: str, root: Path, split: str) -> tuple[Path, ...]:
    return tuple(sorted((draw(root, name, split) / "images").glob("*.png")))


def _label(image: Path) -> Mask:
    return read_mask(image.parent.parent / "labels" / image.name, LABELS, image=image)


def _read_boxes(image: Path) -> Boxes:
    """The boxes of one image. Threads ask for those of one split at once; one of them writes the file."""
    with _WRITING:
        return _boxes_of(image.parent.parent)[image.stem]


def _read_depth(image: Path) -> Depth:
    """The depth of one image, drawn again and written to its file unless it exists."""
    place = image.parent.parent
    path = place / METRES / image.name
    with _WRITING, storing(path):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as fresh:
                depth = draw_scene(_seed(place), int(image.stem), size=SIZE).depth
                write_depth(depth, fresh, SKY_DEPTH, path.suffix)
    return read_depth(path, image=image)


@lru_cache(maxsize=16)
def _boxes_of(place: Path) -> Mapping[str, Boxes]:
    """The boxes of a drawn split by the stem of their image, written to its file unless it exists."""
    path, names = place / BOXES, sorted(path.stem for path in (place / "images").glob("*.png"))
    if not path.exists():
        ids = {CLASSES.index(stuff): thing for thing, stuff in _THINGS.items()}
        drawn = tracked(names, len(names), f"boxes of {place.parent.name} {place.name}")
        scenes = {name: draw_scene(_seed(place), int(name), size=SIZE) for name in drawn}
        with storing(path):
            write_json(
                path,
                {n: [{"class": ids[b.label], "xyxy": b.xyxy} for b in s.boxes] for n, s in scenes.items()},
            )
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Boxes(
                np.array([thing["xyxy"] for thing in stored[name]], np.float32).reshape(-1, 4),
                np.array([THINGS.classes.index(thing["class"]) for thing in stored[name]], np.int64),
                np.zeros(len(stored[name]), bool),
            )
            for name in names
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = f"delete {path}; it will be written again"
        raise DataError(f"boxes cannot be read: {error!r}", where=path, fix=fix) from error


def _description(look: Look) -> DomainDescription:
    """Style and medium of the look, the templates of the paper (TADP, appendix D), and the two control domains."""
    if look.name == "day":
        return DomainDescription(medium=look.medium)
    painted = look.medium in ("painting", "drawing")
    templates = {"simple": look.templates[0]}
    if painted:
        concept = f"a {{word}} style {look.medium} of {{caption}}"
        templates |= {"textual-inversion": concept, "dreambooth": concept}
    elif "night" in look.name:
        templates["textual-inversion"] = "a dark {word} photo of {caption}"
        templates["dreambooth"] = "a dashcam photo of {caption} at {word} night"
    near = {"foggy": "a rainy photo", "comic": "a watercolor painting"}
    return DomainDescription(
        medium=look.medium,
        style=look.style,
        nearby=near.get(look.style, "a comic style painting" if painted else "a foggy photo"),
        unrelated="a dashcam photo" if painted else "a watercolor painting",
        templates=templates,
    )


_FETCH = "nothing to download: images are drawn into the root on first use; give a writable root"


def _domain(name: str, labels: LabelSpace, label: Callable[[Path], Any], suffix: str = "") -> None:
    domains.add(name + suffix)(
        Domain(
            name=name + suffix,
            description=_description(LOOKS[LOOK_OF[name]]),
            splits=tuple(COUNTS),
            images=partial(_images, name),
            labels=labels,
            label=label,
            captions=lambda root, split: root / name / split / CAPTIONS,
            fetch=_FETCH,
        )
    )


for _name in LOOK_OF:
    _domain(_name, LABELS, _label)
for _name in BOXED:
    _domain(_name, THINGS, _read_boxes, "-boxes")
for _name in DEEP:
    _domain(_name, DEPTH, _read_depth, "-depth")
