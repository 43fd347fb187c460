"""Measures of how well a prompt and an image agree, none of which looks at a prediction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.analyses.shared.images import Seen
from benchmarks.analyses.shared.statistics import auroc, average_precision, mass_ratio
from tadp_da.class_names import canonical, spoken
from tadp_da.inference import pixels_of
from tadp_da.perception_model import PerceptionModel
from tadp_da.training.data import mix

_PLURALS = {
    "people": "person",
    "persons": "person",
    "men": "man",
    "women": "woman",
    "buses": "bus",
    "sheep": "sheep",
}


def singular(word: str) -> str:
    """An English noun in the singular, as far as its ending tells."""
    low = word.casefold()
    if low in _PLURALS:
        return _PLURALS[low]
    if low.endswith(("ss", "us")):
        return low
    for ending, instead in (
        ("ies", "y"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("xes", "x"),
        ("s", ""),
    ):
        if low.endswith(ending) and len(low) > len(ending) + 1:
            return low.removesuffix(ending) + instead
    return low


@dataclass(frozen=True, kw_only=True)
class ClassWords:
    """Finds the words of a prompt that name a class: its name, in the singular or plural or as a synonym that data sets
    use; further words; or words that the text encoder puts next to the name.

    Attributes:
        model: reads the words.
        classes: their names.
        further: words by class.
        similarity: cosine of encoded word and name from which a word counts (0.9 in TADP's supplement, with the text
            encoder of CLIP ViT-L); 0 for none.
    """

    model: PerceptionModel
    classes: tuple[str, ...]
    further: Mapping[str, Sequence[str]]
    similarity: float = 0.0

    def __call__(self, prompt: str) -> dict[str, list[str]]:
        """The words of each class that the prompt names."""
        words = list(dict.fromkeys(re.findall(r"[^\s,.;:!?\"'()]+", prompt)))
        found = {name: [w for w in words if self._names(w, name)] for name in self.classes}
        for name in self.classes:  # names of several words
            if not found[name] and self.model.says(prompt, spoken(name)):
                found[name] = [spoken(name)]
        if self.similarity and words:
            near = self._cosines(words) >= self.similarity
            for i, name in enumerate(self.classes):
                found[name] += [
                    w
                    for w, is_near in zip(words, near[:, i], strict=True)
                    if is_near and w not in found[name]
                ]
        return {name: each for name, each in found.items() if each}

    def _names(self, word: str, name: str) -> bool:
        known = {canonical(name), *(canonical(singular(w)) for w in self.further.get(name, ()))}
        return canonical(word) in known or canonical(singular(word)) in known

    @torch.no_grad()
    def _cosines(self, words: Sequence[str]) -> Any:
        backbone, both = self.model.backbone, [*words, *map(spoken, self.classes)]
        rows = torch.stack(
            [
                t[1 : 1 + backbone.count_tokens(w)].mean(0)
                for t, w in zip(backbone.encode_text(both), both, strict=True)
            ]
        )
        rows = torch.nn.functional.normalize(rows.float(), dim=1)
        return (rows[: len(words)] @ rows[len(words) :].T).cpu().numpy()


def precision_and_recall(named: Sequence[str], present: Sequence[str]) -> tuple[float | None, float | None]:
    """Of the classes that a prompt names; None where it names none, or there are none."""
    both = len({*named} & {*present})
    return (both / len({*named}) if named else None), (both / len({*present}) if present else None)


@torch.no_grad()
def denoising_gain(
    backbone: Any, model: PerceptionModel, image: Image.Image, prompt: str, seed: int, draws: int
) -> float:
    """By what share the prompt lowers the error of denoising the image, compared with the empty prompt: the mean over
    timesteps and noise of [error(empty) - error(prompt)] / error(empty), the same ones for both. It needs no label.

    Args:
        backbone: a generative model, not adapted.
        model: its inference settings say at what size the image is seen.
        image: any size.
        prompt: within the tokenizer's limit.
        seed: of timesteps and noise.
        draws: how many of both.
    """
    pixels = pixels_of(image, model.inference, backbone.device)
    grid = max(backbone.spec.channels)
    height, width = pixels.shape[-2:]
    grown = torch.nn.functional.pad(pixels, (0, -width % grid, 0, -height % grid), mode="replicate")
    latents = backbone.posterior(grown)[0].expand(draws, -1, -1, -1)
    empty, full = (
        backbone.noise_loss(
            latents,
            backbone.encode_text([text]).expand(draws, -1, -1),
            [torch.Generator().manual_seed(mix(seed, i)) for i in range(draws)],
        ).double()
        for text in ("", prompt)
    )
    return float(((empty - full) / empty).mean())


def attention_measures(
    model: PerceptionModel, seen: Seen, prompt: str, words: Mapping[str, Sequence[str]]
) -> dict[str, float | None]:
    """AUROC, average precision and mass ratio of the maps of words against the masks of the classes that they name,
    means over the classes that are in the image and in the prompt."""
    known = [name for name in words if name in seen.present]
    if not known or not model.backbone.spec.attention:
        return dict.fromkeys(("attention AUROC", "attention AP", "attention mass ratio"))
    maps = np.mean([m.double().numpy() for m in model.attention_maps(seen.image, prompt).values()], axis=0)
    found: dict[str, list[float]] = {}
    for name in known:
        at = [i for word in words[name] for i in model.positions(word, prompt)]
        heat, inside = maps[at].mean(0), seen.mask(name)
        for what, measure in (("AUROC", auroc), ("AP", average_precision), ("mass ratio", mass_ratio)):
            if (value := measure(heat, inside)) is not None:
                found.setdefault(f"attention {what}", []).append(value)
    return {what: float(np.mean(values)) for what, values in found.items()}


def log_size(seen: Seen) -> float:
    """Mean over the classes in the image of the logarithm of their share of its area."""
    return (
        float(np.mean([np.log(seen.mask(name).mean()) for name in seen.present]))
        if seen.present
        else float("nan")
    )


class ClipScore:
    """2.5 max(cos(image, text), 0) of a CLIP model (Hessel et al., 2021).

    Args:
        place: a folder of transformers, or an id on the hub; weights in safetensors.
        device: where to compute.
    """

    def __init__(self, place: str, device: torch.device) -> None:
        from transformers import CLIPModel, CLIPProcessor

        self.model = CLIPModel.from_pretrained(place, use_safetensors=True).eval().to(device)
        self.processor = CLIPProcessor.from_pretrained(place)

    @torch.no_grad()
    def __call__(self, image: Image.Image, prompt: str) -> float:
        given = self.processor(
            text=[prompt], images=[image.convert("RGB")], return_tensors="pt", padding=True, truncation=True
        ).to(self.model.device)
        out = self.model(**given)
        cosine = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds)
        return 2.5 * max(float(cosine), 0.0)
