"""Predictions during training, for people who watch it in a tracker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from adapt.training_data import CaptionedImages
from tadp_da.captions.rewrite import Write
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.tasks import tasks
from tadp_da.tracking import log_images, logs_during_training
from tadp_da.training.loop import Step
from tadp_da.types import Labeled, Unlabeled

_IMAGES, _SIDE = 2, 512  # of the source, and of the target; pixels of their longest side


@dataclass(frozen=True)
class PredictionLogger:
    """Draws predictions on images of the training set, always the same ones.

    Attributes:
        model: in training; the mode of its modules is restored.
        data, write: source images, and from their captions to prompts.
        unlabeled: target images, where the training reads them.
        run: folder, tracker and precision.
        due: whether a step, counted from 1, is one to draw at.
    """

    model: PerceptionModel
    data: Labeled
    write: Write
    unlabeled: CaptionedImages | None
    run: Run
    due: Callable[[int], bool]

    def __call__(self, steps: Iterable[Step]) -> None:
        """Take all steps; after each that is due, tell the run's tracker where there is one."""
        for step in steps:
            if self.due(step.index) and logs_during_training(self.run.tracker):
                with _modes(self.model):
                    log_images(self.run.tracker, self.run.folder, dict(self._drawn()), step.index)

    def _drawn(self) -> Iterator[tuple[str, Image.Image]]:
        sides = [("source", self.data.images, self.data.captions, self.write)]
        if self.unlabeled:
            found = self.unlabeled
            sides.append(("target", found.images, found.captions, self.model.rewrite.target))
        for side, images, captions, write in sides:
            for index in _spread(images):
                key = images.key(index)
                yield f"predictions/{side}/{key}", self._predicted(images[index], captions[key], write)

    def _predicted(self, image: Image.Image, caption: str, write: Write) -> Image.Image:
        """The image beside the prediction on it."""
        model, prompt = self.model, self.model.fitted(write, caption)
        found = model.predict(image, prompt, precision=self.run.precision)
        drawn = tasks[model.labels.task].render(image, found, model.labels)
        both = Image.new("RGB", (2 * image.width, image.height))
        both.paste(image, (0, 0))
        both.paste(drawn, (image.width, 0))
        both.thumbnail((2 * _SIDE, _SIDE), Image.Resampling.LANCZOS)
        return both


def _spread(images: Unlabeled) -> list[int]:
    """Indices at even distances: neighbouring frames of a video look alike."""
    count = min(_IMAGES, len(images))
    return [i * len(images) // count for i in range(count)]


@contextmanager
def _modes(model: PerceptionModel) -> Iterator[None]:
    """Leave every module in the mode that it is in; a prediction puts all of them into that of evaluation."""
    modes = [(module, module.training) for module in model.modules()]
    yield
    for module, training in modes:
        module.training = training
