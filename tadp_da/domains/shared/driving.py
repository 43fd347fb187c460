"""Common parts of the driving data sets: the 19 classes of Cityscapes, its two numberings, and Dark Zurich's nights.

Cityscapes (Cordts et al., CVPR 2016) stores *label ids* 0..33; 19 of them are trained and scored under *train ids*
0..18. Official files are ``*_labelIds.png``; its scripts, and those of other data sets, write ``*_labelTrainIds.png``.
Both are accepted: label ids are converted on load.

The file name says which numbering a file uses. Values that only one numbering has (19 to 33; 255) reveal a wrong name
in the file itself, which is refused; where a file holds neither, the histogram over all files of a split decides, in
``data check`` and before every run (:func:`misnamed`). Nothing is converted against its name: files of the same set
without such a value could not be told apart one by one, and would be read wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tadp_da.domains.formats.files import dataset_folder
from tadp_da.domains.formats.masks import Counts, Mask, StoredMask, read_mask, total_counts
from tadp_da.errors import DataError
from tadp_da.storage.listing import image_files
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
"""Label id to train id; ids that are not trained are ignored."""

_TRAIN, _LABEL = "labelTrainIds", "labelIds"
"""Endings of the file names of the two numberings."""
_ROAD = {_TRAIN: 0, _LABEL: 7}
"""The id of road in each: in the other numbering, 0 is unlabelled and 7 a traffic sign, both rare."""
_NAMES = {_TRAIN: "train ids", _LABEL: "label ids"}

DARK_ZURICH = ("dark_zurich", "Dark_Zurich", "dark-zurich")
"""Usual names of the folder of Dark Zurich."""


def read_ids(image: Path, prefix: Path) -> Mask:
    """The train ids of an image, from ``<prefix>_labelTrainIds.png`` or else from ``<prefix>_labelIds.png``.

    Raises:
        DataError: if there is neither, or the values of a file contradict its name.
    """
    train_ids, label_ids = (prefix.with_name(f"{prefix.name}_{kind}.png") for kind in (_TRAIN, _LABEL))
    if train_ids.is_file() or not label_ids.is_file():
        return read_mask(train_ids, LABELS, image=image)
    try:
        return read_mask(label_ids, LABELS, image=image, mapping=LABEL_IDS)
    except DataError as error:
        if f"value {LABELS.ignore} in" not in error.what:
            raise
        raise DataError(
            f"{error.what}; it looks like train ids, where {LABELS.ignore} is ignored",
            where=error.where,
            fix=f"rename it to {train_ids.name}, or fetch the label ids again",
        ) from None


def misnamed(files: Iterable[StoredMask]) -> list[tuple[str, tuple[Path, ...], str]]:
    """Files of a split that together use the other numbering than their names say, as (problem, files, fix).

    Files whose own values reveal the numbering are left out: they are refused one by one.
    """
    found = []
    stored = list(files)
    for kind, other in ((_TRAIN, _LABEL), (_LABEL, _TRAIN)):
        named = [file for file in stored if file.path.stem.endswith(f"_{kind}")]
        if not named or _numbering(total_counts(file.counts for file in named)) != other:
            continue
        if silent := tuple(file.path for file in named if _decisive(file.counts) != {other}):
            what = (
                f"files named *_{kind}.png hold {_NAMES[other]} according to the histogram of all {len(named)} of the "
                "split: they would be read as wrong classes"
            )
            fix = f"rename all of them to *_{other}.png, or fetch the {_NAMES[kind]} again"
            found.append((what, silent, fix))
    return found


def _numbering(counts: Counts) -> str | None:
    """The ending that files with these values should have; None if the values are ambiguous or contradictory."""
    decisive = _decisive(counts)
    if decisive:
        return decisive.pop() if len(decisive) == 1 else None
    # All values are 0 to 18, which both have. No view from a car is without road: require a twentieth of the pixels,
    # and ten times as many as under the road id of the other numbering.
    pixels = {kind: int(counts[road : road + 1].sum()) for kind, road in _ROAD.items()}
    most, least = sorted(pixels, key=pixels.__getitem__, reverse=True)
    clear = pixels[most] >= max(10 * pixels[least], counts.sum() / 20, 1)
    return most if clear else None


def _decisive(counts: Counts) -> set[str]:
    """The numberings proved by a value that only they have: 19 to 33 are label ids, 255 is a train id."""
    trained = len(LABELS.classes)
    label = counts[trained : max(LABEL_IDS) + 1].any()
    train = counts[LABELS.ignore : LABELS.ignore + 1].any()
    return {kind for kind, there in ((_LABEL, label), (_TRAIN, train)) if there}


def dark_zurich_images(root: Path, split: str, time: str = "night") -> tuple[Path, ...]:
    """Images of a split (train, val, test) of Dark Zurich at one time of day."""
    return image_files(dataset_folder(root, DARK_ZURICH, "rgb_anon") / "rgb_anon" / split / time)
