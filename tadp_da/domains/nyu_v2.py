"""NYU Depth V2 (Silberman et al., ECCV 2012): indoor scenes, 640x480, with the depth of a Kinect up to 10 m.

    <root>/nyu_depth_v2/sync/<scene>/rgb_00045.jpg                          and sync_depth_00045.png beside it
    <root>/nyu_depth_v2/official_splits/test/<scene>/rgb_00045.jpg          likewise

Depth maps are 16-bit PNGs in millimetres, 0 where the sensor saw nothing. ``train`` are the synchronized pairs of BTS
(Lee et al., 2019), 24,231 of them in the work that TADP compares with, ``test`` the 654 images of the official split,
scored by custom on rows 45 to 471 and columns 41 to 601 (Eigen et al., 2014): ``evaluate.crop=[45, 471, 41, 601]``.
Where ``nyu_depth_v2`` has the list ``train_list.txt`` of these works, the images of its lines are the training set.
"""

from __future__ import annotations

import re
from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.depth import Depth, read_depth
from tadp_da.domains.formats.depth_folder import depth_space
from tadp_da.domains.formats.files import dataset_folder, some
from tadp_da.errors import DataError
from tadp_da.storage.depth_files import MILLIMETRE
from tadp_da.storage.listing import image_files
from tadp_da.types import DomainDescription

LIST = "train_list.txt"
_FOLDERS = {"train": "sync", "unlabeled": "sync", "test": "official_splits/test"}
_FETCH = (
    "follow https://github.com/cleinc/bts (pytorch, NYU Depth V2): fetch sync.zip of its training pairs, and write the "
    "official test images from nyu_depth_v2_labeled.mat with its script; put both into ROOT/nyu_depth_v2, so that it "
    "holds sync/ and official_splits/test/; give ROOT as the root"
)


def _images(root: Path, split: str) -> tuple[Path, ...]:
    place = dataset_folder(root, ("nyu_depth_v2", "nyu", "NYUv2"), _FOLDERS[split])
    folder, names = place / _FOLDERS[split], place / LIST
    found = tuple(path for path in image_files(folder) if path.name.startswith("rgb_"))
    if split == "test" or not names.is_file():
        return found
    known = {path.relative_to(folder).as_posix(): path for path in found}
    lines = names.read_text(encoding="utf-8", errors="replace").splitlines()
    listed = [line.split()[0].lstrip("/") for line in lines if line.strip()]
    if missing := [name for name in listed if name not in known]:
        raise DataError(
            f"{len(missing)} of {len(listed)} listed images are missing: {some(missing)}",
            where=names,
            fix=_FETCH,
        )
    return tuple(known[name] for name in listed)


def _label(image: Path) -> Depth:
    depth = image.with_name(f"sync_depth_{image.stem.removeprefix('rgb_')}.png")
    return read_depth(depth, image=image, unit=MILLIMETRE)


def scene_of(image: Path) -> str:
    """``home office`` of ``home_office_0001a/rgb_00045.jpg``: one of the 27 kinds of places that VPD's prompts name,
    which are those of the test images. A recording in the makers' own rooms, ``nyu_office_0``, is one of an office."""
    return re.sub(r"_\d+[a-z]?$", "", image.parent.name).replace("_", " ").removeprefix("nyu ")


domains.add("nyu-v2")(
    Domain(
        name="nyu-v2",
        description=DomainDescription(nearby="a dim photo", unrelated="a watercolor painting"),
        splits=("train", "test", "unlabeled"),
        images=_images,
        labels=depth_space(10.0),
        labelled=("train", "test"),
        label=_label,
        scene=scene_of,
        counts={"train": 24231, "test": 654},
        fetch=_FETCH,
    )
)
