"""The training sets of stage 2: images, labels and text, cached in memory where they fit."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapt import augmentation
from adapt.augmentation import Augmentation, finish, pad, resize
from adapt.batches import Sample, collate
from adapt.sources import Source
from adapt.unlabeled import Extent
from tadp_da.captions.rewrite import fit_all
from tadp_da.errors import DataError
from tadp_da.fingerprints import content_of, embeddings, image_key
from tadp_da.heads import Head
from tadp_da.images import displayed_size
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.cache import open_cache
from tadp_da.tasks import tasks
from tadp_da.types import Labeled, Unlabeled

Pair = tuple[np.ndarray, Any]
Size = tuple[int, int]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedImages:
    """Unlabelled images of the target, and the caption of each by key."""

    images: Unlabeled
    captions: Mapping[str, str]


class PromptEmbeddings:
    """Embeddings of the prompts of a data set; each different prompt is encoded once by the frozen text encoder.

    Args:
        model: has the text encoder.
        data: has the captions; those that are too long are cut at the end, with a warning.
        rewrite: from caption to prompt.
        run: for a progress bar.
    """

    def __init__(
        self,
        model: PerceptionModel,
        data: Labeled | CaptionedImages,
        rewrite: Callable[[str], str],
        run: Run,
    ) -> None:
        keys = [data.images.key(i) for i in range(len(data.images))]
        captions = {key: data.captions[key] for key in keys}
        backbone = model.backbone
        count = model.rewrite.counted(backbone.count_tokens)
        prompts, shortened = fit_all(rewrite, captions, count, backbone.token_limit)
        if shortened:
            _log.warning("%s", shortened)
        self.prompts = tuple(dict.fromkeys(prompts.values()))
        rows = {prompt: row for row, prompt in enumerate(self.prompts)}
        self.rows = [rows[prompts[key]] for key in keys]
        if model.rewrite.embeds:
            self.embeddings = model.encode_text(self.prompts).cpu()
        else:
            self.embeddings = embeddings(backbone, self.prompts, run)

    def __getitem__(self, index: int) -> Tensor:
        return self.embeddings[self.rows[index]]


def sizes_of(images: Unlabeled, size: Callable[[int, int], Size]) -> set[Size]:
    """Working sizes of images."""
    return {size(*displayed_size(path)) for path in images.paths}


def common_size(sizes: set[Size]) -> Size | None:
    """Largest height and width of several sizes, with a warning; None if there is only one."""
    if len(sizes) == 1:
        return None
    common = max(height for height, _ in sizes), max(width for _, width in sizes)
    _log.warning(
        "images come in %d sizes; they are padded to %dx%d to be trained on together: adapt.augment.crop takes "
        "crops instead",
        len(sizes),
        *common,
    )
    return common


class ImageDataset(ABC):
    """Images with text and labels, for :func:`tadp_da.training.loop.fit`.

    Args:
        images: the images.
        text: embeddings by index.
        size: from height and width of an image to its working size.
        augment: the augmentation.
        even: without a crop, pad images of several sizes to the largest height and width, to the right and below, with
            ignored grey, as a batch needs it.
    """

    stream: str
    answer: str
    """Key of the label's tensors in a sample."""

    def __init__(
        self,
        images: Unlabeled,
        text: PromptEmbeddings,
        size: Callable[[int, int], Size],
        augment: Augmentation,
        *,
        even: bool = True,
    ) -> None:
        if len(images) == 0:
            raise DataError(
                f"no {self.stream} image to train on", fix=f"check the {self.stream}'s root and split"
            )
        self.images, self.text, self.size, self.augment = images, text, size, augment
        self.common = common_size(sizes_of(images, size)) if even and augment.crop is None else None
        self.order = list(range(len(images)))  # indices of the images that are trained on
        self.cached: dict[int, Pair] = {}
        self.contents: dict[int, str] = {}  # hashes of cached images' files, from before they were read
        self.latents: dict[int, Tensor] = {}

    @abstractmethod
    def _load(self, index: int) -> Pair:
        """Image ``uint8 (h, w, 3)`` and its label, at the image's own size."""

    def __len__(self) -> int:
        return len(self.order)

    def key(self, index: int) -> str:
        """Name of sample ``index``: its image's key."""
        return self.images.key(self.order[index])

    def read(self, index: int) -> Pair:
        """Image ``uint8 (h, w, 3)`` and its label, at the working size if that never varies.

        Raises:
            DataError: when the image cannot be read, or does not fit its label.
        """
        image, label = self._load(index)
        if self.augment.scale == (1.0, 1.0):
            image, label = resize(image, label, self.size(*label.size))
        return image, label

    def cache_images(self, gigabytes: float, run: Run) -> None:
        """Read every image now, if all together take at most so many gigabytes."""
        first = self.read(0)
        if (first[0].nbytes + first[1].nbytes) * len(self.images) > gigabytes * 2**30:
            return
        with run.progress(len(self.images), "reading images") as advance:
            for index in range(len(self.images)):
                self.contents[index] = content_of(self.images.paths[index])
                self.cached[index] = self.read(index)
                advance("")

    @torch.no_grad()
    def cache_latents(self, model: PerceptionModel, gigabytes: float, run: Run) -> None:
        """Encode every image, and its mirror image where it may be flipped, if augmentation does nothing else and all
        latents together take at most so many gigabytes.

        Not where the autoencoder's posterior is sampled at every step, nor for images off the latent grid, which must
        be padded first.
        """
        if not self.augment.only_flips or not model.backbone.caches_latents:
            return
        coarsest = max(model.backbone.spec.channels)
        cache, views = open_cache(), [False, True] if self.augment.flip else [False]
        facts, known = _latents_key(model.backbone) | {"views": len(views)}, cache.counts.found
        with run.progress(len(self), "encoding images") as advance:
            for index in self.order:
                source = self.images.paths[index]
                content = self.contents.get(index) or content_of(source)
                pair = self._padded(self._pair(index))
                size = pair[1].size
                if any(side % coarsest for side in size):
                    self.latents.clear()
                    return
                about = facts | {"image": content, "size": list(size)}
                if self.common:
                    about["padded"] = list(self.size(*displayed_size(source)))
                make = partial(_encode, model, pair, views)
                latent = cache.get_or_create("latents", about, make, source=source)["views"]
                if latent.nbytes * len(self) > gigabytes * 2**30:
                    self.latents.clear()
                    return
                self.latents[index] = latent
                advance(f"{cache.counts.found - known} from the cache")

    def _pair(self, index: int) -> Pair:
        return self.cached[index] if self.cached else self.read(index)

    def _shown(self, index: int, rng: np.random.Generator) -> Pair:
        return self._pair(index)

    def _padded(self, pair: Pair) -> Pair:
        return pad(*pair, self.common) if self.common else pair

    def fetch(self, index: int, rng: np.random.Generator) -> Sample:
        """``text (t, d)``, ``latents (c, u, v)`` or ``pixels (3, h, w)``, their ``size`` (h, w), and under
        :attr:`answer` the label's tensors."""
        index = self.order[index]
        image, label = self._padded(self._shown(index, rng))
        sample: Sample = {"text": self.text[index]}
        if self.latents:
            flipped = rng.random() < self.augment.flip
            target = finish(image, label, flipped=flipped)[1]
            latents = self.latents[index][int(flipped)]
            return sample | {"latents": latents, "size": label.size, self.answer: target}
        fixed = self.augment.scale == (1.0, 1.0)  # then it has its size already
        pixels, target = self.augment(image, label, label.size if fixed else self.size(*label.size), rng)
        return sample | {"pixels": pixels, "size": tuple(pixels.shape[-2:]), self.answer: target}

    collate = staticmethod(collate)


