"""Names of labels that differ from those of their images in the same way: ``0.jpg`` and ``0_mask.png``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

_LABEL_WORDS = re.compile(r"mask|label|gt|seg|annot|truth|ids|colou?r", re.IGNORECASE)
_PARTS = "_-. "


class Swap(NamedTuple):
    """One ending, or one beginning, of the names of images instead of which labels have another."""

    image: str
    label: str
    ending: bool

    def __call__(self, stem: str) -> str:
        """The stem of the label of an image; empty for an image that has not this ending or beginning."""
        folder, slash, name = stem.rpartition("/")
        if self.ending and name.endswith(self.image):
            return f"{folder}{slash}{name.removesuffix(self.image)}{self.label}"
        if not self.ending and name.startswith(self.image):
            return f"{folder}{slash}{self.label}{name.removeprefix(self.image)}"
        return ""


def find_swaps(images: Sequence[str], labels: Collection[str]) -> list[Swap]:
    """What may be exchanged in the stems of images to get those of labels, for at least half of the images.

    Args:
        images: stems with their sub-folders; none of them is a label's.
        labels: stems with their sub-folders.

    Returns:
        Those that suit the most images: several, if there are several labels of each.
    """
    sample = images[:: max(len(images) // 20, 1)]
    tried = {swap for stem in sample[:3] for label in labels for swap in _swaps(stem, label)}
    tried = {s for s in tried if (not s.image or len(images) > 2 or _LABEL_WORDS.search(s.label))}
    hits = {swap: sum(swap(stem) in labels for stem in sample) for swap in tried}
    hits = {swap: sum(swap(s) in labels for s in images) for swap, n in hits.items() if 2 * n >= len(sample)}
    return [swap for swap, n in hits.items() if n == max(hits.values()) and 2 * n >= len(images)]


def _swaps(image: str, label: str) -> Iterator[Swap]:
    """The exchanges of an ending or a beginning, at a boundary of words, that turn one stem into the other."""
    (place, _, one), (other_place, _, two) = image.rpartition("/"), label.rpartition("/")
    if place != other_place:
        return
    for ending in (True, False):
        turned = (lambda text: text) if ending else (lambda text: text[::-1])
        pairs = zip(turned(one), turned(two), strict=False)
        common = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        old, new = turned(one)[len(common) :], turned(two)[len(common) :]
        if not common or any(part.strip(_PARTS).isdecimal() for part in (old, new)):
            continue  # another number is another image
        first = (new or old)[0]
        if common[-1] in _PARTS or first in _PARTS or (common[-1].isdecimal() and first.isalpha()):
            yield Swap(turned(old), turned(new), ending)
