"""Errors of depth as the benchmark of NYUv2 defines them (Eigen et al., 2014; BTS, Lee et al., 2019), and SILog as
GLPDepth and VPD compute it: with half of the squared mean, where BTS and KITTI take all of it and multiply by 100."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tadp_da.errors import DataError
from tadp_da.tasks import Measure
from tadp_da.tasks.labels.depth import check_depth, depth_range, known
from tadp_da.types import LabelSpace

MEASURES: Mapping[str, tuple[str, bool]] = {
    "RMSE": ("m", False),
    "AbsRel": ("", False),
    "SqRel": ("m", False),
    "log10": ("", False),
    "RMSE log": ("", False),
    "SILog": ("", False),
    "delta 1": ("", True),
    "delta 2": ("", True),
    "delta 3": ("", True),
}
"""Unit of each measure, and whether higher is better."""


class DepthErrors:
    """Errors of predicted depth, each computed over the known pixels of an image and averaged over the images.

    Labels count strictly inside their range; predictions are first clipped to it. With p predicted and t true metres
    and d = ln p - ln t: RMSE is the root of the mean of (p - t)^2, AbsRel and SqRel are the means of abs(p - t) / t and
    (p - t)^2 / t, log10 is the mean of abs(log10 p - log10 t), RMSE log the root of the mean of d^2, SILog the root of
    mean(d^2) - 0.5 mean(d)^2, and delta k the share of pixels of which max(p / t, t / p) is below 1.25^k.

    Args:
        labels: of depth, with a range.
    """

    def __init__(self, labels: LabelSpace) -> None:
        self.labels, self.range = labels, depth_range(labels)
        self._each: list[dict[str, float] | None] = []
        self._pixels = 0

    def update(self, prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> None:
        """Count one image: metres ``(h, w)``, in the label 0 where unknown.

        Raises:
            DataError: when the sizes differ, a label is no depth, or a prediction is not finite.
        """
        self._each.append(self._errors(prediction, truth))
        self._pixels += int(known(truth, self.labels).sum())

    def _errors(self, prediction: Any, truth: Any) -> dict[str, float] | None:
        """The measures of one image, None where no depth is known."""
        where = f"image {len(self._each)} of this metric"
        if prediction.shape != truth.shape:
            raise DataError(
                f"a prediction of size {prediction.shape} cannot be scored against a label of size {truth.shape}",
                where=where,
                fix="predict at the label's own resolution, or check that image and label belong together",
            )
        check_depth(truth, where=where)
        if not np.isfinite(prediction).all():
            raise DataError(
                "a prediction is not finite",
                where=where,
                fix="a model that gives such numbers has diverged: train it with a lower learning rate",
            )
        counted = known(truth, self.labels)
        if not counted.any():
            return None
        p, t = prediction[counted].astype(np.float64).clip(*self.range), truth[counted].astype(np.float64)
        squared, d, ratio = (p - t) ** 2, np.log(p) - np.log(t), np.maximum(p / t, t / p)
        found = {
            "RMSE": np.sqrt(squared.mean()),
            "AbsRel": (np.abs(p - t) / t).mean(),
            "SqRel": (squared / t).mean(),
            "log10": np.abs(d).mean() / np.log(10),
            "RMSE log": np.sqrt((d**2).mean()),
            "SILog": np.sqrt((d**2).mean() - 0.5 * d.mean() ** 2),
        }
        found |= {f"delta {k}": (ratio < 1.25**k).mean() for k in (1, 2, 3)}
        return {name: float(value) for name, value in found.items()}

    def compute(self) -> tuple[Measure, ...]:
        """Those of :data:`MEASURES`, RMSE first.

        Raises:
            DataError: when no depth was known in any image.
        """
        each = [found for found in self._each if found is not None]
        if not each:
            low, high = self.range
            raise DataError(
                f"nothing to score: {len(self._each)} images without a depth between {low:g} and {high:g} m",
                fix="check the unit of the depth maps, and the range and the part of the image that are scored",
            )
        return tuple(
            Measure(
                name=name,
                value=float(np.mean([found[name] for found in each])),
                unit=unit,
                higher_is_better=up,
            )
            for name, (unit, up) in MEASURES.items()
        )

    def per_image(self, prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> float | None:
        """RMSE of one image in metres, None when no depth is known."""
        found = self._errors(prediction, truth)
        return None if found is None else found["RMSE"]

    def details(self) -> dict[str, Any]:
        """``pixels``: how many were scored."""
        return {"pixels": self._pixels}

    def notes(self) -> tuple[str, ...]:
        """Units and range."""
        low, high = self.range
        return (
            f"RMSE and SqRel are in metres, the other measures have no unit; each is the mean over images of its value "
            f"over pixels with a true depth between {low:g} and {high:g} m.",
        )
