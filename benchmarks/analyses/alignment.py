"""How well prompts and images agree, by strategy and domain, and whether that says anything about scores (TADP, figures
S5 and S6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.analyses import Cell, Findings, Given, Needs, Row, analyses
from benchmarks.analyses.shared import alignment as measures
from benchmarks.analyses.shared import figures
from benchmarks.analyses.shared.images import labelled, require_masks, thinned
from benchmarks.analyses.shared.statistics import Correlation, correlate, mean_interval, told
from benchmarks.experiment import Experiment
from benchmarks.recipe import Recipe
from benchmarks.reports.statistics import baseline_of
from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import STRICT
from tadp_da.storage.artifacts import inputs_of
from tadp_da.training.data import mix

MEASURES = (
    "denoising gain (%)",
    "attention AUROC",
    "attention AP",
    "attention mass ratio",
    "class recall",
    "class precision",
    "CLIPScore",
)


@analyses.add("alignment")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Alignment:
    """Measures the alignment of prompts with test images, for every row, seed and domain of a table, and correlates it
    with each image's score in the row's report: over images, over images as differences from the row that others are
    compared with, and over rows. The size of what an image shows explains part of its score by itself (r = 0.40 in
    TADP's supplement), so it is taken out.

    The denoising gain asks the diffusion model with the row's concept, before adaptation; maps are those of the adapted
    model.

    Attributes:
        limit: test images of each domain at most.
        draws: of timestep and noise, for the denoising gain; 0 leaves it out.
        clip: folder or hub id of a CLIP model, for CLIPScore; empty to leave it out.
        words: further words that name a class in prompts: ``{vegetation: [tree]}``.
        similarity: cosine of the text encoder from which a word names a class (0.9 in TADP); 0 for none. Only text
            encoders that were trained on much text tell words apart.
    """

    needs: ClassVar[Needs] = "table"

    limit: Annotated[int, Field(ge=4)] = 40
    draws: Annotated[int, Field(ge=0)] = 8
    clip: str = ""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    similarity: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __call__(self, given: Given, run: Run) -> Findings:
        """Measure every finished row and seed."""
        clip = measures.ClipScore(self.clip, run.torch_device) if self.clip else None
        images = [line for cell in given.cells() for line in self._measured(cell, given, run, clip)]
        if not images:
            raise UsageError(
                "no row of the table has scores of labelled test images", fix="fill a table that has"
            )
        base = baseline_of(dict.fromkeys(line["row"] for line in images))
        known = [name for name in MEASURES if any(line.get(name) is not None for line in images)]
        correlations = [
            line
            for domain in dict.fromkeys(line["domain"] for line in images)
            for name in known
            for line in [_correlations([i for i in images if i["domain"] == domain], name, base, run.seed)]
        ]
        return Findings(
            text=_text(images, correlations, base),
            tables={
                "alignment": _means(images, known),
                "correlations": [{k: _short(v) for k, v in line.items()} for line in correlations],
                "images": images,
            },
            figures={"alignment": _figure(images, known)},
        )

    def _measured(self, cell: Cell, given: Given, run: Run, clip: Any) -> list[dict[str, Any]]:
        """Every measure of every image of every domain of a cell."""
        run = run.with_seed(cell.seed)
        model = PerceptionModel.load(cell.model, device=run.torch_device)
        require_masks(model, "alignment")
        # of what the table was made with, else its concepts would be learned again
        run = replace(run, precision=(inputs_of(cell.model) or {}).get("precision", run.precision))
        experiment = Experiment(Recipe.from_mapping(cell.recipe), run, given.data)
        backbone = self._unadapted(experiment, run) if self.draws and model.backbone.generates else None
        found = []
        for name, test in experiment.scoring(model).tests.items():
            data, scores = thinned(test.data, test.split, self.limit), cell.report.evaluations[name].per_image
            from_labels = model.rewrite.label_quality
            captions = data.captions(test.split, experiment.captions, run, from_labels=from_labels)
            seen = labelled(model, data, test.split, captions)
            words = measures.ClassWords(
                model=model, classes=seen[0].labels.classes, further=self.words, similarity=self.similarity
            )
            with run.progress(
                len(seen), f"alignment of {cell.row} {cell.seed} on {data.domain.name}"
            ) as advance:
                for each in seen:
                    prompt = model.fitted(test.write, each.caption)
                    named = words(prompt)
                    precision, recall = measures.precision_and_recall([*named], each.present)
                    line: dict[str, Any] = {"row": cell.row, "seed": cell.seed, "domain": data.domain.name}
                    line |= {
                        "image": each.key,
                        "score": scores.get(each.key),
                        "log size": measures.log_size(each),
                    }
                    line |= {"class recall": recall, "class precision": precision}
                    line |= measures.attention_measures(model, each, prompt, named)
                    if backbone is not None:
                        seed = mix(run.seed, each.key)
                        line["denoising gain (%)"] = 100 * measures.denoising_gain(
                            backbone, model, each.image, prompt, seed, self.draws
                        )
                    line["CLIPScore"] = clip(each.image, prompt) if clip else None
                    found.append(line | {"prompt": prompt})
                    advance("")
        return found

    def _unadapted(self, experiment: Experiment, run: Run) -> Any:
        """The base model with what the row uses of its concept."""
        backbone = experiment.base.load()
        if concept := experiment.adaptation(experiment.personalization()()).concept:
            backbone.load_concept(concept)
        if not experiment.recipe.pretrained:
            backbone.reinitialize(run.seed)
        return backbone.requires_grad_(False).to(run.torch_device)


def _values(lines: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [np.nan if line.get(name) is None else float(line[name]) for line in lines]


def _correlations(lines: Sequence[Mapping[str, Any]], name: str, base: str, seed: int) -> dict[str, Any]:
    """Of one measure with the score, in one domain."""
    x, y, size = (_values(lines, each) for each in (name, "score", "log size"))
    keys = [line["image"] for line in lines]
    plain = correlate(x, y, groups=keys, seed=seed)
    without_size = correlate(x, y, size, groups=keys, seed=seed)
    first = {(line["seed"], line["image"]): line for line in lines if line["row"] == base}
    pairs = [
        (line, first[k])
        for line in lines
        if line["row"] != base and (k := (line["seed"], line["image"])) in first
    ]
    dx, dy = (
        (
            np.array(_values([a for a, _ in pairs], each)) - np.array(_values([b for _, b in pairs], each))
        ).tolist()
        for each in (name, "score")
    )
    sizes = _values([a for a, _ in pairs], "log size")
    paired = correlate(dx, dy, sizes, groups=[a["image"] for a, _ in pairs], seed=seed)
    rows = list(dict.fromkeys(line["row"] for line in lines))
    means = [
        [float(np.nanmean(v)) if np.isfinite(v := np.array(_values([i for i in lines if i["row"] == row], each))).any()
         else np.nan for row in rows]
        for each in (name, "score")
    ]  # fmt: skip
    over_rows = correlate(*means, seed=seed)
    told_each = {
        "over images": plain,
        "over images, size taken out": without_size,
        f"differences from {base}, size taken out": paired,
        "over rows": over_rows,
    }
    return {"domain": lines[0]["domain"], "measure": name} | told_each


def _short(found: Correlation | str) -> str:
    return "" if isinstance(found, Correlation) and found.r is None else str(found)


def _means(images: Sequence[Mapping[str, Any]], known: Sequence[str]) -> list[Row]:
    """By row and domain: the mean over seeds of each image, and over images with its interval."""
    found: list[Row] = []
    for row, domain in dict.fromkeys((line["row"], line["domain"]) for line in images):
        own = [line for line in images if (line["row"], line["domain"]) == (row, domain)]
        line: dict[str, Any] = {"row": row, "domain": domain, "seeds": len({i["seed"] for i in own})}
        line |= {"images": len({i["image"] for i in own})}
        for name in ("score", *known):
            line[name] = told(_over_images(own, name), sign="")
        found.append(line)
    return found


def _over_images(lines: Sequence[Mapping[str, Any]], name: str) -> Any:
    by_image: dict[str, list[float]] = {}
    for line, value in zip(lines, _values(lines, name), strict=True):
        if np.isfinite(value):
            by_image.setdefault(line["image"], []).append(value)
    return mean_interval([float(np.mean(values)) for values in by_image.values()])


def _figure(images: Sequence[Mapping[str, Any]], known: Sequence[str]) -> Image.Image:
    """Every measure by row and domain, and against the score, one dot per image, row and seed."""
    rows = list(dict.fromkeys(line["row"] for line in images))
    domains = list(dict.fromkeys(line["domain"] for line in images))
    inks = ("#4a6fa5", "#b3261e", "#1a7f4b")

    def draw(drawn: Any) -> None:
        grid = drawn.subplots(2, len(known), squeeze=False)
        for x, name in enumerate(known):
            for shift, (domain, ink) in enumerate(zip(domains, inks, strict=False)):
                own = [line for line in images if line["domain"] == domain]
                found = [_over_images([i for i in own if i["row"] == row], name) for row in rows]
                at = [i + 0.2 * (shift - (len(domains) - 1) / 2) for i in range(len(rows))]
                figures.intervals(grid[0][x], at, found, ink, domain if x == 0 else "")
                dots = {"s": 8, "alpha": 0.5, "color": ink, "linewidths": 0}
                grid[1][x].scatter(_values(own, name), _values(own, "score"), **dots)
            grid[0][x].set_title(name, size=9, weight="bold")
            grid[0][x].set_yticks(range(len(rows)), rows if x == 0 else [""] * len(rows), size=8)
            grid[0][x].set_ylim(len(rows) - 0.5, -0.5)
            grid[1][x].set_xlabel(name, size=8)
            for axes in grid[:, x]:
                axes.tick_params(labelsize=7)
                axes.spines[["top", "right"]].set_visible(False)
        grid[1][0].set_ylabel("score of the image", size=8)
        drawn.legend(loc="outside lower center", ncols=len(domains), frameon=False, fontsize=8)

    return figures.figure((2.3 * len(known) + 1, 2.4 + 0.3 * len(rows) + 1.2), draw)


def _text(images: Sequence[Mapping[str, Any]], correlations: Sequence[Row], base: str) -> str:
    seeds, rows = ({line[k] for line in images} for k in ("seed", "row"))

    def clear(column: str) -> str:
        found = [f"{c['measure']} on {c['domain']} {c[column]}" for c in correlations if c[column].clear]
        return f"{len(found)} ({'; '.join(found)})" if found else "none"

    return (
        f"{len(rows)} rows, {len(seeds)} seeds, {len({i['image'] for i in images})} test images. Of "
        f"{len(correlations)} pairs of measure and domain, the rank correlation with the score of an image, the size "
        "of what it shows taken out, has a 95 % interval (bootstrap over images) without zero for "
        f"{clear('over images, size taken out')}. As differences from {base} on the same image and seed, for "
        f"{clear(f'differences from {base}, size taken out')}. Of twenty intervals about one lacks zero by chance. "
        f"Rows are {len(rows)} points, and four is the fewest that a correlation over rows is given for."
    )
