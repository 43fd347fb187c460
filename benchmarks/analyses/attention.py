"""Where a network looks for words, before and after adaptation (TADP, figures 4, S2 and S3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.analyses import Findings, Given, Needs, Row, analyses
from benchmarks.analyses.shared import figures
from benchmarks.analyses.shared.base import base_of
from benchmarks.analyses.shared.images import Seen, listed, load_models, open_images, picture_names, prompt_of
from benchmarks.analyses.shared.pasting import Pasted, paste_objects
from benchmarks.analyses.shared.statistics import auroc, average_precision, mass_ratio, mean_interval, told
from tadp_da.class_names import spoken
from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import STRICT
from tadp_da.visualize import heat_overlay

Map = NDArray[np.float64]
BEFORE, AFTER, END = "before adaptation", "after adaptation", "end of text"


@analyses.add("attention")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Attention:
    """Cross-attention maps of words on images of any shape, averaged over heads, layers and strides, and by layer.

    Maps are those of the model, and of the diffusion model that it was adapted from. Where images have masks and a word
    names a class, its map is compared with the mask of the class.

    With ``paste``, an object of that class is pasted from another image into images that lack it. Its name, in a prompt
    of all class names, is looked for before and after: the paper shows that attention moves from a look-alike to the
    object.

    Attributes:
        limit: images at most.
        split: of a registered data set.
        strategy: caption strategy, or a template such as ``"{caption}"``, that writes the prompt.
        words: whose maps are drawn; the class names that stand in the prompt, or else its words, if none are given.
        end: also draw the mean map of the end marks.
        before: also look at the model as it was before adaptation.
        base: its weights, as for ``--model``, where the model does not say.
        paste: class whose objects are pasted; empty for none.
        pictures: images that are shown.
    """

    needs: ClassVar[Needs] = "models"

    limit: Annotated[int, Field(ge=1)] = 20
    split: str = "test"
    strategy: str = "class-names"
    words: tuple[str, ...] = ()
    end: bool = True
    before: bool = True
    base: str = ""
    paste: str = ""
    pictures: Annotated[int, Field(ge=0, le=32)] = 3

    def __call__(self, given: Given, run: Run) -> Findings:
        """Look at every image, and at every image with a pasted object."""
        models = list(load_models(given, run))
        if len(models) != 1:
            raise UsageError("one model is expected", fix="give one model folder")
        ((_, model),) = models
        seen = open_images(model, given, run, limit=self.limit, split=self.split, labels=bool(self.paste))
        states = {AFTER: model}
        if self.before:
            states = {BEFORE: _unadapted(model, base_of(model, self.base, run)), **states}
        rows: list[Row] = []
        figure: dict[str, Image.Image] = {}
        names = picture_names(seen[: self.pictures])
        with run.progress(len(seen) * len(states), "attention of words") as advance:
            for place, each in enumerate(seen):
                maps = {state: self._maps(of, each) for state, of in states.items()}
                for state, found in maps.items():
                    rows += [_row(each, word, state, values) for word, values in found.items()]
                    advance("")
                if place < self.pictures:
                    name = names[each.key]
                    figure[f"words {name}"] = _tiles(each.image, maps)
                    if place == 0:
                        figure[f"layers {name}"] = self._layers(model, each)
        tables: dict[str, Sequence[Row]] = {"words": _summary(rows), "images": rows}
        text = _text(rows, len(seen))
        if self.paste:
            pasted = paste_objects(seen, self.paste)
            lines, shown = self._pasted(pasted, states, run)
            tables["copy-paste"], figure["copy-paste"] = lines, shown
            text += " " + _pasted_text(lines, self.paste)
        return Findings(text=text, tables=tables, figures=figure)

    def _prompt(self, model: PerceptionModel, seen: Seen) -> str:
        rewrite = replace(model.rewrite, strategy=self.strategy, classes=model.labels.classes)
        return prompt_of(model, seen.caption, rewrite)

    def _words(self, model: PerceptionModel, prompt: str) -> list[str]:
        names = [spoken(name) for name in model.labels.classes if model.says(prompt, spoken(name))]
        return list(self.words) or names or list(dict.fromkeys(re.findall(r"[^\s,.;:!?\"'()]+", prompt)))

    def _maps(self, model: PerceptionModel, seen: Seen) -> dict[str, Map]:
        """By word, and for the end marks."""
        prompt = self._prompt(model, seen)
        maps = mean_maps(model, seen.image, prompt)
        found = {w: maps[model.positions(w, prompt)].mean(0) for w in self._words(model, prompt)}
        if self.end:
            found[END] = maps[1 + model.backbone.count_tokens(prompt) :].mean(0)
        return found

    def _layers(self, model: PerceptionModel, seen: Seen) -> Image.Image:
        """Words by line; strides, and the layers of each, by column."""
        prompt = self._prompt(model, seen)
        strides = model.attention_maps(seen.image, prompt)
        layers = model.attention_maps(seen.image, prompt, layers=True)
        columns = {}
        for stride, maps in strides.items():
            columns[f"stride {stride}"] = maps
            own = {name: found for (s, name), found in layers.items() if s == stride}
            columns |= {
                name.partition(".transformer")[0].replace("_blocks", ""): m for name, m in own.items()
            }
        lines = {
            word: [
                heat_overlay(seen.image, maps[model.positions(word, prompt)].mean(0).numpy())
                for maps in columns.values()
            ]
            for word in self._words(model, prompt)[:6]
        }
        return figures.tiles(
            lines, [name.replace(".attentions", "\nattentions") for name in columns], side=1.1
        )

    def _pasted(
        self, pasted: Sequence[Pasted], states: Mapping[str, PerceptionModel], run: Run
    ) -> tuple[list[Row], Image.Image]:
        lines, shown = list[Row](), dict[str, list[Image.Image]]()
        with run.progress(len(pasted) * len(states), f"pasting {self.paste}") as advance:
            for each in pasted:
                tiles = [each.seen.image, each.image]
                for state, model in states.items():
                    prompt = listed(model, model.labels.classes)
                    at = model.positions(spoken(self.paste), prompt)
                    first, second = (
                        mean_maps(model, image, prompt)[at].mean(0) for image in (each.seen.image, each.image)
                    )
                    lines.append(
                        {
                            "image": each.seen.key,
                            "from": each.donor,
                            "state": state,
                            "looks at before pasting": each.under(first),
                            "peak in the object": bool(each.region.flat[second.argmax()]),
                            "mass ratio before pasting": mass_ratio(first, each.region),
                            "mass ratio after pasting": mass_ratio(second, each.region),
                            "AUROC before pasting": auroc(first, each.region),
                            "AUROC after pasting": auroc(second, each.region),
                        }
                    )
                    tiles += [heat_overlay(each.seen.image, first), heat_overlay(each.image, second)]
                    advance("")
                shown[f"{len(shown) + 1}"] = tiles
        header = [
            "image",
            "pasted",
            *(f"{self.paste}, {when}\n{state}" for state in states for when in ("image", "pasted")),
        ]
        return lines, figures.tiles(dict(list(shown.items())[: max(self.pictures, 1)]), header)


def mean_maps(model: PerceptionModel, image: Image.Image, prompt: str) -> Map:
    """``(t, h, w)``: attention of every token, averaged over strides."""
    maps = model.attention_maps(image, prompt)
    return np.mean([each.double().numpy() for each in maps.values()], axis=0)


def _unadapted(model: PerceptionModel, backbone: Any) -> PerceptionModel:
    """A model that reads images as ``model`` does, with the backbone as it was before adaptation."""
    settings = model.head_settings
    return PerceptionModel.assemble(
        backbone, model.head_name, model.labels, rewrite=model.rewrite, inference=model.inference, **settings
    ).to(model.device)


def _row(seen: Seen, word: str, state: str, values: Map) -> Row:
    row: dict[str, Any] = {"image": seen.key, "word": word, "state": state}
    row |= {"lowest": float(values.min()), "highest": float(values.max())}
    named = next((name for name in seen.present if spoken(name) == word), "")
    inside = seen.mask(named) if named and isinstance(seen.truth, np.ndarray) else None
    measures = {"AUROC": auroc, "AP": average_precision, "mass ratio": mass_ratio}
    row |= {name: None if inside is None else of(values, inside) for name, of in measures.items()}
    row["area"] = None if inside is None else float(inside.mean())
    return row


def _summary(rows: Sequence[Row]) -> list[Row]:
    """Means over images, by word and state."""
    found = list[Row]()
    for word, state in dict.fromkeys((row["word"], row["state"]) for row in rows):
        own = [row for row in rows if (row["word"], row["state"]) == (word, state)]
        line: dict[str, Any] = {"word": word, "state": state, "images": len(own)}
        for name in ("AUROC", "AP", "mass ratio"):
            line[name] = told(mean_interval([row[name] for row in own if row[name] is not None])).replace(
                "+", ""
            )
        found.append(line)
    return found


def _text(rows: Sequence[Row], images: int) -> str:
    known = [row for row in rows if row["AUROC"] is not None]
    if not known:
        return f"Maps of words on {images} images; there are no masks to compare them with."
    parts, by_image = [], dict[str, dict[str, float]]()
    for state in dict.fromkeys(row["state"] for row in known):
        means = {
            key: float(np.mean([r["AUROC"] for r in known if r["image"] == key and r["state"] == state]))
            for key in dict.fromkeys(r["image"] for r in known)
        }
        by_image[state] = means
        parts.append(f"{told(mean_interval(list(means.values())), sign='')} {state}")
    text = (
        f"On {images} images the map of a class's name finds the pixels of the class with an AUROC of "
        f"{' and '.join(parts)} (0.5 is chance; mean over the classes of an image, 95 % interval over images)."
    )
    if len(by_image) == 2:
        pairs = zip(by_image[BEFORE].values(), by_image[AFTER].values(), strict=True)
        change = told(mean_interval([after - before for before, after in pairs]))
        text += f" Adaptation changes it by {change}, paired by image."
    return text


def _pasted_text(lines: Sequence[Row], name: str) -> str:
    parts = []
    for state in dict.fromkeys(line["state"] for line in lines):
        own = [
            line for line in lines if line["state"] == state and line["mass ratio before pasting"] is not None
        ]
        change = mean_interval([r["mass ratio after pasting"] - r["mass ratio before pasting"] for r in own])
        after = mean_interval([r["mass ratio after pasting"] for r in own])
        looked = [r["looks at before pasting"] for r in own]
        most = max(set(looked), key=looked.count)
        peak = sum(r["peak in the object"] for r in own)
        parts.append(
            f"{state}, the attention of {name!r} in the place of the object, over its share of the area, changes by "
            f"{told(change)} to {told(after, sign='')}, and its peak is in the object in {peak} of {len(own)} images; "
            f"before pasting it looks most often at {most} ({looked.count(most)})"
        )
    return f"Pasted into images that lack it: {'; '.join(parts)}."


def _tiles(image: Image.Image, maps: Mapping[str, Mapping[str, Map]]) -> Image.Image:
    lines = {
        state: [image, *(heat_overlay(image, m) for m in found.values())] for state, found in maps.items()
    }
    return figures.tiles(lines, ("image", *next(iter(maps.values()))), side=1.3)
