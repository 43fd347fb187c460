"""What a diffusion model draws into an image when its prompt names what is not there (TADP, figure S1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain
from dataclasses import field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.analyses import Findings, Given, Needs, Row, analyses
from benchmarks.analyses.shared import figures
from benchmarks.analyses.shared.base import base_of
from benchmarks.analyses.shared.images import Seen, listed, load_models, open_images, picture_names
from benchmarks.analyses.shared.statistics import mean_interval, told
from benchmarks.reports.intervals import Spread
from tadp_da.captions.rewrite import fit_and_tell
from tadp_da.errors import UsageError
from tadp_da.images import as_tensor, normalize, resize
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import STRICT
from tadp_da.tasks import tasks
from tadp_da.training.data import mix
from tadp_da.types import Detections

CLASSES, CAPTION, ORACLE = "class names", "caption", "oracle"
Strength = Annotated[float, Field(gt=0, le=1)]


@analyses.add("image-variation")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageVariation:
    """Redraws images at several strengths (img2img; SDEdit, Meng et al., 2022) with three prompts: all class names, the
    caption, and the names of the classes that the image shows. The diffusion model is the one that the given model was
    adapted from, as it was before. The given model then says which classes it finds in the variation that it does not
    find in the original: objects that the prompt, and not the image, has brought.

    The paper redraws with 5 to 45 of 50 steps and judges by eye. Its prompts for VOC are the 21 names separated by
    blanks, and "a bird and a dog".

    Attributes:
        limit: images at most: the first, of five times as many at even distances, in which the model does not find all
            classes already.
        split: of a registered data set.
        strengths: shares of the noise schedule that an image goes through.
        prompts: further prompts by name, written out, for every image.
        base: other weights that draw, as for ``--model``.
        steps: of the whole noise schedule.
        guidance: classifier-free guidance scale; 1 for none.
        area: share of the pixels from which a class counts as found by a model of masks.
        score: from which a box counts as found by a model of boxes.
        pictures: images whose variations are shown.
    """

    needs: ClassVar[Needs] = "models"

    limit: Annotated[int, Field(ge=1)] = 8
    split: str = "test"
    strengths: tuple[Strength, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    prompts: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    steps: Annotated[int, Field(ge=2, le=1000)] = 20
    guidance: Annotated[float, Field(ge=1, le=30)] = 3.0
    area: Annotated[float, Field(ge=0, lt=1)] = 0.005
    score: Annotated[float, Field(ge=0, le=1)] = 0.5
    pictures: Annotated[int, Field(ge=0, le=32)] = 3

    def __call__(self, given: Given, run: Run) -> Findings:
        """Redraw every image with every prompt at every strength, and look at it."""
        models = list(load_models(given, run))
        if len(models) != 1:
            raise UsageError("one model is expected to look at the variations", fix="give one model folder")
        ((_, model),) = models
        if not model.labels.classes:
            raise UsageError("the model has no classes to look for", fix="give one of masks or boxes")
        seen = open_images(model, given, run, limit=5 * self.limit, split=self.split, labels=False)
        chosen = self._chosen(seen, model, run)
        drawer = base_of(model, self.base, run)
        found = [self._of_image(each, before, model, drawer, run) for each, before in chosen]
        figure, animations = {}, {}
        names = picture_names([each.seen for each in found[: self.pictures]])
        for each in found[: self.pictures]:
            name = f"variations {names[each.seen.key]}"
            header = ("original", *(f"{s:g}" for s in self.strengths))
            lines = {prompt: [each.original, *images] for prompt, images in each.images.items()}
            figure[name] = figures.tiles(lines, header, side=1.2)
            animations[name] = [_side_by_side(step) for step in zip(*lines.values(), strict=True)]
        figure["classes"] = self._curves(found)
        return Findings(
            text=self._text(found, labelled=seen[0].truth is not None),
            tables={"strengths": self._rows(found), "images": _lines(found, self.strengths)},
            figures=figure,
            animations=animations,
        )

    def _chosen(self, seen: Sequence[Seen], model: PerceptionModel, run: Run) -> list[tuple[Seen, set[str]]]:
        """Images with the classes that the model finds in them, of which none finds all."""
        chosen = list[tuple[Seen, set[str]]]()
        for each in seen:
            found = self._classes(model, each.image, model.prompt(each.caption), run)
            if len(found) < len(model.labels.classes):
                chosen.append((each, found))
            if len(chosen) == self.limit:
                break
        if not chosen:
            raise UsageError(
                f"the model finds all classes in each of {len(seen)} images: nothing can appear in them",
                fix="give other images, or a larger --set limit=N",
            )
        return chosen

    def _of_image(
        self, seen: Seen, before: set[str], model: PerceptionModel, drawer: Any, run: Run
    ) -> Variations:
        read = model.prompt(seen.caption)
        names = seen.present or tuple(sorted(before, key=model.labels.classes.index))
        prompts = {
            CLASSES: listed(model, model.labels.classes),
            CAPTION: fit_and_tell(str, seen.caption, drawer.count_tokens, drawer.token_limit),
            ORACLE: listed(model, names),
            **self.prompts,
        }
        with torch.no_grad():
            start, original = _start(drawer, seen.image, model)
        found = Variations(seen=seen, original=original, prompts=prompts)
        total = len(prompts) * len(self.strengths)
        with run.progress(total, f"redrawing {seen.key}") as advance:
            for name, prompt in prompts.items():
                for strength in self.strengths:
                    (drawn,) = drawer.sample(
                        [prompt],
                        seed=mix(run.seed, seen.key),
                        steps=self.steps,
                        guidance=self.guidance,
                        start=start,
                        strength=max(strength, 1 / self.steps),
                    )
                    drawn = drawn.crop((0, 0, *original.size))
                    shown = drawn.resize(seen.image.size)
                    found.images.setdefault(name, []).append(drawn)
                    after = self._classes(model, shown, read, run)
                    found.new.setdefault(name, []).append(sorted(after - before))
                    found.lost.setdefault(name, []).append(sorted(before - after))
                    found.change.setdefault(name, []).append(_difference(drawn, original))
                    advance("")
        return found

    def _classes(self, model: PerceptionModel, image: Image.Image, prompt: str, run: Run) -> set[str]:
        """Names of the classes that the model finds in an image."""
        prediction = model.predict(image, prompt, precision=run.precision)
        if isinstance(prediction, Detections):
            return {model.labels.classes[i] for i in prediction.labels[prediction.scores >= self.score]}
        share = {name: float((prediction == i).mean()) for i, name in enumerate(model.labels.classes)}
        present = tasks[model.labels.task].present(prediction, model.labels)
        return {name for name in present if share[name] >= self.area}

    def _rows(self, found: Sequence[Variations]) -> list[Row]:
        rows: list[Row] = []
        for i, strength in enumerate(self.strengths):
            for prompt in found[0].prompts:
                new, lost, change = (
                    mean_interval([value(each, prompt, i) for each in found])
                    for value in (_new, _lost, lambda each, p, at: each.change[p][at])
                )
                rows.append(
                    {
                        "strength": strength,
                        "prompt": prompt,
                        "new classes per image": told(new, sign=""),
                        "lost classes per image": told(lost, sign=""),
                        "difference from the original (grey levels)": change.mean if change else None,
                        "more new classes than with oracle": told(_more(found, prompt, i))
                        if prompt != ORACLE
                        else "",
                    }
                )
        return rows

    def _curves(self, found: Sequence[Variations]) -> Image.Image:
        def draw(drawn: Any) -> None:
            panels = drawn.subplots(1, 2, sharey=True)
            for axes, (title, value) in zip(panels, (("new", _new), ("lost", _lost)), strict=True):
                for shift, prompt in enumerate(found[0].prompts):
                    spreads = [
                        mean_interval([value(f, prompt, i) for f in found])
                        for i in range(len(self.strengths))
                    ]
                    means = [s.mean if s else np.nan for s in spreads]
                    at = np.asarray(self.strengths) + 0.008 * (shift - 1)
                    half = [s.high - s.mean if s and s.high is not None else 0 for s in spreads]
                    axes.errorbar(at, means, half, label=prompt, capsize=2, lw=1.4)
                axes.set_title(f"{title} classes per image", loc="left", weight="bold")
                axes.set_xlabel("strength")
                axes.spines[["top", "right"]].set_visible(False)
            panels[0].legend(frameon=False)

        return figures.figure((9, 3.4), draw)

    def _text(self, found: Sequence[Variations], *, labelled: bool) -> str:
        said = [
            f"at strength {self.strengths[i]:g} {', '.join(_told(found, prompt, i) for prompt in found[0].prompts)}"
            for i in sorted({0, len(self.strengths) // 2, len(self.strengths) - 1})
        ]
        over_all = {p: _more(found, p) for p in found[0].prompts if p != ORACLE}
        more = "; ".join(f"{told(s)} with {prompt}" for prompt, s in over_all.items())
        source = "the label" if labelled else "what the model finds in the original, as there are no labels"
        return (
            "Classes that the model finds in a variation and not in the original, per image "
            f"({len(found)} images): {'; '.join(said)}. Beyond the oracle prompt, averaged over strengths and paired "
            f"by image (95 % interval over images): {more}. The oracle prompt names {source}. New classes are objects "
            "that are drawn as well as mistakes of the model on redrawn images; the difference between prompts is what "
            "the prompt has brought."
        )


@plain(kw_only=True)
class Variations:
    """Of one image, by prompt and in the order of the strengths: the images, the classes that are new in them and lost
    from them, and their mean absolute difference from the original in grey levels."""

    seen: Seen
    original: Image.Image
    prompts: Mapping[str, str]
    images: dict[str, list[Image.Image]] = field(default_factory=dict)
    new: dict[str, list[list[str]]] = field(default_factory=dict)
    lost: dict[str, list[list[str]]] = field(default_factory=dict)
    change: dict[str, list[float]] = field(default_factory=dict)


def _new(found: Variations, prompt: str, index: int) -> float:
    return len(found.new[prompt][index])


def _lost(found: Variations, prompt: str, index: int) -> float:
    return len(found.lost[prompt][index])


def _more(found: Sequence[Variations], prompt: str, index: int | None = None) -> Spread | None:
    """New classes beyond those with the oracle prompt, paired by image: at one strength, or averaged over all."""
    pairs = ([(len(a), len(b)) for a, b in zip(f.new[prompt], f.new[ORACLE], strict=True)] for f in found)
    each = ([a - b for a, b in pair] for pair in pairs)
    return mean_interval([float(np.mean(d) if index is None else d[index]) for d in each])


def _told(found: Sequence[Variations], prompt: str, index: int) -> str:
    new = mean_interval([_new(f, prompt, index) for f in found])
    return f"{new.mean if new else 0:.2f} with {prompt}"


def _lines(found: Sequence[Variations], strengths: Sequence[float]) -> list[Row]:
    return [
        {
            "image": each.seen.key,
            "prompt": name,
            "text": prompt,
            **{f"new at {s:g}": " ".join(new) for s, new in zip(strengths, each.new[name], strict=True)},
        }
        for each in found
        for name, prompt in each.prompts.items()
    ]


def _start(drawer: Any, image: Image.Image, model: PerceptionModel) -> tuple[torch.Tensor, Image.Image]:
    """Latents of an image at the model's working size, grown to the latent grid, and the image at that size."""
    size = model.inference.size(image.height, image.width)
    pixels = resize(as_tensor(image), size)
    shown = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    grid = max(drawer.spec.channels)
    grown = torch.nn.functional.pad(
        normalize(pixels)[None], (0, -size[1] % grid, 0, -size[0] % grid), mode="replicate"
    )
    return drawer.posterior(grown.to(drawer.device))[0], shown


def _difference(drawn: Image.Image, original: Image.Image) -> float:
    return float(np.abs(np.asarray(drawn, float) - np.asarray(original, float)).mean())


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    first = images[0]
    wide = Image.new("RGB", (first.width * len(images), first.height))
    for i, image in enumerate(images):
        wide.paste(image, (i * first.width, 0))
    return wide
