"""What a model predicts on unlabelled images, as they are and with other colours; predicted once, then kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from tadp_da.errors import UsageError
from tadp_da.inference import Soft, predict_images
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.artifacts import inputs_of
from tadp_da.storage.files import digest, file_digest, folder_digest
from tadp_da.types import Detections, Side, Unlabeled

JITTER = 0.4
"""Brightness, contrast and saturation are multiplied by up to 1 plus or minus this."""
MOST_PIXELS = 512
"""Longer side of the masks that are kept; larger ones lose rows and columns at even distances."""
BINS = 1000
FILE = "predictions.npz"
Predicted = NDArray[np.uint8] | Detections


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Of one model on all images, in their order.

    Attributes:
        plain: masks of class ids ``uint8 (h, w)``, or detections.
        jittered: the same where the image has other colours.
        shares: ``float64 (k,)``, mean probability of each class; of masks only.
        entropy: mean entropy of a pixel's probabilities, in nats.
        confidence: ``float64 (1000,)``, share of pixels by the probability of their likeliest class, 0 to 1.
    """

    plain: Sequence[Predicted]
    jittered: Sequence[Predicted] = ()
    shares: NDArray[np.float64] | None = None
    entropy: float | None = None
    confidence: NDArray[np.float64] | None = None


def jitter(image: Image.Image, content: str) -> Image.Image:
    """The image with other brightness, contrast and saturation, a function of the digest of its content alone."""
    rng = np.random.default_rng(int(content[:12], 16))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    return image


@dataclass(frozen=True, kw_only=True)
class Predicting:
    """Predict images by a saved model. Call it; what was predicted before is read from the run's folder.

    Attributes:
        model: its folder.
        images: which.
        captions: of each image by its key.
        side: whose prompts they get.
        run: folder, device, precision and progress.
        jittered: predict them with other colours too.
        batch: images of one size in one forward pass.
    """

    model: Path
    images: Unlabeled
    captions: Mapping[str, str]
    run: Run
    side: Side = "target"
    jittered: bool = True
    batch: int = 8

    def __call__(self) -> Predictions:
        """The predictions.

        Raises:
            UsageError: for a task without masks or boxes.
        """
        known = inputs_of(self.model)
        captions = [self.captions[self.images.key(i)] for i in range(len(self.images))]
        inputs = {
            "model": known if known is not None else {"files": folder_digest(self.model)},
            "images": digest(json.dumps(self._contents).encode()),
            "captions": digest(json.dumps(captions).encode()),
            "side": self.side,
            "jitter": JITTER if self.jittered else None,
            "precision": self.run.precision,
        }
        return self.run.get_or_create("predictions", inputs, self._make, _load)

    @property
    def _contents(self) -> list[str]:
        return [self.images.digests.get(path) or file_digest(path) for path in self.images.paths]

    def _make(self, folder: Path) -> None:
        model = PerceptionModel.load(self.model, device=self.run.torch_device)
        kept: dict[str, NDArray[Any]] = {}
        seen = _Seen()
        with self.run.progress(
            len(self.images) * (1 + self.jittered), f"predicting {self.images.domain}"
        ) as advance:
            for kind in ("plain", "jittered")[: 1 + self.jittered]:
                found = predict_images(
                    Soft(model), self._items(model, kind), batch=self.batch, precision=self.run.precision
                )
                for index, prediction in enumerate(found):
                    if kind == "plain":
                        seen.count(prediction)
                    kept |= _arrays(f"{kind}-{index}", prediction, len(model.labels.classes))
                    advance("")
        np.savez_compressed(folder / FILE, allow_pickle=False, **kept, **seen.arrays())

    def _items(
        self, model: PerceptionModel, kind: Literal["plain", "jittered"] | str
    ) -> Iterator[tuple[Image.Image, str]]:
        write = getattr(model.rewrite, self.side)
        for index, content in enumerate(self._contents):
            image, caption = self.images[index], self.captions[self.images.key(index)]
            prompt = model.fitted(write, caption)
            yield (image if kind == "plain" else jitter(image, content)), prompt


class _Seen:
    """Means over images of what is told by probabilities."""

    def __init__(self) -> None:
        self.each: list[tuple[Any, ...]] = []

    def count(self, prediction: Any) -> None:
        if not isinstance(prediction, Tensor) or prediction.ndim != 3:
            return
        p = prediction.double().clamp_min(1e-12)
        bins = (prediction.amax(0) * BINS).long().clamp(0, BINS - 1).flatten().cpu().numpy()
        confidence = np.bincount(bins, minlength=BINS) / len(bins)
        entropy = float(-(p * p.log()).sum(0).mean())
        self.each.append((p.mean((1, 2)).cpu().numpy(), entropy, confidence))

    def arrays(self) -> dict[str, NDArray[Any]]:
        names = ("shares", "entropy", "confidence")
        found: dict[str, NDArray[Any]] = {}
        for i, name in enumerate(names if self.each else ()):
            found[name] = np.asarray([e[i] for e in self.each]).mean(axis=0)
        return found


def _arrays(name: str, prediction: Any, classes: int) -> dict[str, NDArray[Any]]:
    """A prediction as arrays."""
    if isinstance(prediction, Detections):
        parts: dict[str, NDArray[Any]] = {
            "xyxy": prediction.xyxy,
            "labels": prediction.labels,
            "scores": prediction.scores,
        }
        return {f"{name}-{part}": values for part, values in parts.items()}
    if isinstance(prediction, Tensor) and prediction.ndim == 3 and len(prediction) == classes > 1:
        step = -(-max(prediction.shape[1:]) // MOST_PIXELS)
        return {name: prediction.argmax(0).byte().cpu().numpy()[::step, ::step]}
    raise UsageError("there are no scores without labels for this task", fix="take one with masks or boxes")


def _load(folder: Path) -> Predictions:
    with np.load(folder / FILE, allow_pickle=False) as stored:
        found = dict(stored)

    def read(kind: str) -> list[Predicted]:
        values: list[Predicted] = []
        while (name := f"{kind}-{len(values)}") in found or f"{name}-xyxy" in found:
            if name in found:
                values.append(found[name])
            else:
                values.append(Detections(*(found[f"{name}-{part}"] for part in ("xyxy", "labels", "scores"))))
        return values

    entropy = float(found["entropy"]) if "entropy" in found else None
    return Predictions(
        plain=read("plain"),
        jittered=read("jittered"),
        shares=found.get("shares"),
        entropy=entropy,
        confidence=found.get("confidence"),
    )
