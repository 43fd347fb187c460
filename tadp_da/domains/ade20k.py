"""ADE20K, the 150 classes of its scene parsing benchmark (Zhou et al., CVPR 2017): photographs of scenes of all kinds.

    <root>/ADEChallengeData2016/images/{training,validation}/ADE_train_00000001.jpg
    <root>/ADEChallengeData2016/annotations/{training,validation}/ADE_train_00000001.png

Files hold 0 for pixels of no class and 1 to 150 for the classes. They are read as they were published: 0 is ignored,
and the ids of classes are 0 to 149 ("reduced zero label"). ``test`` is the validation set, as the labels of the test
set were never published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tadp_da.domains import Domain, Doubt, domains
from tadp_da.domains.formats.files import dataset_folder
from tadp_da.domains.formats.masks import Mask, StoredMask, read_mask, total_counts
from tadp_da.errors import DataError
from tadp_da.storage.listing import image_files
from tadp_da.types import DomainDescription, LabelSpace

_CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat",
    "bar", "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator",
    "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle",
    "oven", "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake",
    "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan",
    "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
LABELS = LabelSpace("segmentation", _CLASSES)
REDUCED = {0: LABELS.ignore} | {value: value - 1 for value in range(1, len(_CLASSES) + 1)}
"""Stored value to class id."""

_COMMON = np.array([0.158, 0.107, 0.088, 0.062, 0.048, 0.045, 0.040])
"""Shares of the pixels of the training set that the first classes have, in their order."""
_ENOUGH = 200
"""Masks below which nothing is concluded from the shares of classes."""
_FOLDERS = {"train": "training", "test": "validation"}
_FETCH = (
    "fetch ADEChallengeData2016.zip from http://data.csail.mit.edu/places/ADEchallenge/ and unpack it in ROOT, so that "
    "ROOT/ADEChallengeData2016 holds images/ and annotations/; give ROOT as the root"
)
_AS_PUBLISHED = (
    "unpack annotations/ of ADEChallengeData2016.zip again: files are read as they were published, 0 for no class and "
    "1 to 150, and the zero label is reduced on load"
)


def _images(root: Path, split: str) -> tuple[Path, ...]:
    place = dataset_folder(root, ("ADEChallengeData2016", "ade/ADEChallengeData2016"), "images")
    return image_files(place / "images" / _FOLDERS[split])


def _label(image: Path) -> Mask:
    path = image.parents[2] / "annotations" / image.parent.name / f"{image.stem}.png"
    try:
        return read_mask(path, LABELS, image=image, mapping=REDUCED)
    except DataError as error:
        if "legend" not in error.what and "one channel" not in error.what:
            raise
        what = error.what.replace(", which the legend does not list", "; expected 0 to 150")
        if "one channel" in what:
            what += "; it may be a _seg.png of the full ADE20K, which is another data set"
        elif "value 254" in what or "value 255" in what:
            what += "; the zero label looks reduced before: ids of classes would be one too low, or two"
        raise DataError(what, where=error.where, fix=_AS_PUBLISHED) from None


def _doubts(stored: Sequence[StoredMask]) -> list[Doubt]:
    """Masks whose classes, by their shares, are one id too low though no value says so."""
    counts = total_counts(mask.counts for mask in stored)
    if len(stored) < _ENOUGH or len(counts) < len(_COMMON) + 1:
        return []
    shares = counts / counts.sum()

    def distance(wall: int) -> float:
        """Mean distance from the usual shares, if walls are stored as this value."""
        return float(np.abs(shares[wall:][: len(_COMMON)] - _COMMON).mean())

    if distance(0) > 0.7 * distance(1):
        return []
    what = (
        f"by the shares of the classes in all {len(stored)} masks, 'wall' is stored as 0: the zero label looks reduced "
        "before, and the ids of all classes would be one too low"
    )
    return [(what, tuple(mask.path for mask in stored), _AS_PUBLISHED)]


domains.add("ade20k")(
    Domain(
        name="ade20k",
        description=DomainDescription(nearby="a dim photo", unrelated="a watercolor painting"),
        splits=("train", "test"),
        images=_images,
        labels=LABELS,
        label=_label,
        doubts=_doubts,
        counts={"train": 20210, "test": 2000},
        fetch=_FETCH,
    )
)
