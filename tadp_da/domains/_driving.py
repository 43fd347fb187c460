"""What the driving data sets share: the 19 classes of Cityscapes, its two numberings, and Dark Zurich's nights.

Cityscapes (Cordts et al., CVPR 2016) stores *label ids* 0..33; of these 19 are trained and scored under *train ids*
0..18. Official files are ``*_labelIds.png``; its scripts, and those of other data sets, make ``*_labelTrainIds.png``.
Either will do: label ids are renumbered on load.
"""

from __future__ import annotations

from pathlib import Path

from tadp_da.domains._files import home, pictures
from tadp_da.domains._masks import Mask, read_mask
from tadp_da.errors import DataError
from tadp_da.types import LabelSpace

LABELS = LabelSpace(
    task="segmentation",
    classes=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
        (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
        (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip
"""The classes in the order of their train ids, in Cityscapes' colours."""

_TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LABEL_IDS = dict.fromkeys(range(34), LABELS.ignore) | {label: train for train, label in enumerate(_TRAINED)}
"""Label id to train id; the ids that are not trained are ignored."""

DARK_ZURICH = ("dark_zurich", "Dark_Zurich", "dark-zurich")
"""Usual names of its folder."""


def read_ids(image: Path, prefix: Path) -> Mask:
    """The train ids of an image, from ``<prefix>_labelTrainIds.png`` or else from ``<prefix>_labelIds.png``.

    Raises:
        DataError: when there is neither, or a file's values are of the other numbering than its name says.
    """
    train_ids, label_ids = (
        prefix.with_name(f"{prefix.name}_{kind}.png") for kind in ("labelTrainIds", "labelIds")
    )
    if train_ids.is_file() or not label_ids.is_file():
        return read_mask(train_ids, LABELS, image=image)
    try:
        return read_mask(label_ids, LABELS, image=image, mapping=LABEL_IDS)
    except DataError as error:
        if f"value {LABELS.ignore} in" not in error.what:
            raise
        raise DataError(
            f"{error.what}; it looks like train ids, of which {LABELS.ignore} is the ignored one",
            where=error.where,
            fix=f"rename it to {train_ids.name}, or fetch the label ids again",
        ) from None


def dark_zurich_images(root: Path, split: str, time: str = "night") -> tuple[Path, ...]:
    """Images of a split (train, val, test) of Dark Zurich at one time of day."""
    return pictures(home(root, DARK_ZURICH, "rgb_anon") / "rgb_anon" / split / time)
