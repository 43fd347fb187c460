"""How a model looks at an image: at what size, whole or through a sliding window, once or also mirrored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

Pixels = Annotated[int, Field(ge=8)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class InferenceSettings:
    """Size and windows of inference; training works at the same size (TADP, appendix D: fit into 1024 x 512,
    windows of 512 every 341).

    Attributes:
        short: the shorter side may have at most this many pixels, and the image is scaled (up or down, aspect ratio
            kept) until it or ``long`` is reached; None for no such bound.
        long: the same for the longer side. With neither, images keep their size.
        squash: exact height and width instead, the aspect ratio lost (what the paper's code does for detection).
        window: height and width of a sliding window; None looks at the whole image at once.
        stride: from one window to the next, vertically and horizontally; None takes two thirds of the window.
        flip: average with the mirror image.
    """

    short: Pixels | None = None
    long: Pixels | None = None
    squash: tuple[Pixels, Pixels] | None = None
    window: tuple[Pixels, Pixels] | None = None
    stride: tuple[Pixels, Pixels] | None = None
    flip: bool = False

    @model_validator(mode="after")
    def _one_size(self) -> InferenceSettings:
        if self.squash is not None and (self.short is not None or self.long is not None):
            raise ValueError("squash gives the size; leave out short and long")
        return self

    @model_validator(mode="after")
    def _windows_overlap(self) -> InferenceSettings:
        if self.stride is not None and self.window is None:
            raise ValueError("stride needs a window; set both, or neither")
        if (
            self.stride
            and self.window
            and (self.stride[0] > self.window[0] or self.stride[1] > self.window[1])
        ):
            raise ValueError(f"stride {self.stride} leaves gaps between windows of {self.window}; lower it")
        return self

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Working height and width of an image."""
        if self.squash is not None:
            return self.squash
        factors = []
        if self.short is not None:
            factors.append(self.short / min(height, width))
        if self.long is not None:
            factors.append(self.long / max(height, width))
        factor = min(factors, default=1.0)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def boxes(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Rows and columns of every window: all of one size, the last ones moved back to end at the border."""
        if self.window is None:
            return [(slice(0, height), slice(0, width))]
        stride = self.stride or (max(1, self.window[0] * 2 // 3), max(1, self.window[1] * 2 // 3))
        rows = _starts(height, self.window[0], stride[0])
        columns = _starts(width, self.window[1], stride[1])
        return [
            (slice(top, min(height, top + self.window[0])), slice(left, min(width, left + self.window[1])))
            for top in rows
            for left in columns
        ]

    def through(self, look: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """Dense outputs ``(b, k, h, w)`` for pixels ``(b, 3, h, w)``: ``look``, averaged over windows and mirror."""
        if self.flip:
            return (self._slide(look, pixels) + self._slide(look, pixels.flip(-1)).flip(-1)) / 2
        return self._slide(look, pixels)

    def _slide(self, look: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        boxes = self.boxes(height, width)
        if len(boxes) == 1:
            return look(pixels)
        total: Tensor | None = None
        seen = torch.zeros(height, width, device=pixels.device)
        for rows, columns in boxes:
            outputs = look(pixels[..., rows, columns])
            if total is None:
                total = outputs.new_zeros(*outputs.shape[:2], height, width)
            total[..., rows, columns] += outputs
            seen[rows, columns] += 1
        assert total is not None  # boxes is never empty
        return total / seen


def _starts(length: int, window: int, stride: int) -> list[int]:
    last = max(0, length - window)
    return [*range(0, last, stride), last]
