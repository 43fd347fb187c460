"""What naming classes that an image does not show does to a model (TADP, figure S4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.analyses import Findings, Given, Needs, Row, analyses
from benchmarks.analyses.shared import figures
from benchmarks.analyses.shared.images import (
    Seen,
    listed,
    load_models,
    open_images,
    picture_names,
    require_masks,
)
from benchmarks.analyses.shared.off_target_mass import ALL, PRESENT, SHUFFLED, Measured, text_distance
from benchmarks.analyses.shared.statistics import mean_interval, told
from benchmarks.reports.intervals import Spread
from tadp_da.inference import Soft, predict_images
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import STRICT
from tadp_da.visualize import heat_overlay, overlay

Numbers = NDArray[np.float64]


@analyses.add("off-target")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class OffTarget:
    """Compares probabilities under two prompts: the names of the classes that an image shows, and of all classes.

    For each prompt: the mean softmax of class b over the pixels of true class a, and the off-target mass of an image,
    the mean over its pixels of what classes that it does not show receive. Its rise from the first prompt to the second
    is paired by image. There are two null controls: the names present in another order, which shows what any change of
    the wording brings; and, for the relation between rise and text distance, class names that are permuted.

    A model that was trained with the names of each image's classes is what the paper looks at; any other can be given.

    Attributes:
        limit: images at most.
        split: of a registered data set.
        strategy: caption strategy, or a template with ``{classes}``, that lists names.
        pictures: images that are shown: those with the largest rise.
        batch: images in one forward pass.
    """

    needs: ClassVar[Needs] = "models"

    limit: Annotated[int, Field(ge=2)] = 60
    split: str = "test"
    strategy: str = "class-names"
    pictures: Annotated[int, Field(ge=0, le=12)] = 3
    batch: Annotated[int, Field(ge=1)] = 8

    def __call__(self, given: Given, run: Run) -> Findings:
        """Predict every image under the three prompts."""
        found, figure = list[Measured](), dict[str, Image.Image]()
        for name, model in load_models(given, run):
            require_masks(model, "off-target")
            seen = open_images(model, given, run, limit=self.limit, split=self.split)
            measured = self._measure(name, model, seen, run)
            found.append(measured)
            figure |= {f"matrix {name}": _matrices(measured)}
            if self.pictures:
                figure |= {f"pictures {name}": self._shown(model, seen, measured, run)}
        figure |= {"rise": _rises(found)}
        return _findings(found, figure)

    def _measure(self, name: str, model: PerceptionModel, seen: Sequence[Seen], run: Run) -> Measured:
        classes = seen[0].labels.classes
        found = Measured(name=name, classes=classes, distance=text_distance(model, classes))
        rng = np.random.default_rng(run.seed)
        orders = [tuple(np.array(each.present)[rng.permutation(len(each.present))]) for each in seen]
        wanted: dict[str, list[Sequence[str]]] = {
            PRESENT: [each.present for each in seen],
            ALL: [classes] * len(seen),
            SHUFFLED: list(orders),
        }
        with run.progress(3 * len(seen), f"predicting {name}") as advance:
            for prompt, names in wanted.items():
                for each, p in zip(seen, self._probabilities(model, seen, names, run), strict=True):
                    found.count(prompt, each, p)
                    advance("")
        return found

    def _probabilities(
        self, model: PerceptionModel, seen: Sequence[Seen], names: Sequence[Sequence[str]], run: Run
    ) -> Iterator[Numbers]:
        """Softmax ``(k, h, w)`` of the shared classes of each image."""
        items = [(s.image, listed(model, n, self.strategy)) for s, n in zip(seen, names, strict=True)]
        own = [model.labels.classes.index(name) for name in seen[0].labels.classes]
        for p in predict_images(Soft(model), items, batch=self.batch, precision=run.precision):
            yield p[own].double().cpu().numpy()

    def _shown(
        self, model: PerceptionModel, seen: Sequence[Seen], measured: Measured, run: Run
    ) -> Image.Image:
        """Images with the largest rise: label, predictions under both prompts, and where off-target classes gain."""
        rise = measured.totals(ALL) - measured.totals(PRESENT)
        worst = [seen[i] for i in np.argsort(-np.nan_to_num(rise, nan=-1))[: self.pictures]]
        lines, names = {}, picture_names(worst)
        for each in worst:
            both = list(each.labels.classes)
            absent = [i for i, name in enumerate(both) if name not in each.present]
            (few,), (many,) = (
                list(self._probabilities(model, [each], [said], run)) for said in (each.present, both)
            )
            masks = [each.truth, few.argmax(0).astype(np.uint8), many.argmax(0).astype(np.uint8)]
            gain = (many - few)[absent].sum(0).clip(min=0)
            lines[f"{names[each.key]}\nno {', '.join(both[i] for i in absent) or '-'}"] = [
                each.image,
                *(overlay(each.image, mask, each.labels, 0.85) for mask in masks),
                heat_overlay(each.image, gain),
            ]
        header = ("image", "label", PRESENT, ALL, "gain of absent classes")
        return figures.tiles(lines, header)


def _matrices(each: Measured) -> Image.Image:
    """Both matrices and their difference."""
    few, many = each.matrix(PRESENT), each.matrix(ALL)
    change = many - few
    most = max(float(np.nanmax(np.abs(change), initial=0)), 1e-4)

    def draw(drawn: Any) -> None:
        shown = (
            (few, PRESENT, "viridis", 0, 1),
            (many, ALL, "viridis", 0, 1),
            (change, "rise", "RdBu_r", -most, most),
        )
        for axes, (values, title, colours, low, high) in zip(drawn.subplots(1, 3), shown, strict=True):
            image = axes.imshow(values, cmap=colours, vmin=low, vmax=high)
            ticks = range(len(each.classes))
            axes.set_xticks(ticks, each.classes, rotation=90, size=8)
            axes.set_yticks(ticks, each.classes, size=8)
            axes.set_title(title, loc="left", weight="bold")
            axes.set_xlabel("softmax of class b", size=8)
            for y, x in np.argwhere(np.isfinite(values)):
                text = f"{values[y, x]:.2f}" if high == 1 else f"{100 * values[y, x]:+.1f}"
                ink = "white" if high == 1 and values[y, x] < 0.6 else "black"
                axes.text(x, y, text, ha="center", va="center", size=5.5, color=ink)
            drawn.colorbar(image, ax=axes, shrink=0.7)
        drawn.suptitle(
            "pixels of true class a (rows); the rise in percentage points", size=9, x=0.01, ha="left"
        )

    return figures.figure((14, 4.4), draw)


def _rises(found: Sequence[Measured]) -> Image.Image:
    """The rise of every class with its interval, and the control."""
    classes = [name for name in found[0].classes if any(name in each.lacked for each in found)]
    inks = {ALL: "#b3261e", SHUFFLED: "#8a9099"}

    def draw(drawn: Any) -> None:
        for axes, each in zip(
            drawn.subplots(1, len(found), sharey=True, squeeze=False)[0], found, strict=True
        ):
            axes.axvline(0, color="#22262b", lw=0.8)
            for shift, (prompt, ink) in zip((-0.12, 0.12), inks.items(), strict=True):
                spreads = [each.rise(prompt, name) for name in classes]
                figures.intervals(axes, [i + shift for i in range(len(classes))], spreads, ink, prompt, 100)
            axes.set_yticks(range(len(classes)), classes)
            axes.invert_yaxis()
            axes.set_title(each.name, size=9)
            if axes.collections:
                axes.legend(frameon=False, fontsize=7)
            axes.spines[["top", "right"]].set_visible(False)
        drawn.supxlabel(
            "rise of the mean softmax, in percentage points, on images that lack the class; 95 % interval over images",
            size=8,
        )

    return figures.figure((4.5 * len(found) + 1, 0.4 * len(classes) + 1.4), draw)


def _findings(found: Sequence[Measured], figure: Mapping[str, Image.Image]) -> Findings:
    rows: list[Row] = []
    for each in found:
        for name in each.lacked:
            i, rise = each.classes.index(name), each.rise(ALL, name)
            control = each.rise(SHUFFLED, name)
            few, many = (mean_interval([m[i] for m in each.mass[p]]) for p in (PRESENT, ALL))
            rows.append(
                {
                    "model": each.name,
                    "class": name,
                    "images that lack it": len(few.values) if few else 0,
                    "mass, present names (%)": 100 * few.mean if few else None,
                    "mass, all names (%)": 100 * many.mean if many else None,
                    "rise": told(rise, 100),
                    "rise, shuffled names": told(control, 100),
                }
            )
    models: list[Row] = [
        {
            "model": each.name,
            "images": each.images,
            "rise of the off-target mass (points)": told(each.rise(), 100),
            "the same, shuffled names": told(each.rise(SHUFFLED), 100),
            "change of pixel accuracy (points)": told(each.change_of_accuracy(), 100),
            "correlation of rise and text distance": (r := each.against_distance())[0],
            "p under permuted names": r[1],
        }
        for each in found
    ]
    matrices = {
        f"matrix {each.name}, {prompt}": [
            {"true class": a, **dict(zip(each.classes, map(_number, line), strict=True))}
            for a, line in zip(each.classes, each.matrix(prompt), strict=True)
        ]
        for each in found
        for prompt in (PRESENT, ALL)
    }
    return Findings(text=_text(found), tables={"models": models, "classes": rows, **matrices}, figures=figure)


def _text(found: Sequence[Measured]) -> str:
    if all(each.rise() is None for each in found):
        return "Every image shows all classes: there is no off-target class to look at."
    rise, control, accuracy = (
        _over(found, of) for of in (Measured.rise, lambda m: m.rise(SHUFFLED), Measured.change_of_accuracy)
    )
    over = "models" if len(found) > 1 else "images"
    images = found[0].images
    before = np.mean([np.nanmean(each.totals(PRESENT)) for each in found])
    clear = (
        rise is not None and rise.low is not None and rise.high is not None and not rise.low <= 0 <= rise.high
    )
    verdict = ("raises" if rise and rise.mean > 0 else "lowers") if clear else "does not clearly change"
    near = [each.against_distance() for each in found]
    said = "; ".join(f"{r:+.2f} (p = {p:.2f})" for r, p in near if r is not None and p is not None)
    return (
        f"Naming all classes instead of those that an image shows {verdict} what absent classes receive: from "
        f"{100 * before:.2f} % of the softmax by {told(rise, 100)} percentage points (mean, and 95 % interval over "
        f"{over}; {images} images). The same names in another order change it by {told(control, 100)} points. Under "
        f"all names pixel accuracy changes by {told(accuracy, 100)} points. Over pairs of classes, rank correlation of "
        f"the rise of b on pixels of a with the text distance of their names, and its p-value under permuted names: "
        f"{said or 'too few pairs'}. Negative means that nearer names rise more."
    )


def _over(found: Sequence[Measured], of: Callable[[Measured], Spread | None]) -> Spread | None:
    """The mean over models with its interval, or over the images of the only model."""
    each = [of(model) for model in found]
    return each[0] if len(found) == 1 else mean_interval([s.mean for s in each if s is not None])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
