"""Pascal VOC (Everingham et al., IJCV 2010): photographs, 20 classes. Source domains for boxes and for masks.

    <root>/VOCdevkit/VOC2007/{JPEGImages,Annotations,ImageSets/Main}
    <root>/VOCdevkit/VOC2012/{JPEGImages,Annotations,SegmentationClass,ImageSets/{Main,Segmentation}}

``voc-detection`` trains on the trainval lists of both years (5,011 + 11,540 images) and is scored on the test list of
2007. ``voc-segmentation`` trains on the Segmentation/train list of 2012; its ``test`` is Segmentation/val, as the
labels of its test list were never published. Background is class 0, as in the files.
"""

from __future__ import annotations

from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.shared.voc_layout import (
    BOXES,
    CLASSES,
    MASKS,
    box_reader,
    listed_images,
    mask_of,
    without_boundary,
    year_folder,
)
from tadp_da.errors import DataError

_FETCH = (
    "fetch VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar from "
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/ "
    "and VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, and unpack all in ROOT, "
    "so that ROOT/VOCdevkit holds VOC2007/ and VOC2012/; give ROOT as the root"
)


def _detection(root: Path, split: str) -> tuple[Path, ...]:
    if split == "test":
        return listed_images(year_folder(root, 2007), "test")
    years = {year: listed_images(year_folder(root, year), "trainval") for year in (2007, 2012)}
    if any(years.values()) and not all(years.values()):
        lacking = next(year for year, found in years.items() if not found)
        raise DataError(
            f"VOC{lacking} is missing: training uses the trainval lists of 2007 and 2012",
            where=root,
            fix=_FETCH,
        )
    return years[2007] + years[2012]


def _segmentation(root: Path, split: str) -> tuple[Path, ...]:
    names = {"train": "train", "test": "val"}[split]
    return listed_images(year_folder(root, 2012), names, kind="Segmentation")


DETECTION = Domain(
    name="voc-detection",
    splits=("train", "test"),
    images=_detection,
    labels=BOXES,
    label=box_reader(CLASSES),
    counts={"train": 16551, "test": 4952},
    fetch=_FETCH,
)
SEGMENTATION = Domain(
    name="voc-segmentation",
    splits=("train", "test"),
    images=_segmentation,
    labels=MASKS,
    label=lambda image: mask_of(image, "SegmentationClass"),
    doubts=without_boundary,
    counts={"train": 1464, "test": 1449},
    fetch=_FETCH,
)
domains.add(DETECTION.name)(DETECTION)
domains.add(SEGMENTATION.name)(SEGMENTATION)
