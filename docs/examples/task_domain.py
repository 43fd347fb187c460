"""A domain for the task of ``task.py``: masks say which classes an image shows."""

from pathlib import Path

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.masks import Mask, read_mask
from tadp_da.storage.listing import image_files
from tadp_da.types import DomainDescription, LabelSpace

LABELS = LabelSpace(task="presence", classes=("water", "quay", "boat", "crane"))


def images(root: Path, split: str) -> tuple[Path, ...]:
    """The images of a split in the order of their names."""
    return image_files(root / "harbour" / split)


def label(image: Path) -> Mask:
    """Class ids ``uint8 (h, w)`` of one image."""
    return read_mask(image.parent.parent / "masks" / image.parent.name / image.name, LABELS, image=image)


domains.add("harbour-presence")(
    Domain(
        name="harbour-presence",
        description=DomainDescription(medium="photo", style="foggy harbour"),
        splits=("train", "test"),
        images=images,
        labels=LABELS,
        label=label,
        fetch="give the folder that holds harbour/train, harbour/test and harbour/masks as the root",
    )
)
