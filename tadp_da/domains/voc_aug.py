"""Pascal VOC 2012 with the masks of SBD (Hariharan et al., ICCV 2011): the set on which segmentation of VOC is trained.

    <root>/VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,SegmentationClassAug,ImageSets/Segmentation}

``train`` is the list ``trainaug``, 10,582 images that are not in val: 1,464 with VOC's own masks, the others with
SBD's. ``SegmentationClassAug`` has them as index PNGs. ``test`` is VOC's val, 1,449 images with its own masks.
Background is class 0; 255 marks the boundary of objects, which is ignored. Where there is no list ``trainaug``, all
images that have a mask in ``SegmentationClassAug`` and are not in val are taken.
"""

from __future__ import annotations

from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.masks import Mask
from tadp_da.domains.shared.voc_layout import MASKS, listed_images, mask_of, without_boundary, year_folder
from tadp_da.storage.listing import label_files
from tadp_da.types import DomainDescription

_OWN, _SBD = "SegmentationClass", "SegmentationClassAug"
_FETCH = (
    "fetch VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ and unpack it in ROOT; put "
    "SegmentationClassAug, the masks of SBD as index PNGs (mmsegmentation's tools/dataset_converters/voc_aug.py makes "
    "them of http://home.bharathh.info/pubs/codes/SBD/download.html, and the list trainaug.txt), into "
    "ROOT/VOCdevkit/VOC2012, and trainaug.txt into its ImageSets/Segmentation; give ROOT as the root"
)


def _images(root: Path, split: str) -> tuple[Path, ...]:
    folder = year_folder(root, 2012)
    val = listed_images(folder, "val", kind="Segmentation")
    if split == "test":
        return val
    if listed := listed_images(folder, "trainaug", kind="Segmentation"):
        return listed
    known = {path.stem for path in val}
    stems = [path.stem for path in label_files(folder / _SBD, (".png",)) if path.stem not in known]
    return tuple(folder / "JPEGImages" / f"{stem}.jpg" for stem in stems)


def _mask(image: Path) -> Mask:
    own = (image.parents[1] / _OWN / f"{image.stem}.png").is_file()
    return mask_of(image, _OWN if own else _SBD)


domains.add("voc-segmentation-aug")(
    Domain(
        name="voc-segmentation-aug",
        description=DomainDescription(nearby="a dim photo", unrelated="a watercolor painting"),
        splits=("train", "test"),
        images=_images,
        labels=MASKS,
        label=_mask,
        doubts=without_boundary,
        counts={"train": 10582, "test": 1449},
        fetch=_FETCH,
    )
)
