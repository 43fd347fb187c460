"""Dark Zurich: 1920x1080 photographs from a car at night (Sakaridis et al., ICCV 2019). A target domain.

    <root>/dark_zurich/rgb_anon/train/night/GOPR0351/GOPR0351_frame_000159_rgb_anon.png    ``unlabeled``, 2416
    <root>/dark_zurich/rgb_anon/val/night/GOPR0356/GOPR0356_frame_000375_rgb_anon.png    ``test``, 50
    <root>/dark_zurich/gt/val/night/GOPR0356/GOPR0356_frame_000375_gt_labelTrainIds.png    their labels
    <root>/dark_zurich/rgb_anon/test/night/...    ``server``, 151, whose labels are on a server

Of ``train`` only the night is the target; twilight and day are left alone. ``test`` is the data set's ``val``, on
which TADP reports: 50 frames of one drive, so some classes are rare.
"""

from __future__ import annotations

from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.masks import Mask
from tadp_da.domains.shared.driving import LABELS, dark_zurich_images, read_ids
from tadp_da.domains.shared.paper_description import paper_description

_FOLDERS = {"unlabeled": "train", "test": "val", "server": "test"}


def _images(root: Path, split: str) -> tuple[Path, ...]:
    return dark_zurich_images(root, _FOLDERS[split])


def _label(image: Path) -> Mask:
    drive, time, split = image.parent, image.parent.parent, image.parent.parent.parent
    place = split.parent.parent / "gt" / split.name / time.name / drive.name
    return read_ids(image, place / f"{image.stem.removesuffix('_rgb_anon')}_gt")


DARK_ZURICH = Domain(
    name="dark-zurich",
    description=paper_description("dark-zurich"),
    splits=("unlabeled", "test", "server"),
    images=_images,
    labels=LABELS,
    labelled=("test",),
    label=_label,
    counts={"unlabeled": 2416, "test": 50, "server": 151},
    fetch="fetch Dark_Zurich_train_anon.zip and Dark_Zurich_val_anon.zip from "
    "https://www.trace.ethz.ch/publications/2019/GCMA_UIoU/ and unpack both into ROOT/dark_zurich, so that it holds "
    "rgb_anon/train/night/, rgb_anon/val/night/ and gt/val/night/; give ROOT as the root",
)
domains.add(DARK_ZURICH.name)(DARK_ZURICH)
