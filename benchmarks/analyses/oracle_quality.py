"""How much of an oracle's gain is left when its list of classes is wrong (TADP, table S2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.analyses import Findings, Given, Needs, Row, analyses
from benchmarks.analyses.shared import figures
from benchmarks.analyses.shared.images import Seen, listed, load_models, open_images, require_masks
from benchmarks.analyses.shared.statistics import mean_interval, told
from benchmarks.reports.intervals import Spread
from tadp_da.captions.imperfect import imperfect
from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import STRICT
from tadp_da.tasks import tasks

Share = Annotated[float, Field(gt=0, le=1)]
Level = tuple[float, float]


@analyses.add("oracle-quality")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class OracleQuality:
    """Scores a model with prompts that name the classes of each image's label at several precisions and recalls: at
    recall r the share 1 - r of the true names is left out, at precision p names of absent classes are added until the
    true ones are the share p of the list, as far as there are absent classes.

    The model stays the same, best one that was trained with the true names. TADP trains anew at each level, which the
    recipe ``mini-oracle-quality`` does: its rows are strategies such as ``oracle-p50-r75``.

    Attributes:
        limit: images at most.
        split: of a registered data set.
        precisions, recalls: levels, each of one with each of the other.
        batch: images in one forward pass.
    """

    needs: ClassVar[Needs] = "models"

    limit: Annotated[int, Field(ge=2)] = 60
    split: str = "test"
    precisions: tuple[Share, ...] = (0.5, 0.75, 1.0)
    recalls: tuple[Share, ...] = (0.5, 0.75, 1.0)
    batch: Annotated[int, Field(ge=1)] = 8

    def __call__(self, given: Given, run: Run) -> Findings:
        """Predict every image at every level."""
        levels = [(p, r) for p in self.precisions for r in self.recalls]
        per_model: dict[str, dict[Level, list[float]]] = {}
        reached: dict[Level, list[Level]] = {level: [] for level in levels}
        rows: list[Row] = []
        for name, model in load_models(given, run):
            require_masks(model, "oracle-quality")
            seen = open_images(model, given, run, limit=self.limit, split=self.split)
            per_model[name] = {}
            with run.progress(len(levels) * len(seen), f"predicting {name}") as advance:
                for level in levels:
                    names = [
                        imperfect(s.key, s.present, s.labels.classes, *level, seed=run.seed) for s in seen
                    ]
                    reached[level] += [_quality(n, s.present) for n, s in zip(names, seen, strict=True)]
                    whole, scores = self._scores(model, seen, names, run, advance)
                    per_model[name][level] = scores
                    rows.append({"model": name, "precision": level[0], "recall": level[1], **whole})
        best = max(levels)
        if any(np.isnan(values[best]).all() for values in per_model.values()):
            raise UsageError(
                "the images have no labelled pixels", where=given.images, fix="give other images"
            )
        changes = {level: _change(per_model, level, best) for level in levels}
        for row in rows:
            level = (row["precision"], row["recall"])
            own = np.array(reached[level])
            dict_row: Any = row
            dict_row |= {
                "precision reached": float(own[:, 0].mean()),
                "recall reached": float(own[:, 1].mean()),
                "per image, minus the most exact list": told(
                    mean_interval(_paired(per_model[row["model"]], level, best)) if level != best else None
                ),
            }
        return Findings(
            text=_text(rows, changes, best, len(per_model), len(seen)),
            tables={"levels": rows},
            figures={"levels": self._figure(rows, changes)},
        )

    def _scores(
        self,
        model: PerceptionModel,
        seen: Sequence[Seen],
        names: Sequence[Sequence[str]],
        run: Run,
        advance: Any,
    ) -> tuple[dict[str, Any], list[float]]:
        """Measures over all images, and the main measure of each."""
        metric = tasks[model.labels.task].metric(seen[0].labels, model.labels)
        items = ((s.image, listed(model, n, "class-names")) for s, n in zip(seen, names, strict=True))
        found = []
        for each, prediction in zip(
            seen, model.predict_images(items, batch=self.batch, precision=run.precision), strict=True
        ):
            metric.update(prediction, each.truth)
            score = metric.per_image(prediction, each.truth)
            found.append(np.nan if score is None else score)
            advance("")
        main, *_ = metric.compute()
        return {main.name: main.value}, found

    def _figure(self, rows: Sequence[Row], changes: Mapping[Level, Spread | None]) -> Image.Image:
        name = next(key for key in rows[0] if key not in ("model", "precision", "recall"))

        def draw(drawn: Any) -> None:
            panels = drawn.subplots(1, 2)
            means = np.array(
                [
                    [
                        np.mean([row[name] for row in rows if (row["precision"], row["recall"]) == (p, r)])
                        for r in self.recalls
                    ]
                    for p in self.precisions
                ]
            )
            image = panels[0].imshow(means, cmap="viridis")
            drawn.colorbar(image, ax=panels[0], shrink=0.7)
            for (y, x), value in np.ndenumerate(means):
                panels[0].text(x, y, f"{value:.1f}", ha="center", va="center", color="white", weight="bold")
            panels[0].set_xticks(range(len(self.recalls)), [f"{r:g}" for r in self.recalls])
            panels[0].set_yticks(range(len(self.precisions)), [f"{p:g}" for p in self.precisions])
            panels[0].set(xlabel="recall", ylabel="precision")
            panels[0].set_title(name, loc="left", weight="bold")
            levels = list(changes)
            figures.intervals(panels[1], range(len(levels)), list(changes.values()), "#b3261e")
            panels[1].axvline(0, color="#22262b", lw=0.8)
            panels[1].set_yticks(range(len(levels)), [f"P {p:g}, R {r:g}" for p, r in levels], size=8)
            panels[1].invert_yaxis()
            panels[1].set_title("change per image", loc="left", weight="bold")
            panels[1].spines[["top", "right"]].set_visible(False)

        return figures.figure((9, 0.35 * len(changes) + 1.2), draw)


def _quality(names: Sequence[str], present: Sequence[str]) -> Level:
    both = len({*names} & {*present})
    return both / max(len(names), 1), both / max(len(present), 1)


def _paired(scores: Mapping[Level, Sequence[float]], level: Level, best: Level) -> list[float]:
    return [a - b for a, b in zip(scores[level], scores[best], strict=True)]


def _change(
    per_model: Mapping[str, Mapping[Level, Sequence[float]]], level: Level, best: Level
) -> Spread | None:
    """Of the score from the best level to another: over models, or over the images of the only one."""
    each = [_paired(scores, level, best) for scores in per_model.values()]
    return mean_interval(each[0] if len(each) == 1 else [float(np.nanmean(e)) for e in each])


def _text(
    rows: Sequence[Row], changes: Mapping[Level, Spread | None], best: Level, models: int, images: int
) -> str:
    name = next(key for key in rows[0] if key not in ("model", "precision", "recall"))
    top = np.mean([row[name] for row in rows if (row["precision"], row["recall"]) == best])
    lines = [f"P {p:g} R {r:g} {told(changes[p, r])}" for p, r in changes if (p, r) != best]
    over = "models" if models > 1 else "images"
    clear = [
        f"P {p:g} R {r:g}"
        for (p, r), found in changes.items()
        if found and found.low is not None and found.high is not None and not found.low <= 0 <= found.high
    ]
    lowest = {what: min(row[f"{what} reached"] for row in rows) for what in ("precision", "recall")}
    return (
        f"With the list of classes at precision {best[0]:g} and recall {best[1]:g} the {name} is {top:.1f} (models: "
        f"{models}, images: {images}). Changes of the score per image from there (mean, 95 % interval over {over}): "
        f"{'; '.join(lines)}. Intervals without zero: {', '.join(clear) or 'none'}. An image has only so many absent "
        f"classes to add: the lowest mean precision that was reached is {lowest['precision']:.2f}, the lowest recall "
        f"{lowest['recall']:.2f}. The model was not trained anew at each level."
    )
