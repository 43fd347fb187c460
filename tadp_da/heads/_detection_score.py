"""Detection score: VOC 2007, VOC 2010 and COCO side by side. A shared helper, not a plug-in."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tadp_da.errors import DataError, UsageError
from tadp_da.heads._boxes import check_boxes
from tadp_da.heads._voc_ap import THRESHOLDS, Matches, match
from tadp_da.types import Boxes, Detections, LabelSpace

METRIC = "AP50 (VOC07)"
SHOWN = 0.5
"""Least score of a detection in pictures."""

NO_COCO = "COCO numbers need a package that is not installed: pip install 'tadp-da[det]'"


class DetectionScore:
    """Average precision over all images together, in %.

    The main figure is that of the authors of Watercolor2k and Comic2k (Inoue et al., 2018): VOC 2007's 11 points at an
    overlap of 0.5. The later kits' area under the curve and COCO's 101 points stand beside it, each at 0.5 and as the
    mean over 0.5, 0.55, ..., 0.95. Difficult objects are neither to be found nor held against a detector. A class
    without an object to find has no precision (None) and does not enter a mean. Images without objects count: what is
    found on them is a false alarm.

    Args:
        labels: classes of the truths.
        decides: classes of the decisions, by name at least those of the truths; finds of others are dropped.
        coco: compute COCO's numbers where the package for it is installed.

    Raises:
        UsageError: when a class of the truths is none that the detector knows.
    """

    def __init__(self, labels: LabelSpace, *, decides: LabelSpace | None = None, coco: bool = True) -> None:
        known = (decides or labels).classes
        if unknown := [name for name in labels.classes if name not in known]:
            raise UsageError(
                f"the model cannot find {', '.join(unknown)}: it knows {', '.join(known)}",
                fix="train on a source with these classes, or score on labels of fewer classes",
            )
        self.labels, self.coco = labels, coco
        self._ids = np.array([labels.classes.index(n) if n in labels.classes else -1 for n in known])
        self._found: list[Detections] = []
        self._truths: list[Boxes] = []

    def update(self, decision: Detections, truth: Boxes) -> None:
        """Count one image.

        Raises:
            DataError: when a true box is empty or its id is no class.
        """
        check_boxes(truth, self.labels, where=f"image {len(self._truths)} of this score")
        self._found.append(self._translated(decision))
        self._truths.append(truth)

    def compute(self) -> dict[str, Any]:
        """``main`` (mean AP50 of VOC 2007), ``metric``, ``classes`` (the same by name), ``ap`` (``"VOC07"``,
        ``"VOC10"``, ``"COCO"``, each with ``AP50`` and ``AP``, VOC's with ``classes`` at 0.5; COCO None where it is
        missing), ``measures`` (the same six figures by name), ``notes``, ``counted`` (classes in the mean),
        ``objects``, ``images``.

        Raises:
            DataError: when there was no object to find.
        """
        matches = [match(self._found, self._truths, k) for k in range(len(self.labels.classes))]
        objects = sum(m.at(0.5).objects for m in matches)
        if objects == 0:
            raise DataError(
                f"nothing to score: {len(self._truths)} images without an object to find",
                fix="give labels with objects that are not all difficult",
            )
        ap: dict[str, Any] = {
            "VOC07": self._voc(matches, "eleven_points"),
            "VOC10": self._voc(matches, "area"),
            "COCO": None,
        }
        notes = []
        if self.coco and importlib.util.find_spec("faster_coco_eval") is None:
            notes.append(NO_COCO)
        elif self.coco:
            ap["COCO"] = self._coco()
        return {
            "main": ap["VOC07"]["AP50"],
            "metric": METRIC,
            "classes": ap["VOC07"]["classes"],
            "ap": ap,
            "measures": {f"{kit} {m}": v and v[m] for kit, v in ap.items() for m in ("AP50", "AP")},
            "notes": notes,
            "counted": sum(v is not None for v in ap["VOC07"]["classes"].values()),
            "objects": objects,
            "images": len(self._truths),
        }

    def alone(self, decision: Detections, truth: Boxes) -> float | None:
        """The main figure of one image; None when it has no object to find."""
        found = self._translated(decision)
        each = [match([found], [truth], k).at(0.5).eleven_points() for k in range(len(self.labels.classes))]
        return _percent(_mean(each))

    def paint(
        self, decision: Detections, truth: Boxes, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Outlines in class ids; of what was found, what scores at least 0.5."""
        found = painted(self._translated(decision), size, self.labels.ignore)
        return found, outlines(truth.xyxy, truth.labels, size, self.labels.ignore)

    def _translated(self, decision: Detections) -> Detections:
        """Finds of the truths' classes, under the truths' ids."""
        ids = self._ids[decision.labels]
        kept = ids >= 0
        return Detections(decision.xyxy[kept], ids[kept], decision.scores[kept])

    def _voc(self, matches: Sequence[Matches], kind: str) -> dict[str, Any]:
        table = [[_percent(getattr(m.at(t), kind)()) for t in THRESHOLDS] for m in matches]
        first = [row[0] for row in table]
        return {
            "AP50": _mean(first),
            "AP": _mean([value for row in table for value in row]),
            "classes": dict(zip(self.labels.classes, first, strict=True)),
        }

    def _coco(self) -> dict[str, Any]:
        import torch
        from torchmetrics.detection import MeanAveragePrecision

        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # it warns of more than 100 detections, which COCO cuts off by its rules
            metric = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
            for found, truth in zip(self._found, self._truths, strict=True):
                metric.update(
                    [
                        {
                            "boxes": torch.from_numpy(found.xyxy),
                            "labels": torch.from_numpy(found.labels),
                            "scores": torch.from_numpy(found.scores),
                        }
                    ],
                    [
                        {
                            "boxes": torch.from_numpy(truth.xyxy),
                            "labels": torch.from_numpy(truth.labels),
                            "iscrowd": torch.from_numpy(truth.difficult.astype(np.int64)),
                        }
                    ],
                )
            values = metric.compute()
        return {"AP50": _absent(values["map_50"]), "AP": _absent(values["map"])}


def outlines(
    boxes: NDArray[np.float32], labels: NDArray[np.int64], size: tuple[int, int], ignore: int
) -> NDArray[np.uint8]:
    """Boxes as a picture ``uint8 (h, w)``: class ids along borders, ``ignore`` elsewhere; the first lies on top."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (size[1], size[0]), ignore)
    pen, thick = ImageDraw.Draw(canvas), max(1, round(min(size) / 200))
    for (left, top, right, bottom), label in zip(boxes[::-1].tolist(), labels[::-1].tolist(), strict=True):
        x1, y1 = round(left), round(top)
        corners = (x1, y1, max(x1, round(right) - 1), max(y1, round(bottom) - 1))
        pen.rectangle(corners, outline=label, width=thick)
    return np.asarray(canvas)


def painted(found: Detections, size: tuple[int, int], ignore: int) -> NDArray[np.uint8]:
    """Outlines of what scores at least 0.5, the best on top."""
    sure = found.scores >= SHOWN
    return outlines(found.xyxy[sure], found.labels[sure], size, ignore)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _absent(value: Any) -> float | None:
    """COCO writes -1 where there is nothing to find."""
    return None if value < 0 else 100 * float(value)
