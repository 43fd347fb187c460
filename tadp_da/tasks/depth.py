"""Monocular depth: metres for every pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tadp_da.errors import UsageError
from tadp_da.storage.depth_files import read_values, write_depth
from tadp_da.tasks import Area, SharedClasses, Size, View, tasks
from tadp_da.tasks.labels.depth import DepthLabel, depth_range, known
from tadp_da.tasks.labels.maps import keep_inside, merged
from tadp_da.tasks.metrics.depth_errors import DepthErrors
from tadp_da.types import LabelSpace

Depth = NDArray[np.float32]
COLOURS = "turbo_r"
"""Colour map of matplotlib: red is near, blue is far."""


class DepthTask:
    """Labels and predictions are metres ``float32 (h, w)``, in labels 0 where unknown; raw outputs are metres
    ``(b, 1, h, w)``."""

    suffix, files, pipeline_tag = ".npy", "depth", "depth-estimation"
    exports: tuple[str, ...] = (".png",)

    def label(self, raw: Any, size: Size, labels: LabelSpace, *, where: object) -> DepthLabel:
        """A depth map of the image's own size."""
        return DepthLabel.checked(raw, size, labels, where)

    def outputs(self, head: Any, raw: Tensor) -> list[Tensor]:
        """Metres ``(1, h, w)`` of each view."""
        return list(raw.float())

    def merge(self, head: Any, outputs: Sequence[Tensor], views: Sequence[View], size: Size) -> Depth:
        """``float32 (h, w)`` of ``size``: mean metres over windows, then over the image and its mirror image,
        then over scales."""
        prediction: Depth = head.predict(merged(outputs, views, size)[None])[0]
        return prediction

    def metric(self, labels: LabelSpace, predicted: LabelSpace) -> DepthErrors:
        """Errors in the range of the labels."""
        return DepthErrors(labels)

    def shared(self, labels: LabelSpace, known: LabelSpace) -> SharedClasses:
        """Depths in both ranges are scored; others are unknown."""
        (low, high), (least, most) = depth_range(labels), depth_range(known)
        both = max(low, least), min(high, most)
        if both[0] >= both[1]:
            raise UsageError(
                f"labels between {low:g} and {high:g} m and a model of {least:g} to {most:g} m have no range in common",
                fix="train on depths of the labels' range",
            )
        left_out = (
            ""
            if both == (low, high)
            else f"scored between {both[0]:g} and {both[1]:g} m, as the model was trained"
        )
        return SharedClasses(dataclasses.replace(labels, range=both), lambda label: label, left_out)

    def inside(self, label: Depth, area: Area, labels: LabelSpace) -> Depth:
        """Pixels outside are unknown."""
        return keep_inside(label, area, 0)

    def render(
        self, image: Image.Image, value: Depth, labels: LabelSpace, opacity: float = 0.6
    ) -> Image.Image:
        """A colour map over the image, from 0 m (red) to the end of the range (blue), with a scale at the bottom; the
        image shows where the depth is unknown."""
        import matplotlib as mpl

        under, furthest = image.convert("RGB"), depth_range(labels)[1]
        table = (255 * mpl.colormaps[COLOURS](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
        shades = (255 / furthest * value).round().clip(0, 255).astype(np.uint8)
        counted = (255 * known(value, labels)).astype(np.uint8)
        shown = Image.composite(Image.fromarray(table[shades]), under, Image.fromarray(counted))
        high = max(1, min(20, image.height // 12))
        ramp = np.linspace(0, 255, image.width).astype(np.uint8)
        shown.paste(Image.fromarray(table[np.tile(ramp, (high, 1))]), (0, image.height - high))
        if high >= 8:
            pen, font = ImageDraw.Draw(shown), ImageFont.load_default(high - 1)
            style: dict[str, Any] = {"font": font, "fill": "white", "stroke_width": 1, "stroke_fill": "black"}
            pen.text((2, image.height), "0 m", anchor="ld", **style)
            pen.text((image.width - 2, image.height), f"{furthest:g} m", anchor="rd", **style)
        return Image.blend(under, shown, opacity)

    def present(self, value: Depth, labels: LabelSpace) -> tuple[str, ...]:
        """There are no classes."""
        return ()

    def write(self, prediction: Depth, path: Path, labels: LabelSpace) -> None:
        """NPY with metres as ``float32``, or 16-bit PNG with the unit in its text; see
        :mod:`tadp_da.storage.depth_files`."""
        write_depth(prediction, path, depth_range(labels)[1])

    def read(self, path: Path, labels: LabelSpace) -> Depth:
        """Metres."""
        values, unit = read_values(path)
        return np.asarray(values * (unit or 1), np.float32)


tasks.add("depth")(DepthTask())
