"""Objects of one image pasted into another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.analyses.shared.images import Seen
from tadp_da.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Pasted:
    """An image with an object of another one, at the place that it had there.

    Attributes:
        seen: the image without the object.
        image: with it.
        region: ``(h, w)``, where it is.
        donor: key of the image that it is from.
    """

    seen: Seen
    image: Image.Image
    region: NDArray[np.bool_]
    donor: str

    def under(self, values: NDArray[np.float64]) -> str:
        """Name of the class at the peak of a map ``(h, w)`` over the image without the object."""
        found = int(self.seen.truth.flat[int(values.argmax())])
        return self.seen.labels.classes[found] if found < len(self.seen.labels.classes) else "unlabelled"


def paste_objects(seen: Sequence[Seen], name: str) -> list[Pasted]:
    """Every image without a class, with the largest object of that class of the next image that has one.

    Raises:
        UsageError: when the labels are no masks, or no image lacks the class, or none has it.
    """
    classes = seen[0].labels.classes
    if name not in classes or not isinstance(seen[0].truth, np.ndarray):
        raise UsageError(
            f"objects of {name!r} cannot be cut out",
            where="paste",
            fix=f"give images with masks, and one of their classes: {', '.join(classes)}",
        )
    without = [i for i, each in enumerate(seen) if name not in each.present]
    having = [i for i, each in enumerate(seen) if name in each.present]
    if not without or not having:
        raise UsageError(
            f"{len(having)} of {len(seen)} images show the class {name!r}; of both kinds one is needed",
            where="paste",
            fix="choose another class, or more images with --set limit=N",
        )
    return [_pasted(seen[i], seen[next((j for j in having if j > i), having[0])], name) for i in without]


def _pasted(seen: Seen, donor: Seen, name: str) -> Pasted:
    from scipy.ndimage import label

    parts, _ = label(donor.mask(name))
    largest = parts == 1 + np.bincount(parts[parts > 0] - 1).argmax()
    size = seen.image.size
    image = donor.image.convert("RGB").resize(size)
    region = np.asarray(Image.fromarray(largest).resize(size, Image.Resampling.NEAREST))
    mixed = np.where(region[..., None], np.asarray(image), np.asarray(seen.image.convert("RGB")))
    return Pasted(seen=seen, image=Image.fromarray(mixed), region=region, donor=donor.key)
