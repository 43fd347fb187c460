"""The types that every part of the house shares. Shape letters: b batch, h w pixels, u v latent cells, t
tokens, d text width, k classes.
"""

from __future__ import annotations

import dataclasses
import os
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tadp_da.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

Task = Literal["segmentation", "detection", "depth"]
Side = Literal["source", "target"]


@dataclass(frozen=True)
class LabelSpace:
    """What a label says.

    Attributes:
        task: the kind of label.
        classes: class names in the order of their ids.
        ignore: id of pixels that count neither in the loss nor in the score.
        palette: one RGB colour per class, for overlays; empty for a generated one.
    """

    task: Task
    classes: tuple[str, ...]
    ignore: int = 255
    palette: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class Boxes:
    """The labelled objects of one image; an image without objects has ``n = 0``.

    Attributes:
        xyxy: ``float32 (n, 4)``: left, top, right, bottom in pixels of the displayed image, half-open: the first
            pixel column has ``x1 = 0``, the last ``x2 = w``, so the width is ``x2 - x1``.
        labels: ``int64 (n,)``: class ids of the label space.
        difficult: ``bool (n,)``: objects that a detector is neither to find nor to be blamed for (VOC).
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


@dataclass(frozen=True)
class FeatureSpec:
    """What a backbone gives, known before any forward pass: heads are built from it.

    Attributes:
        channels: feature channels by stride in pixels, finest first.
        attention: tokens of the attention maps by stride, for the strides that have maps.
    """

    channels: Mapping[int, int]
    attention: Mapping[int, int]

    def widths(self, *, maps: bool = True) -> dict[int, int]:
        """Channels per stride with the attention maps concatenated behind the features (TADP, section
        3.1)."""
        return {s: c + (self.attention.get(s, 0) if maps else 0) for s, c in self.channels.items()}


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


MOST_PIXELS = 80_000_000
"""Pixels that a picture may have unless ``TADP_MAX_PIXELS`` says otherwise; just below where Pillow grows uneasy."""

_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def most_pixels() -> int:
    """The pixel limit of pictures: ``TADP_MAX_PIXELS`` in the environment, or ``MOST_PIXELS``.

    Raises:
        UsageError: when the variable is no positive whole number.
    """
    text = os.environ.get("TADP_MAX_PIXELS", str(MOST_PIXELS))
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(
            f"TADP_MAX_PIXELS is {text!r}", fix="give a positive whole number of pixels, or unset it"
        )
    return int(text)


@contextmanager
def opened(path: Path, what: str = "an image") -> Iterator[Image]:
    """A picture file with its header read and its pixels not yet; what fails while it is open is told with its path.

    Raises:
        DataError: when the file is missing, truncated, no picture, or larger than :func:`most_pixels`.
    """
    from PIL import Image

    most = most_pixels()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below speaks for it
    try:
        with Image.open(path) as image:
            if image.width * image.height > most:
                raise Image.DecompressionBombError(
                    f"{image.width}x{image.height} pixels, the limit is {most}"
                )
            yield image
    except FileNotFoundError:
        raise DataError(f"{what} is missing", where=path, fix="check the data root") from None
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{what} is too large to open: {error}",
            where=path,
            fix="shrink or remove it; if it is what it should be, raise the limit: TADP_MAX_PIXELS=120000000",
        ) from None
    # Pillow raises TypeError for EXIF data of the wrong kind
    except (OSError, ValueError, TypeError, SyntaxError, EOFError, struct.error) as error:
        raise DataError(
            f"cannot decode {what}: {error}", where=path, fix="re-encode or remove the file"
        ) from None


def open_image(path: Path) -> Image:
    """The picture at ``path`` as RGB, turned as its EXIF says. Grey, palette and CMYK pictures become RGB too;
    transparency is dropped.

    Raises:
        DataError: when the file is missing, truncated, no picture, larger than :func:`most_pixels`, or one of more than
            8 bits a channel, whose values no rule but its owner's maps to 0..255.
    """
    from PIL import ImageOps

    with opened(path) as image:
        if image.mode in _DEEP:
            raise DataError(
                f"an image has more than 8 bits a channel (mode {image.mode})",
                where=path,
                fix="convert it with the scaling that suits it, e.g. magick in.png -auto-level -depth 8 out.png",
            )
        return ImageOps.exif_transpose(image).convert("RGB")


def displayed_size(path: Path) -> tuple[int, int]:
    """Height and width of the picture at ``path`` once it is turned as its EXIF says; only its header is read.

    Raises:
        DataError: when the file is missing, no picture, or larger than :func:`most_pixels`.
    """
    from PIL import ExifTags

    with opened(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


@dataclass(frozen=True)
class Unlabeled(Sequence["Image"]):
    """Images of a domain and nothing else: there is no label in the type, so stage 1 cannot peek.

    Attributes:
        domain: name of the domain, for messages and records.
        root: folder that the keys are relative to.
        paths: image files, in a fixed order.
    """

    domain: str
    root: Path
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return dataclasses.replace(self, paths=self.paths[index])
        return open_image(self.paths[index])

    def key(self, index: int) -> str:
        """Path relative to the root with forward slashes: the key in caption files."""
        return self.paths[index].relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Example:
    """One labelled image. ``target`` is what the domain's label space says: ``uint8 (h, w)`` class ids for
    segmentation, :class:`Boxes` for detection."""

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
        images: the pictures.
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
class Wording:
    """How a domain is spoken of: what caption strategies may say, kept with the domain so that strategies
    work for new ones.

    Attributes:
        medium: what the pictures are, e.g. ``"photo"`` or ``"painting"``.
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
