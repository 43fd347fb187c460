"""Cityscapes: 2048x1024 photographs from a car by day, 19 classes (Cordts et al., CVPR 2016). A source domain.

    <root>/cityscapes/leftImg8bit/{train,val,test}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    <root>/cityscapes/gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png (or ..._labelTrainIds.png)

``test`` is what is scored here and is Cityscapes' ``val``: the labels of its own test images are on a server.
``server`` are those images.
"""

from __future__ import annotations

from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.files import dataset_folder
from tadp_da.domains.formats.masks import Mask
from tadp_da.domains.shared.driving import LABELS, read_ids
from tadp_da.storage.listing import image_files

_FOLDERS = {"train": "train", "test": "val", "server": "test"}
_ENDING = "_leftImg8bit"


def _images(root: Path, split: str) -> tuple[Path, ...]:
    found = image_files(
        dataset_folder(root, ("cityscapes", "Cityscapes"), "leftImg8bit") / "leftImg8bit" / _FOLDERS[split]
    )
    return tuple(path for path in found if path.stem.endswith(_ENDING))


def _label(image: Path) -> Mask:
    city, split = image.parent, image.parent.parent
    place = split.parent.parent / "gtFine" / split.name / city.name
    return read_ids(image, place / f"{image.stem.removesuffix(_ENDING)}_gtFine")


CITYSCAPES = Domain(
    name="cityscapes",
    splits=("train", "test", "server"),
    images=_images,
    labels=LABELS,
    labelled=("train", "test"),
    label=_label,
    counts={"train": 2975, "test": 500, "server": 1525},
    fetch="register at https://www.cityscapes-dataset.com, fetch leftImg8bit_trainvaltest.zip and "
    "gtFine_trainvaltest.zip, and unpack both into ROOT/cityscapes, so that it holds leftImg8bit/ and gtFine/; give "
    "ROOT as the root. Label ids are converted on load: no other conversion is needed",
)
domains.add(CITYSCAPES.name)(CITYSCAPES)
