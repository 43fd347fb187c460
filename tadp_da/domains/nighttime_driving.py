"""Nighttime Driving: 50 labelled photographs, 1920x1080, from a car (Dai and Van Gool, ITSC 2018). A target domain.

    <root>/NighttimeDrivingTest/leftImg8bit/test/night/0_frame_1824_leftImg8bit.png
    <root>/NighttimeDrivingTest/gtCoarse_daytime_trainvaltest/test/night/0_frame_1824_gtCoarse_labelTrainIds.png
    <root>/dark_zurich/rgb_anon/train/night/...                                     ``unlabeled``

Its own unlabelled images are not part of the download. As in the paper (TADP, appendix D.1), the concept of
night is learned from Dark Zurich's 2416 unlabelled night images: they are ``unlabeled`` here.
"""

from __future__ import annotations

from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.files import dataset_folder
from tadp_da.domains.formats.masks import Mask
from tadp_da.domains.shared.driving import LABELS, dark_zurich_images, read_ids
from tadp_da.domains.shared.paper_description import paper_description
from tadp_da.storage.listing import image_files

_PLACES = (
    "NighttimeDrivingTest",
    "NighttimeDrivingTest/NighttimeDrivingTest",  # unpacked inside a folder of the same name
    "nighttime_driving",
)
_ENDING = "_leftImg8bit"


def _images(root: Path, split: str) -> tuple[Path, ...]:
    if split == "unlabeled":
        return dark_zurich_images(root, "train")
    found = image_files(dataset_folder(root, _PLACES, "leftImg8bit") / "leftImg8bit" / "test" / "night")
    return tuple(path for path in found if path.stem.endswith(_ENDING))


def _label(image: Path) -> Mask:
    own = image.parent.parent.parent.parent
    place = own / "gtCoarse_daytime_trainvaltest" / "test" / "night"
    return read_ids(image, place / f"{image.stem.removesuffix(_ENDING)}_gtCoarse")


NIGHTTIME_DRIVING = Domain(
    name="nighttime-driving",
    description=paper_description("nighttime-driving"),
    splits=("unlabeled", "test"),
    images=_images,
    labels=LABELS,
    labelled=("test",),
    label=_label,
    counts={"unlabeled": 2416, "test": 50},
    fetch="fetch http://data.vision.ee.ethz.ch/daid/NighttimeDriving/NighttimeDrivingTest.zip and unpack it into ROOT, "
    "so that ROOT/NighttimeDrivingTest holds leftImg8bit/ and gtCoarse_daytime_trainvaltest/; its unlabelled images "
    "are Dark Zurich's: put rgb_anon/train/night/ of Dark_Zurich_train_anon.zip into ROOT/dark_zurich; give ROOT as "
    "the root",
)
domains.add(NIGHTTIME_DRIVING.name)(NIGHTTIME_DRIVING)
