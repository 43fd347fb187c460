"""How a model is applied to images, for every task: size, sliding windows, mirror image, batches and precision."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from tadp_da.images import as_tensor, normalize, resize
from tadp_da.settings import Effect
from tadp_da.tasks import View, tasks

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
Scale = Annotated[float, Field(gt=0, le=8)]
Pixels = Annotated[int, Field(ge=8)]
Precision = Literal["no", "bf16", "fp16"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class InferenceSettings:
    """Size and windows of inference; training works at the same size (TADP, appendix D: fit into 1024 x 512,
    windows of 512 every 341).

    Attributes:
        short: the shorter side may have at most this many pixels, and the image is scaled (up or down, aspect ratio
            kept) until it or ``long`` is reached; None for no such bound.
        long: the same for the longer side. With neither, images keep their size.
        squash: exact height and width instead, the aspect ratio lost (what the paper's code does for detection).
        window: height and width of a sliding window; None takes the whole image at once.
        stride: from one window to the next, vertically and horizontally; None takes two thirds of the window.
        flip: predict the mirror image too, and merge both predictions.
        scales: predict the image at each of these multiples of its working size, and merge the predictions (multi-scale
            testing). Training is at the working size. Metres of an enlarged image are those of its true size, so that
            depth gains nothing.
        batch: largest number of windows in one forward pass. More is faster on a GPU and takes more memory; results may
            differ in the last digits, as the order of additions in a batch may.
    """

    short: Pixels | None = None
    long: Pixels | None = None
    squash: tuple[Pixels, Pixels] | None = None
    window: tuple[Pixels, Pixels] | None = None
    stride: tuple[Pixels, Pixels] | None = None
    flip: bool = False
    scales: Annotated[tuple[Scale, ...], Field(min_length=1), Effect.ADDED] = (1.0,)
    batch: Annotated[int, Field(ge=1), Effect.SPEED] = 8

    @model_validator(mode="after")
    def _consistent(self) -> InferenceSettings:
        if self.squash is not None and (self.short is not None or self.long is not None):
            raise ValueError("squash gives the size; leave out short and long")
        if self.stride is not None and self.window is None:
            raise ValueError("stride needs a window; set both, or neither")
        if self.stride and self.window and any(s > w for s, w in zip(self.stride, self.window, strict=True)):
            raise ValueError(f"stride {self.stride} leaves gaps between windows of {self.window}; lower it")
        return self

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """Working height and width of an image, times a scale."""
        bounds = ((self.short, min(height, width)), (self.long, max(height, width)))
        factor = min((most / side for most, side in bounds if most is not None), default=1.0)
        sides = self.squash or (height * factor, width * factor)
        return max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))

    def windows(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Rows and columns of every window of an image at its working size: all of one size, the last ones moved back
        to end at the border."""
        if self.window is None:
            return [(slice(0, height), slice(0, width))]
        strides = self.stride or [max(1, side * 2 // 3) for side in self.window]
        rows, columns = map(_slices, (height, width), self.window, strides)
        return [(row, column) for row in rows for column in columns]

    def views(self, height: int, width: int) -> list[View]:
        """Every window of an image at its working size and, with ``flip``, of its mirror image."""
        sides = (False, True) if self.flip else (False,)
        windows, shape = self.windows(height, width), (height, width)
        return [View(*window, shape, mirrored=side) for side in sides for window in windows]


def pixels_of(
    image: Image, settings: InferenceSettings, device: torch.device | str = "cpu", scale: float = 1.0
) -> Tensor:
    """An image as the pixels ``(1, 3, h, w)`` in [-1, 1] that a model reads, at the working size times a scale."""
    size = settings.size(image.height, image.width, scale)
    return normalize(resize(as_tensor(image), size).to(device))[None]


@torch.no_grad()
def predict(
    model: Any,
    images: Sequence[Image],
    prompts: Sequence[str],
    *,
    precision: Precision = "no",
    inference: InferenceSettings | None = None,
) -> list[Any]:
    """Predictions for images of one size, each at the image's own resolution.

    One image of one view in precision ``"no"`` gives the same bits as the network's own forward pass; where several
    views or images share a forward pass, results may differ from those of single passes in the last digits.

    Args:
        model: a :class:`~tadp_da.perception_model.PerceptionModel`.
        images: all of one height and width.
        prompts: of each image, given to the network as they are.
        precision: mixed precision of the forward passes.
        inference: other settings than the model's own.
    """
    settings, task = inference or model.inference, tasks[model.head.task]
    text, size = model.encode_text(list(prompts)), (images[0].height, images[0].width)
    outputs: list[list[Any]] = [[] for _ in images]
    views = list[View]()
    most = max(settings.batch, len(images))
    for scale in settings.scales:
        pixels = torch.cat([pixels_of(image, settings, model.device, scale) for image in images])
        those = settings.views(pixels.shape[-2], pixels.shape[-1])
        views += those
        pairs = [(i, view) for view in those for i in range(len(images))]
        for first in range(0, len(pairs), most):
            part = pairs[first : first + most]
            crops = [(pixels[i : i + 1].flip(-1) if v.mirrored else pixels[i : i + 1])[..., v.rows, v.columns]
                     for i, v in part]  # fmt: skip
            with torch.autocast(pixels.device.type, _AUTOCAST.get(precision), enabled=precision != "no"):
                raw = model(torch.cat(crops), text[[i for i, _ in part]])
            for (i, _), output in zip(part, task.outputs(model.head, raw), strict=True):
                outputs[i].append(output)
    return [task.merge(model.head, found, views, size) for found in outputs]


def predict_images(
    model: Any,
    items: Iterable[tuple[Image, str]],
    *,
    batch: int = 1,
    precision: Precision = "no",
    inference: InferenceSettings | None = None,
) -> Iterator[Any]:
    """Predictions for images and their prompts, in their order.

    Args:
        model: as in :func:`predict`.
        items: images with their prompts; taken only as far as predictions are.
        batch: images in one forward pass; only neighbours of one size share one.
        precision: mixed precision of the forward passes.
        inference: as in :func:`predict`.
    """
    waiting: list[tuple[Image, str]] = []
    for image, prompt in items:
        if waiting and (len(waiting) == batch or waiting[0][0].size != image.size):
            yield from predict(model, *zip(*waiting, strict=True), precision=precision, inference=inference)
            waiting = []
        waiting.append((image, prompt))
    if waiting:
        yield from predict(model, *zip(*waiting, strict=True), precision=precision, inference=inference)


class Soft:
    """A model, or its head, whose predictions of classes are probabilities ``(k, h, w)``; other predictions are as they
    are."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.of, name)
        return Soft(found) if name == "head" else found

    def __call__(self, *given: Any) -> Any:
        return self.of(*given)

    def predict(self, raw: Any) -> Any:
        """Of a head: what a task merges views with."""
        classes = isinstance(raw, Tensor) and self.of.labels.classes
        return list(raw.float().softmax(dim=1)) if classes else self.of.predict(raw)


def read_ahead(read: Callable[[int], T], indices: Iterable[int]) -> Iterator[Future[T]]:
    """``read`` of each index, in order; the next is read while the caller works on one. Errors come with results."""
    with ThreadPoolExecutor(1) as reader:
        waiting: deque[Future[T]] = deque()
        for index in indices:
            waiting.append(reader.submit(read, index))
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting


def _slices(length: int, window: int, stride: int) -> list[slice]:
    last = max(0, length - window)
    return [slice(start, min(length, start + window)) for start in (*range(0, last, stride), last)]
