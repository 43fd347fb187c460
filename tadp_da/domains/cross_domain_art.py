"""Watercolor2K, Comic2K and Clipart1k: artworks with boxes (Inoue et al., CVPR 2018). Target domains.

    <root>/cross-domain-detection/datasets/watercolor/{JPEGImages,Annotations,ImageSets/Main/{train,test,extra}.txt}
    <root>/cross-domain-detection/datasets/comic/...
    <root>/cross-domain-detection/datasets/clipart/...

``unlabeled`` are the images of the ``train`` list; ``train`` are the same with their boxes, for the supervised
ceiling only. ``extra`` has images and classes but no boxes (its files hold dummies, (1, 1, 1, 1)): it can be used as
images only. Some papers score on ``train`` and ``test`` together; here and in TADP it is ``test`` alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.files import dataset_folder
from tadp_da.domains.shared.paper_description import paper_description
from tadp_da.domains.shared.voc_layout import CLASSES, box_reader, listed_images
from tadp_da.types import DomainDescription, LabelSpace

SIX = ("bicycle", "bird", "car", "cat", "dog", "person")
_LISTS = {"unlabeled": "train", "train": "train", "test": "test", "extra": "extra"}
_MISMATCHED = {"clipart": {"681633840"}}
"""Images whose published boxes were made for another one (600x594 instead of 300x213); not used for training."""


def _images(folder: str, root: Path, split: str) -> tuple[Path, ...]:
    places = (f"cross-domain-detection/datasets/{folder}", f"datasets/{folder}", folder)
    found = listed_images(dataset_folder(root, places, "ImageSets"), _LISTS[split])
    if split != "train":
        return found
    return tuple(path for path in found if path.stem not in _MISMATCHED.get(folder, ()))


def _domain(
    name: str, folder: str, classes: tuple[str, ...], description: DomainDescription, images: int, extra: bool
) -> Domain:
    train = images - len(_MISMATCHED.get(folder, ()))
    return Domain(
        name=name,
        description=description,
        splits=("unlabeled", "train", "test") + ("extra",) * extra,
        images=partial(_images, folder),
        labels=LabelSpace(task="detection", classes=classes),
        labelled=("train", "test"),
        label=box_reader(classes),
        counts={"unlabeled": images, "train": train, "test": images},
        fetch=f"fetch http://www.hal.t.u-tokyo.ac.jp/~inoue/projects/cross_domain_detection/datasets/{folder}.zip and "
        f"unpack it into ROOT/cross-domain-detection/datasets, so that {folder}/ holds JPEGImages/, Annotations/ and "
        "ImageSets/Main/; give ROOT as the root",
    )


_CLIPART = DomainDescription(
    medium="illustration", style="clipart", nearby="a cartoon drawing", unrelated="a dashcam photo"
)
for _made in (
    _domain("watercolor2k", "watercolor", SIX, paper_description("watercolor2k"), 1000, extra=True),
    _domain("comic2k", "comic", SIX, paper_description("comic2k"), 1000, extra=True),
    _domain("clipart1k", "clipart", CLASSES, _CLIPART, 500, extra=False),
):
    domains.add(_made.name)(_made)
