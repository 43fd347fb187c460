"""The training sets of stage 2: images, labels and text as the loop asks for them, kept in memory where they fit."""

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

from adapt import augmentation as augment
from adapt import batches
from adapt.augmentation import Augmentation, finish, pad, resize
from adapt.batches import Sample
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
    """Unlabelled images of the target with a caption each.

    Attributes:
        images: the images.
        captions: caption of each image by key.
    """

    images: Unlabeled
    captions: Mapping[str, str]


class PromptEmbeddings:
    """Embeddings of the prompts of a data set, each different prompt encoded once: the text encoder is frozen.

    Args:
        model: whose text encoder it is.
        data: whose captions are rewritten; one that is too long loses its end, and the log says so.
        rewrite: from caption to prompt.
        run: progress.
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
        prompts, shortened = fit_all(rewrite, captions, backbone.count_tokens, backbone.token_limit)
        if shortened:
            _log.warning("%s", shortened)
        self.prompts = tuple(dict.fromkeys(prompts.values()))
        rows = {prompt: row for row, prompt in enumerate(self.prompts)}
        self.rows = [rows[prompts[key]] for key in keys]
        self.embeddings = embeddings(backbone, self.prompts, run)

    def __getitem__(self, index: int) -> Tensor:
        return self.embeddings[self.rows[index]]


class ImageDataset(ABC):
    """Images with text, for :func:`tadp_da.training.loop.fit`; subclasses say what lies on an image.

    Args:
        images: the images.
        text: embeddings by index.
        size: working size of an image of a given height and width.
        augment: what may happen to an image.
        even: give all images one size where a batch needs it: without a crop, those of other shapes are padded to the
            largest height and width, to the right and below, with grey that nothing is learned from.
    """

    answer: str
    """Under which key a sample holds the tensors of what lies on its image."""

    def __init__(
        self,
        images: Unlabeled,
        text: PromptEmbeddings,
        size: Callable[[int, int], Size],
        augment: Augmentation,
        *,
        even: bool = True,
    ) -> None:
        self.images, self.text, self.size, self.augment = images, text, size, augment
        self.common = self._common() if even and augment.crop is None else None
        self.order = list(range(len(images)))  # of the images that are trained on
        self.cached: dict[int, Pair] = {}
        self.contents: dict[int, str] = {}  # hashes of the files of cached images, before they were read
        self.latents: dict[int, Tensor] = {}

    @abstractmethod
    def _load(self, index: int) -> Pair:
        """Image ``uint8 (h, w, 3)`` and what lies on it, at the image's own size."""

    def __len__(self) -> int:
        return len(self.order)

    def key(self, index: int) -> str:
        """Name of sample ``index``: its image's key."""
        return self.images.key(self.order[index])

    def _common(self) -> Size | None:
        """Height and width that hold every image at its working size; None where they are all alike already."""
        sizes = {self.size(*displayed_size(path)) for path in self.images.paths}
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

    def read(self, index: int) -> Pair:
        """Image ``uint8 (h, w, 3)`` and what lies on it, at the working size already if that never varies.

        Raises:
            DataError: when the image cannot be read, or does not fit its label.
        """
        image, label = self._load(index)
        if self.augment.scale == (1.0, 1.0):
            image, label = resize(image, label, self.size(*label.size))
        return image, label

    def cache_images(self, gigabytes: float, run: Run) -> None:
        """Read every image now and keep it, if all together take at most so many gigabytes."""
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
        """Encode every image, and its mirror image where it may be flipped, if that is all that augmentation makes of
        them and all together take at most so many gigabytes. Images need not have been cached.

        The autoencoder is frozen, so a latent taken now is the one that training would take; a sample of its posterior
        is another at every step and cannot be cached. Images off the latent grid would have to be padded first; they
        are encoded when they are needed.
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
        """``text (t, d)``, either ``latents (c, u, v)`` or ``pixels (3, h, w)``, their ``size`` (h, w), and under
        :attr:`answer` the tensors of what lies on the image."""
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

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Samples of one size as a batch."""
        return batches.collate(samples)


class SourceDataset(ImageDataset):
    """Labelled images; a sample's ``target`` is what the head's loss reads.

    Args:
        data: images, labels and captions.
        head: knows how its labels move with their images.
        style: how images are shown.
        target: the target's images, for the style.
        text, size, augment, even: see :class:`ImageDataset`.
    """

    answer = "target"

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
        if len(data) == 0:
            raise DataError("no labelled image to train on", fix="check the source's root and split")
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
        """The same, and images without a labelled pixel are then known, and left out.

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
                fix=f"give labels that use other ids than ignore ({self.data.labels.ignore})",
            )
        key = self.images.key(blank[0])
        _log.warning(
            "%d of %d labels are all ignored and left out; the first: %s", len(blank), len(self.data), key
        )
        self.order = [index for index in self.order if index not in set(blank)]

    def cache_latents(self, model: PerceptionModel, gigabytes: float, run: Run) -> None:
        """The same, where the style leaves images as they are."""
        if self.style is None:
            super().cache_latents(model, gigabytes, run)

    def _shown(self, index: int, rng: np.random.Generator) -> Pair:
        image, label = self._pair(index)
        if self.style is None:
            return image, label
        # numbers of its own: an image is cropped and flipped alike in every style
        (own,) = rng.spawn(1)
        return self.style(self.images.key(index), image, label, self.target, own)


class TargetDataset(ImageDataset):
    """Unlabelled images; a sample's ``valid`` says where its image is and not padding. Colours are not augmented: a
    teacher sees them as they are, and what its student sees is the objective's own.

    Args:
        data: images and captions; there is no label in the type.
        text, size, augment, even: see :class:`ImageDataset`.
    """

    answer = "valid"

    def __init__(
        self,
        data: CaptionedImages,
        text: PromptEmbeddings,
        size: Callable[[int, int], Size],
        augment: Augmentation,
        *,
        even: bool = True,
    ) -> None:
        if len(data.images) == 0:
            raise DataError("no target image to train on", fix="check the target's root and split")
        super().__init__(data.images, text, size, augment.without_colours(), even=even)

    def _load(self, index: int) -> Pair:
        image = np.array(self.images[index])
        return image, Extent.whole(image.shape[:2])


def _latents_key(backbone: Any) -> dict[str, Any]:
    return image_key(backbone, augment, _encode)


def _encode(model: PerceptionModel, pair: Pair, views: Sequence[bool]) -> dict[str, Tensor]:
    """Latents ``(n, c, u, v)`` of n views of an image, each mirrored or not."""
    pixels = torch.stack([finish(*pair, flipped=flipped)[0] for flipped in views])
    return {"views": model.backbone.encode_image(pixels.to(model.device)).cpu()}
