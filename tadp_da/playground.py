"""Prompts tried on one image: predictions, their difference from the plain caption's, and where the network looks.

What ``tadp-da playground`` shows, without the page: everything goes through the model's task, whichever it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tadp_da.attention_maps import WordMap, draw_maps, words_of
from tadp_da.captions.captioner import Captioner
from tadp_da.captions.rewrite import Rewrite
from tadp_da.captions.strategies import strategies
from tadp_da.errors import UsageError
from tadp_da.images import open_image
from tadp_da.inference import Precision
from tadp_da.perception_model import PerceptionModel
from tadp_da.tasks import tasks
from tadp_da.visualize import RGB, colours

NULL = Rewrite().strategy
"""The strategy that leaves a caption as it is: the prompt that others are compared with."""


@dataclass(frozen=True)
class Comparison:
    """The prediction of a prompt beside that of the null prompt, the unchanged caption.

    Attributes:
        prediction: drawn over the image.
        difference: the image in dark grey; where the drawings of both predictions differ, that of the prompt, and white
            where only the null prompt's has something.
        changed: share of pixels, in [0, 1], where the drawings differ.
        legend: the colour of each class in the prediction.
    """

    prediction: Image.Image
    difference: Image.Image
    changed: float
    legend: dict[str, RGB]


@dataclass(frozen=True)
class Playground:
    """A model and what people try on it. Images are given by their files; not safe for use in several threads at once.

    Attributes:
        model: any perception model.
        captioner: instead of the one that the model was trained with.
        precision: mixed precision of predictions.
    """

    model: PerceptionModel
    captioner: str = ""
    precision: Precision = "no"

    @property
    def limits(self) -> list[str]:
        """What cannot be seen with this model's backbone, one sentence each."""
        backbone = self.model.backbone
        name = f"The backbone of this model ({type(backbone).__name__})"
        said = [] if backbone.reads_text else [f"{name} reads no text: prompts change nothing."]
        if self.model.rewrite.class_templates:
            said.append(
                "This model is given embeddings of its classes in place of a prompt: prompts change nothing."
            )
        return said + ([] if backbone.spec.attention else [f"{name} has no cross-attention to show."])

    def caption(self, path: Path) -> str:
        """What the captioner writes about an image.

        Raises:
            UsageError: when no captioner is known.
            EnvironmentSetupError: when it cannot be loaded.
        """
        return self._captioner([open_image(path)])[0]

    @cached_property
    def _captioner(self) -> Captioner:
        name = self.captioner or self.model.captioner
        if not name:
            raise UsageError(
                "the model does not name the captioner that it was trained with",
                fix="type a caption, or start with --captioner blip2-opt-2.7b",
            )
        return Captioner.from_pretrained(name, device=self.model.device)

    def prompts(self, caption: str) -> dict[str, str]:
        """The prompt that each strategy makes of a caption on the target side, within the tokenizer's limit; the
        model's first. Left out are strategies that need a concept or classes that the model does not have, whose
        prompt the tokenizer can't hold, or that read labels or embeddings in place of a prompt."""
        model, found = self.model, {self.model.rewrite.strategy: self.model.prompt(caption)}
        for name in strategies:
            try:
                rewrite = replace(model.rewrite, strategy=name)
                if name in found or rewrite.reads_labels or rewrite.embeds:
                    continue
                found[name] = model.fitted(rewrite.target, caption)
            except UsageError:
                continue
        return found

    def words(self, prompt: str) -> list[str]:
        """Words of a prompt that have an attention map."""
        return words_of(self.model, prompt)

    @cached_property
    def _predict(self) -> Callable[[Path, str], Any]:
        # of an image and its null prompt every other prompt is a difference
        return lru_cache(maxsize=8)(
            lambda path, prompt: self.model.predict(open_image(path), prompt, precision=self.precision)
        )

    def compare(self, path: Path, prompt: str, null: str) -> Comparison:
        """The prediction of a prompt, and its difference from that of another.

        Raises:
            DataError: when the image cannot be read, or a prompt exceeds the tokenizer's limit.
        """
        image, labels = open_image(path), self.model.labels
        task = tasks[labels.task]
        found = self._predict(path, prompt)
        empty = Image.new("RGB", image.size, "white")
        drawn, before = (
            np.asarray(task.render(empty, value, labels, 1.0)) for value in (found, self._predict(path, null))
        )
        changed = (drawn != before).any(-1)
        present = task.present(found, labels)
        grey = np.asarray(image.convert("L"))[..., None] // 2
        return Comparison(
            prediction=task.render(image, found, labels),
            difference=Image.fromarray(np.where(changed[..., None], drawn, grey)),
            changed=float(changed.mean()),
            legend={
                name: colour
                for name, colour in zip(labels.classes, colours(labels), strict=True)
                if name in present
            },
        )

    def attention(self, path: Path, prompt: str, word: str) -> WordMap:
        """The cross-attention map of a word of the prompt.

        Raises:
            UsageError: when the word is not in the prompt, or the backbone gives no maps.
        """
        return draw_maps(self.model, open_image(path), prompt, [word])[word]
