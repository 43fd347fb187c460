"""What a model gives to classes, by prompt: what the analysis of off-target classes counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.analyses.shared.images import Seen
from benchmarks.analyses.shared.statistics import mean_interval, permuted_names
from benchmarks.reports.intervals import Spread
from tadp_da.class_names import spoken
from tadp_da.perception_model import PerceptionModel

Numbers = NDArray[np.float64]
PRESENT, ALL, SHUFFLED = "present names", "all names", "present names, shuffled"
"""Prompts: the names of the classes that an image shows, of all classes, and the first ones in another order."""


@dataclass(kw_only=True)
class Measured:
    """Probabilities of one model, by prompt.

    Attributes:
        name: of the model.
        classes: their names.
        distance: ``(k, k)``, cosine distance between the encoded names.
        mass: by prompt and image ``(k,)``, the mean probability of each class over the image; NaN for one that the
            image shows.
        sums: by prompt ``(k, k)``, over pixels of true class a the sum of the probability of b.
        pixels: ``(k,)`` of each true class, over all images.
        accuracy: by prompt and image, share of pixels whose likeliest class is the true one.
    """

    name: str
    classes: tuple[str, ...]
    distance: Numbers

    def __post_init__(self) -> None:
        k = len(self.classes)
        self.mass: dict[str, list[Numbers]] = {p: [] for p in (PRESENT, ALL, SHUFFLED)}
        self.accuracy: dict[str, list[float]] = {p: [] for p in self.mass}
        self.sums = {p: np.zeros((k, k)) for p in self.mass}
        self.pixels = np.zeros(k)

    def count(self, prompt: str, seen: Seen, p: Numbers) -> None:
        """Count the probabilities ``(k, h, w)`` of an image."""
        known = seen.truth != seen.labels.ignore
        values, truth = p[:, known], seen.truth[known]
        mean = values.mean(1) if values.size else np.full(len(p), np.nan)
        absent = np.array([name not in seen.present for name in self.classes])
        self.mass[prompt].append(np.where(absent, mean, np.nan))
        self.accuracy[prompt].append(float((values.argmax(0) == truth).mean()) if values.size else np.nan)
        for a in np.unique(truth):
            here = truth == a
            self.sums[prompt][a] += values[:, here].sum(1)
            self.pixels[a] += here.sum() if prompt == PRESENT else 0

    def totals(self, prompt: str) -> Numbers:
        """``(n,)``: off-target mass of each image; NaN for one that shows all classes."""
        mass = np.stack(self.mass[prompt])
        return np.where(np.isfinite(mass).any(1), np.nansum(mass, axis=1), np.nan)

    def rise(self, prompt: str = ALL, name: str = "") -> Spread | None:
        """Of the off-target mass from present names to a prompt: of one class, or of all together."""
        if not name:
            return mean_interval((self.totals(prompt) - self.totals(PRESENT)).tolist())
        i = self.classes.index(name)
        return mean_interval(
            [b[i] - a[i] for a, b in zip(self.mass[PRESENT], self.mass[prompt], strict=True)]
        )

    def matrix(self, prompt: str) -> Numbers:
        """``(k, k)``: mean probability of class b over the pixels of class a, NaN where there are none."""
        with np.errstate(invalid="ignore"):
            found: Numbers = self.sums[prompt] / np.where(self.pixels, self.pixels, np.nan)[:, None]
        return found

    def against_distance(self) -> tuple[float | None, float | None]:
        """Rank correlation over pairs of classes between the rise of b on a and their text distance, and its p-value
        under permuted names."""
        return permuted_names(self.matrix(ALL) - self.matrix(PRESENT), self.distance)

    def change_of_accuracy(self) -> Spread | None:
        """From present names to all names, paired by image."""
        pairs = zip(self.accuracy[PRESENT], self.accuracy[ALL], strict=True)
        return mean_interval([after - before for before, after in pairs])

    @property
    def images(self) -> int:
        """How many images lack a class, so that they have an off-target mass."""
        return int(np.isfinite(self.totals(ALL)).sum())

    @property
    def lacked(self) -> list[str]:
        """Names of the classes that some image lacks."""
        finite = np.isfinite(np.stack(self.mass[ALL]))
        return [name for i, name in enumerate(self.classes) if finite[:, i].any()]


@torch.no_grad()
def text_distance(model: PerceptionModel, classes: Sequence[str]) -> Numbers:
    """``(k, k)``: cosine distance between class names as prompts say them and the model's text encoder reads each by
    itself, the mean over its tokens."""
    names = [spoken(name) for name in classes]
    text, count = model.backbone.encode_text(names), model.backbone.count_tokens
    rows = torch.stack([t[1 : 1 + count(name)].mean(0) for t, name in zip(text, names, strict=True)])
    rows = torch.nn.functional.normalize(rows.double(), dim=1)
    return (1 - rows @ rows.T).cpu().numpy()