class SourceDataset(ImageDataset):
    """Labelled images; a sample's ``target`` is what the head's loss reads.

    Args:
        data: images, labels and captions.
        head: has the label space.
        style: source style of the images.
        target: the target's images, for the style.
        text, size, augment, even: see :class:`ImageDataset`.
    """

    stream, answer = "source", "target"

    def __init__(
        self,
        data: Labeled,
        head: Head,
        text: PromptEmbeddings,
        size: Callable[[int, int], Size],
        augment: Augmentation,
        *,
        style: Source | None = None,
        target: Unlabeled | None = None,
        even: bool = True,
    ) -> None:
        super().__init__(data.images, text, size, augment, even=even)
        self.data, self.head, self.target = data, head, target
        self.style = None if style is None or style.identity else style

    def _load(self, index: int) -> Pair:
        example = self.data[index]
        image = np.array(example.image)
        size = image.shape[0], image.shape[1]
        label = tasks[self.head.task].label(example.target, size, self.head.labels, where=example.key)
        return image, label

    def cache_images(self, gigabytes: float, run: Run) -> None:
        """The same; images without a labelled pixel are left out.

        Raises:
            DataError: when no pixel of any image is labelled.
        """
        super().cache_images(gigabytes, run)
        if lost := sum(label.lost for _, label in self.cached.values()):
            _log.warning("%d objects are under a pixel wide or high at the working size and left out", lost)
        blank = [index for index, (_, label) in self.cached.items() if label.blank]
        if not blank:
            return
        if len(blank) == len(self.data):
            raise DataError(
                f"none of {len(blank)} images has a labelled pixel",
                where=self.images.key(0),
                fix=f"give labels that use other ids than ignore ({self.data.labels.ignore}), or depths in the range",
            )
        key = self.images.key(blank[0])
        _log.warning(
            "%d of %d labels are all ignored and left out; the first: %s", len(blank), len(self.data), key
        )
        self.order = [index for index in self.order if index not in set(blank)]

    def cache_latents(self, model: PerceptionModel, gigabytes: float, run: Run) -> None:
        """The same, unless a style changes the images."""
        if self.style is None:
            super().cache_latents(model, gigabytes, run)

    def _shown(self, index: int, rng: np.random.Generator) -> Pair:
        image, label = self._pair(index)
        if self.style is None:
            return image, label
        # separate random numbers, so that an image is cropped and flipped alike in every style
        (own,) = rng.spawn(1)
        return self.style(self.images.key(index), image, label, self.target, own)


class TargetDataset(ImageDataset):
    """Unlabelled images; a sample's ``valid`` is True on the image and False on padding. Colours are not augmented: a
    teacher sees them as they are, and an objective distorts them for its student."""

    stream, answer = "target", "valid"

    def __init__(
        self, images: Unlabeled, text: PromptEmbeddings, size: Any, augment: Augmentation, **more: bool
    ) -> None:
        super().__init__(images, text, size, augment.without_colours(), **more)

    def _load(self, index: int) -> Pair:
        image = np.array(self.images[index])
        return image, Extent.whole(image.shape[:2])


def _latents_key(backbone: Any) -> dict[str, Any]:
    return image_key(backbone, augmentation, _encode)


def _encode(model: PerceptionModel, pair: Pair, views: Sequence[bool]) -> dict[str, Tensor]:
    """Latents ``(n, c, u, v)`` of an image, once for every view: mirrored or not."""
    pixels = torch.stack([finish(*pair, flipped=flipped)[0] for flipped in views])
    return {"views": model.backbone.encode_image(pixels.to(model.device)).cpu()}
