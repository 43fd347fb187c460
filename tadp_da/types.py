"""Types that all parts of the project share. Shape letters: b batch, h w pixels, u v latent cells, t
tokens, d text width, k classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tadp_da.images import open_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

Side = Literal["source", "target"]


@dataclass(frozen=True)
class LabelSpace:
    """What a label says.

    Attributes:
        task: name of the kind of label in the registry :data:`tadp_da.tasks.tasks`.
        classes: class names in the order of their ids; none for a quantity.
        ignore: id of pixels that count neither in the loss nor in the score.
        palette: one RGB colour per class, for overlays; empty for a generated one.
        range: of a quantity, between which values count, in the unit of its task (metres for depth).
    """

    task: str
    classes: tuple[str, ...]
    ignore: int = 255
    palette: tuple[tuple[int, int, int], ...] = ()
    range: tuple[float, float] | None = None


SMALLEST_BOX = 1.0
"""Pixels of the shorter side below which nothing can be learned from a box at its working size."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The labelled objects of one image; an image without objects has ``n = 0``.

    Attributes:
        xyxy: ``float32 (n, 4)``: left, top, right, bottom in pixels of the displayed image, half-open: the first
            pixel column has ``x1 = 0``, the last ``x2 = w``, so the width is ``x2 - x1``.
        labels: ``int64 (n,)``: class ids of the label space.
        difficult: ``bool (n,)``: objects that do not have to be found and are no false alarms either (VOC).
    """

    xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def tobytes(self) -> bytes:
        """The content as bytes, to tell labels apart."""
        return self.xyxy.tobytes() + self.labels.tobytes() + self.difficult.tobytes()


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects that a detector found in one image, best first.

    Attributes:
        xyxy: ``float32 (n, 4)``, as in :class:`Boxes`.
        labels: ``int64 (n,)``: class ids of the detector's label space.
        scores: ``float32 (n,)`` in [0, 1].
    """

    xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def sorted(cls, xyxy: Tensor, labels: Tensor, scores: Tensor) -> Detections:
        """From tensors, best first; equal scores keep their order."""
        import numpy as np

        order = scores.argsort(descending=True, stable=True)
        boxes, ids, sure = (x[order].detach().cpu().numpy() for x in (xyxy, labels, scores))
        return cls(boxes.astype(np.float32), ids.astype(np.int64), sure.astype(np.float32))


@dataclass(frozen=True)
class FeatureSpec:
    """What a backbone gives, known before any forward pass: heads are built from it.

    Attributes:
        channels: feature channels by stride in pixels, finest first.
        attention: tokens of the attention maps by stride, for the strides that have maps.
    """

    channels: Mapping[int, int]
    attention: Mapping[int, int]

    def reading(self, tokens: int) -> FeatureSpec:
        """The same for text of another number of tokens."""
        return FeatureSpec(self.channels, dict.fromkeys(self.attention, tokens))

    def widths(self, *, use_attention: bool = True) -> dict[int, int]:
        """Channels per stride with the attention maps concatenated behind the features (TADP, section
        3.1)."""
        return {s: c + (self.attention.get(s, 0) if use_attention else 0) for s, c in self.channels.items()}


@dataclass
class FeaturePyramid:
    """One forward pass of a backbone.

    Attributes:
        features: ``stride -> (b, c, u, v)``, finest first.
        attention: ``stride -> (b, t, u, v)``, probabilities over tokens averaged over heads and layers.
    """

    features: dict[int, Tensor]
    attention: dict[int, Tensor]

    def levels(self) -> dict[int, Tensor]:
        """``stride -> (b, c + t, u, v)``: features with their maps behind them, as heads read them."""
        import torch

        return {
            s: torch.cat([f, self.attention[s].to(f.dtype)], dim=1) if s in self.attention else f
            for s, f in self.features.items()
        }


@dataclass(frozen=True)
class Unlabeled(Sequence["Image"]):
    """Images of a domain and nothing else: there is no label in the type, so stage 1 cannot peek.

    Attributes:
        domain: name of the domain, for messages and records.
        root: folder that the keys are relative to.
        paths: image files, in a fixed order.
        digests: blake2b of files that must not have changed when they are read.
    """

    domain: str
    root: Path
    paths: tuple[Path, ...]
    digests: Mapping[Path, str] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return dataclasses.replace(self, paths=self.paths[index])
        return open_image(self.paths[index], self.digests.get(self.paths[index], ""))

    def key(self, index: int) -> str:
        """Path relative to the root with forward slashes: the key in caption files."""
        return self.paths[index].relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Example:
    """One labelled image. ``target`` is what the domain's label space says: ``uint8 (h, w)`` class ids for
    segmentation, :class:`Boxes` for detection, ``float32 (h, w)`` metres (0: unknown) for depth."""

    key: str
    image: Image
    target: Any
    caption: str


@dataclass(frozen=True)
class Labeled(Sequence[Example]):
    """Labelled, captioned images of a domain; files are opened when an example is taken.

    Attributes:
        domain: name of the domain.
        labels: label space of ``target``.
        images: their images.
        label: reads the label of the i-th image.
        captions: caption of each image by key.
    """

    domain: str
    labels: LabelSpace
    images: Unlabeled
    label: Callable[[int], Any]
    captions: Mapping[str, str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            raise TypeError("slice the images before labels are attached, so that both stay in step")
        key = self.images.key(index)
        return Example(
            key=key, image=self.images[index], target=self.label(index), caption=self.captions[key]
        )


@dataclass(frozen=True, kw_only=True)
class DomainDescription:
    """How a domain is spoken of: what caption strategies may say, kept with the domain so that strategies
    work for new ones.

    Attributes:
        medium: what the images are, e.g. ``"photo"`` or ``"painting"``.
        style: the simple words for the domain, e.g. ``"dark night"``; empty for a plain domain.
        nearby: phrase for a domain near this one (a control), e.g. ``"a foggy photo"``.
        unrelated: phrase for a domain far from this one (a control), e.g. ``"a watercolor painting"``.
        templates: strategy name to template where the domain's authors used their own words; a template holds
            ``{caption}`` and, for learned concepts, ``{word}``.
    """

    medium: str = "photo"
    style: str = ""
    nearby: str = "a foggy photo"
    unrelated: str = "a watercolor painting"
    templates: Mapping[str, str] = field(default_factory=dict)
