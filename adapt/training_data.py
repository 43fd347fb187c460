"""The training set of stage 2: images, labels and text as the loop asks for them, kept in memory where they fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapt import augmentation as augment
from adapt.augmentation import Augmentation, finish, pad, resize
from tadp_da.captions.rewrite import fit_all
from tadp_da.errors import DataError
from tadp_da.fingerprints import content_of, embeddings, image_key
from tadp_da.heads import Annotation, TaskHead
from tadp_da.images import displayed_size
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.cache import open_cache
from tadp_da.types import Labeled

Pair = tuple[np.ndarray, Annotation]
_log = logging.getLogger(__name__)


class TextTable:
    """Embeddings of the prompts of a data set, each different prompt encoded once: the text encoder is frozen.

    Args:
        model: whose text encoder it is.
        data: whose captions are rewritten; one that is too long loses its end, and the log says so.
        rewrite: from caption to prompt.
        run: progress.
    """

    def __init__(
        self, model: PerceptionModel, data: Labeled, rewrite: Callable[[str], str], run: Run
    ) -> None:
        keys = [data.images.key(i) for i in range(len(data))]
        captions = {key: data.captions[key] for key in keys}
        backbone = model.backbone
        prompts, report = fit_all(rewrite, captions, backbone.count_tokens, backbone.token_limit)
        if report.summary():
            _log.warning("%s", report.summary())
        self.prompts = tuple(dict.fromkeys(prompts.values()))
        rows = {prompt: row for row, prompt in enumerate(self.prompts)}
        self.rows = [rows[prompts[key]] for key in keys]
        self.embeddings = embeddings(backbone, self.prompts, run)

    def __getitem__(self, index: int) -> Tensor:
        return self.embeddings[self.rows[index]]


class TrainingExamples:
    """Labelled images with text, for :func:`tadp_da.training.loop.fit`.

    Args:
        data: images, labels and captions.
        head: knows how its labels move with their images.
        text: embeddings by index.
        size: working size of an image of a given height and width.
        augment: what may happen to an image.
        even: give all images one size where a batch needs it: without a crop, those of other shapes are padded to the
            largest height and width, to the right and below, with grey that nothing is learned from.
    """

    def __init__(
        self,
        data: Labeled,
        head: TaskHead,
        text: TextTable,
        size: Callable[[int, int], tuple[int, int]],
        augment: Augmentation,
        *,
        even: bool = True,
    ) -> None:
        if len(data) == 0:
            raise DataError("no labelled image to train on", fix="check the source's root and split")
        self.data, self.head, self.text, self.size, self.augment = data, head, text, size, augment
        self.common = self._common() if even and augment.crop is None else None
        self.order = list(range(len(data)))  # of the images that are trained on
        self.kept: dict[int, Pair] = {}
        self.contents: dict[int, str] = {}  # hashes of the files of kept images, before they were read
        self.latents: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.order)

    def key(self, index: int) -> str:
        """What to call sample ``index``: its image's key."""
        return self.data.images.key(self.order[index])

    def _common(self) -> tuple[int, int] | None:
        """Height and width that hold every image at its working size; None where they are all alike already."""
        sizes = {self.size(*displayed_size(path)) for path in self.data.images.paths}
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
        """Image ``uint8 (h, w, 3)`` and its label, at the working size already if that never varies.

        Raises:
            DataError: when the two do not fit, or the label holds ids that are no classes.
        """
        example = self.data[index]
        image = np.array(example.image)
        size = image.shape[0], image.shape[1]
        label = self.head.annotation(example.target, size, where=example.key)
        if self.augment.scale == (1.0, 1.0):
            image, label = resize(image, label, self.size(*size))
        return pad(image, label, self.common) if self.common else (image, label)

    def keep(self, gigabytes: float, run: Run) -> None:
        """Read every example now and keep it, if all together take at most so many gigabytes.

        Images without a labelled pixel are then known, and left out.

        Raises:
            DataError: when no pixel of any image is labelled.
        """
        first = self.read(0)
        if (first[0].nbytes + first[1].nbytes) * len(self.data) > gigabytes * 2**30:
            return
        blank = []
        with run.progress(len(self.data), "reading images") as advance:
            for index in range(len(self.data)):
                self.contents[index] = content_of(self.data.images.paths[index])
                self.kept[index] = self.read(index)
                if self.kept[index][1].blank:
                    blank.append(index)
                advance("")
        if len(blank) == len(self.data):
            raise DataError(
                f"none of {len(blank)} images has a labelled pixel",
                where=self.data.images.key(0),
                fix=f"give labels that use other ids than ignore ({self.data.labels.ignore})",
            )
        if blank:
            key = self.data.images.key(blank[0])
            _log.warning(
                "%d of %d labels are all ignored and left out; the first: %s", len(blank), len(self.data), key
            )
            self.order = [index for index in self.order if index not in set(blank)]

    @torch.no_grad()
    def keep_latents(self, model: PerceptionModel, gigabytes: float, run: Run) -> None:
        """Encode every image, and its mirror image where it may be flipped, if that is all that augmentation makes of
        them and all together take at most so many gigabytes. Images need not have been kept.

        The autoencoder is frozen, so a latent taken now is the one that training would take; a sample of its posterior
        is another at every step and cannot be kept. Images off the latent grid would have to be padded first; they
        are encoded when they are needed.
        """
        if not self.augment.only_flips or not model.backbone.caches_latents:
            return
        coarsest = max(model.backbone.spec.channels)
        cache, views = open_cache(), [False, True] if self.augment.flip else [False]
        facts, known = _latents_key(model.backbone) | {"views": len(views)}, cache.counts.found
        with run.progress(len(self), "encoding images") as advance:
            for index in self.order:
                source = self.data.images.paths[index]
                content = self.contents.get(index) or content_of(source)
                pair = self._pair(index)
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
        return self.kept[index] if self.kept else self.read(index)

    def fetch(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """``text (t, d)``, either ``latents (c, u, v)`` or ``pixels (3, h, w)``, their ``size`` (h, w), and what the
        head's loss reads as ``target``."""
        index = self.order[index]
        image, label = self._pair(index)
        sample: dict[str, Any] = {"text": self.text[index]}
        if self.latents:
            flipped = rng.random() < self.augment.flip
            target = finish(image, label, flipped=flipped)[1]
            return sample | {
                "latents": self.latents[index][int(flipped)],
                "size": label.size,
                "target": target,
            }
        still = self.augment.scale == (1.0, 1.0)  # then it has its size already
        pixels, target = self.augment(image, label, label.size if still else self.size(*label.size), rng)
        return sample | {"pixels": pixels, "size": tuple(pixels.shape[-2:]), "target": target}


def _latents_key(backbone: Any) -> dict[str, Any]:
    return image_key(backbone, augment, _encode)


def _encode(model: PerceptionModel, pair: Pair, views: Sequence[bool]) -> dict[str, Tensor]:
    """Latents ``(n, c, u, v)`` of n views of an image, each mirrored or not."""
    pixels = torch.stack([finish(*pair, flipped=flipped)[0] for flipped in views])
    return {"views": model.backbone.encode_image(pixels.to(model.device)).cpu()}


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples of one size; targets that are no tensors are listed."""
    targets = [sample["target"] for sample in samples]
    tensors = {
        key: torch.stack([s[key] for s in samples]) for key in samples[0] if key not in ("size", "target")
    }
    stacked = torch.stack(targets) if isinstance(targets[0], Tensor) else targets
    return tensors | {"size": samples[0]["size"], "target": stacked}
