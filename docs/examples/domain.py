"""Harbour scenes: index masks of four classes, one folder per split."""

from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.masks import Mask, read_mask
from tadp_da.storage.listing import image_files
from tadp_da.types import DomainDescription, LabelSpace

LABELS = LabelSpace(
    task="segmentation",
    classes=("water", "quay", "boat", "crane"),
    palette=((60, 110, 180), (128, 128, 128), (220, 60, 40), (230, 180, 40)),
)


def images(root: Path, split: str) -> tuple[Path, ...]:
    """The images of a split in the order of their names."""
    return image_files(root / "harbour" / split)


def label(image: Path) -> Mask:
    """Class ids ``uint8 (h, w)`` of one image; other values are an error that names the file."""
    return read_mask(image.parent.parent / "masks" / image.parent.name / image.name, LABELS, image=image)


domains.add("harbour")(
    Domain(
        name="harbour",
        description=DomainDescription(
            medium="photo", style="foggy harbour", nearby="a rainy photo", unrelated="an oil painting"
        ),
        splits=("train", "unlabeled", "test"),
        images=images,
        labels=LABELS,
        label=label,
        fetch="give the folder that holds harbour/train, harbour/test and harbour/masks as the root",
    )
)
