"""What a student is taught: a teacher's predictions on images, made once, as labels that move with their image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapt.augmentation import Augmentation
from adapt.training_data import ImageDataset, Pair, PromptEmbeddings, Size
from tadp_da.errors import UsageError
from tadp_da.images import geometry
from tadp_da.inference import Soft, predict_images
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.files import digest, file_digest
from tadp_da.tasks import tasks
from tadp_da.tasks.labels.label import Label
from tadp_da.types import SMALLEST_BOX, Boxes, Detections, LabelSpace, Unlabeled

STRIDE = 4
"""Pixels per cell of stored probabilities; heads compute them no finer, and enlarge them bilinearly."""


@dataclass(frozen=True, eq=False)
class Probabilities(Label):
    """Probabilities of classes ``float32 (k, h, w)``; 0 on padding."""

    @classmethod
    def at(cls, cells: Tensor, size: Size) -> Probabilities:
        """From stored ones ``(k, u, v)``, for an image of ``size`` (h, w)."""
        from torchvision import tv_tensors

        large = F.interpolate(cells.float()[None], size, mode="bilinear", align_corners=False)[0]
        return cls(tv_tensors.Image(large))

    def resize(self, size: Size) -> Probabilities:
        """Scaled bilinearly with the image."""
        return self._moved(geometry().resize(self.value, list(size), antialias=True))


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Predict images by a teacher and keep what it says. Call it for the folder of the predictions.

    Attributes:
        teacher: a saved model's folder.
        images: which.
        captions: of each image by its key.
        run: folder for artifacts, device and precision.
        batch: images of one size in one forward pass.
    """

    teacher: Path
    images: Unlabeled
    captions: Mapping[str, str]
    run: Run
    batch: int = 1

    def __call__(self) -> Path:
        """One file per image, named by its number. An interrupted run goes on where it stopped."""
        return self.run.get_or_create("teaching", self.inputs(), self._make, lambda folder: folder)

    def inputs(self) -> dict[str, Any]:
        """What the predictions depend on, as JSON values."""
        known = [self.images.digests.get(path) or file_digest(path) for path in self.images.paths]
        captions = [self.captions[self.images.key(i)] for i in range(len(self.images))]
        return {
            "teacher": file_digest(self.teacher / "model.json"),  # names the digests of the other files
            "images": digest(json.dumps([known, captions]).encode()),
            "stride": STRIDE,
            "precision": self.run.precision,
        }

    def _make(self, folder: Path) -> None:
        model = PerceptionModel.load(self.teacher, device=self.run.torch_device)
        done = len(list(folder.glob("[0-9]*.safetensors")))
        soft: Any = Soft(model)
        with self.run.progress(len(self.images) - done, "asking the teacher") as advance:
            found = predict_images(
                soft, self._items(model, done), batch=self.batch, precision=self.run.precision
            )
            for index, prediction in enumerate(found, start=done):
                fresh = folder / "fresh.safetensors"
                save_file(_stored(prediction), fresh)
                fresh.replace(file_of(folder, index))
                advance("")

    def _items(self, model: PerceptionModel, first: int) -> Iterator[tuple[Any, str]]:
        for index in range(first, len(self.images)):
            yield self.images[index], model.prompt(self.captions[self.images.key(index)])


def file_of(folder: Path, index: int) -> Path:
    """The file of an image's prediction."""
    return folder / f"{index:06d}.safetensors"


def _stored(prediction: Any) -> dict[str, Tensor]:
    if isinstance(prediction, Tensor):
        cells = [-(-side // STRIDE) for side in prediction.shape[-2:]]
        small = F.interpolate(prediction[None], cells, mode="bilinear", antialias=True)[0]
        return {"probabilities": small.half().cpu().contiguous()}
    if isinstance(prediction, Detections):
        fields = {"xyxy": prediction.xyxy, "labels": prediction.labels, "scores": prediction.scores}
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in fields.items()}
    if isinstance(prediction, np.ndarray) and prediction.dtype == np.float32:
        return {"values": torch.from_numpy(np.ascontiguousarray(prediction))}
    raise UsageError(
        f"a student cannot learn from predictions that are {type(prediction).__name__}",
        fix="distil models of masks, boxes or depth",
    )


class TaughtDataset(ImageDataset):
    """Images with what a teacher says of them as ``target``: class probabilities ``(k, h, w)``, or what the head's loss
    reads.

    Args:
        folder: the predictions, of :class:`Teaching`.
        labels: the teacher's.
        score: least score of a box that is learned as an object.
        images, text, size, augment, even: see :class:`~adapt.training_data.ImageDataset`.
    """

    stream, answer = "target", "target"

    def __init__(
        self,
        folder: Path,
        labels: LabelSpace,
        images: Unlabeled,
        text: PromptEmbeddings,
        size: Callable[[int, int], Size],
        augment: Augmentation,
        *,
        score: float,
        even: bool,
    ) -> None:
        super().__init__(images, text, size, augment, even=even)
        self.folder, self.labels, self.score = folder, labels, score

    def _load(self, index: int) -> Pair:
        image = np.array(self.images[index])
        size = image.shape[0], image.shape[1]
        said = load_file(file_of(self.folder, index))
        if "probabilities" in said:
            return image, Probabilities.at(said["probabilities"], size)
        value = said["values"].numpy() if "values" in said else _objects(said, self.score)
        return image, tasks[self.labels.task].label(
            value, size, self.labels, where=file_of(self.folder, index)
        )


def _objects(said: Mapping[str, Tensor], score: float) -> Boxes:
    """The boxes of at least this score that are large enough to be learned from."""
    boxes = said["xyxy"]
    kept = (said["scores"] >= score) & ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_BOX).all(1)
    none = np.zeros(int(kept.sum()), bool)
    return Boxes(boxes[kept].numpy(), said["labels"][kept].numpy(), none)


def divergence(logits: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student's classes from the teacher's, both softened by a temperature, times
    its square, so that gradients keep their size (Hinton et al., 2015, section 2); the mean over pixels that are no
    padding.

    Args:
        logits: the student's, ``(b, k, h, w)``.
        probabilities: the teacher's, ``(b, k, h, w)``; 0 on padding.
        temperature: 1 for the probabilities as they are; more shows more of how the teacher ranks wrong classes.
    """
    valid = probabilities.sum(1) > 0.5
    # the softmax of logits over T is the softmax of log-probabilities over T
    soft = (probabilities.clamp(min=1e-7).log() / temperature).log_softmax(1)
    own = (logits.float() / temperature).log_softmax(1)
    each = (soft.exp() * (soft - own)).sum(1) * valid
    return temperature**2 * each.sum() / valid.sum().clamp(min=1)
