"""Your own depth: folders of images with parallel folders of depth maps."""

from __future__ import annotations

from pathlib import Path

from tadp_da.domains import Domain
from tadp_da.domains.formats.depth import SUFFIXES, Depth, read_depth
from tadp_da.domains.formats.files import Folders, PairedFolders, absolute, by_split
from tadp_da.types import DomainDescription, LabelSpace

NEAREST = 0.001
"""Metres from which depths count."""


def depth_space(furthest: float) -> LabelSpace:
    """Depths up to so many metres."""
    return LabelSpace("depth", (), range=(NEAREST, furthest))


def depth_folder_domain(
    name: str,
    *,
    images: Folders,
    depth: Folders,
    unit: float | None = None,
    furthest: float = 10.0,
    description: DomainDescription | None = None,
) -> Domain:
    """A domain of your own images with a depth map each: 16-bit PNG or NPY. The ``root`` that is given later must
    contain the image folders: keys of caption files are paths relative to it.

    Args:
        name: for messages and records.
        images: one folder per split; a single folder is the split ``train``.
        depth: folders of the splits that have labels, paired by :class:`~tadp_da.domains.formats.files.PairedFolders`.
        unit: metres that a stored value of 1 means; see :func:`~tadp_da.domains.formats.depth.read_depth` for None.
        furthest: metres beyond which depths are not learned from and not scored.
        description: how captions may describe the domain.

    Raises:
        UsageError: if a labelled split has no images.
    """
    pairs = PairedFolders(name, by_split(images), by_split(depth), SUFFIXES, "depth map")

    def read(image: Path) -> Depth:
        image = absolute(image)
        return read_depth(pairs.label_file(image), image=image, unit=unit)

    return Domain(
        name=name,
        description=description or DomainDescription(),
        splits=tuple(pairs.images),
        images=pairs.list_images,
        labels=depth_space(furthest),
        labelled=tuple(pairs.labels),
        label=read,
        fetch=pairs.fetch,
    )
