"""PerceptionModel: a backbone and a head, and the artifact that they are saved in.

On disk a model is a self-contained folder: ``backbone/`` is a plain diffusers pipeline (UNet, VAE, text encoder,
tokenizer with learned words, scheduler), ``head.safetensors`` the head, and ``model.json``, written last, says the
rest::

    PerceptionModel.load(folder).predict(image)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from tadp_da import model_files as files
from tadp_da import text_adapter
from tadp_da.backbones import Backbone
from tadp_da.captions.rewrite import Rewrite, Write, fit_and_tell
from tadp_da.class_names import spoken
from tadp_da.errors import UsageError
from tadp_da.fingerprints import class_tokens, mean_embeddings
from tadp_da.heads import heads
from tadp_da.inference import InferenceSettings, Precision, pixels_of, predict, predict_images
from tadp_da.noising import Generators
from tadp_da.settings import as_json
from tadp_da.types import LabelSpace

if TYPE_CHECKING:
    from PIL.Image import Image


def _occurrences(word: str, prompt: str) -> list[re.Match[str]]:
    return list(re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE)) if word else []


class PerceptionModel(nn.Module):
    """What stage 2 trains and everything after it uses.

    Attributes:
        backbone: reads pixels and text.
        head: reads the backbone's pyramid.
        labels: what the head decides between.
        rewrite: from an image's caption to its prompt on the target side, for images that come without a prompt.
        inference: at what size and through which windows it is applied to an image.
        head_name: the head's name in the registry.
        head_settings: what it was built with.
        captioner: what wrote the captions that it was trained on, for images that come without one; empty when nobody
            knows.
        folder: where it was loaded from.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Any,
        labels: LabelSpace,
        *,
        rewrite: Rewrite,
        inference: InferenceSettings,
        head_name: str,
        head_settings: dict[str, Any],
        captioner: str = "",
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.head: Any = head
        self.labels, self.rewrite, self.inference = labels, rewrite, inference
        self.head_name, self.head_settings, self.captioner = head_name, head_settings, captioner
        self.folder: Path | None = None
        self._class_text: Tensor | None = None
        self.eval()

    @classmethod
    def assemble(
        cls,
        backbone: Backbone,
        head: str,
        labels: LabelSpace,
        *,
        rewrite: Rewrite | None = None,
        inference: InferenceSettings | None = None,
        captioner: str = "",
        seed: int = 0,
        adapter: bool = False,
        **settings: Any,
    ) -> PerceptionModel:
        """A new head on a backbone.

        Args:
            backbone: fresh, with its concept installed.
            head: name in the registry.
            labels: what to decide between.
            rewrite: how target captions become prompts; plain captions if None.
            inference: whole images at their own size if None.
            captioner: what writes the captions that it is trained on.
            seed: of the head's first weights.
            adapter: put a text adapter (:mod:`tadp_da.text_adapter`) before the backbone.
            settings: of the head.

        Raises:
            UsageError: for an unknown head or settings that it does not take.
        """
        build, spec, rewrite = heads[head], backbone.spec, rewrite or Rewrite()
        if tokens := rewrite.text_length(backbone.count_tokens):
            spec = spec.reading(tokens)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                built = build(spec, labels, build.Settings(**settings))
            except ValidationError as error:
                first = error.errors()[0]
                why = first["msg"].removeprefix("Value error, ")
                raise UsageError(
                    f"head {head!r} cannot be built: {why}, found {first['input']!r}",
                    where=".".join(map(str, first["loc"])),
                    fix=f"see the settings in {build.__module__}",
                ) from None
            if adapter and backbone.reads_text:
                text_adapter.add(built, backbone.encode_text([""]).shape[-1])
        return cls(
            backbone,
            built,
            labels,
            rewrite=rewrite,
            inference=inference or InferenceSettings(),
            head_name=head,
            head_settings=settings,
            captioner=captioner,
        )

    @property
    def device(self) -> torch.device:
        """Where the head's weights are, and so the backbone's."""
        return next(self.head.parameters()).device

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """What the network reads of prompts, ``(b, t, d)``: as the backbone encodes them or, where the strategy has
        class embeddings, one per class, the same for all; or one embedding of the prompt as a whole."""
        if not self.rewrite.embeds or not self.backbone.reads_text:
            return self.backbone.encode_text(prompts)
        if templates := self.rewrite.prompt_templates:
            return mean_embeddings(self.backbone, prompts, templates)[:, None].to(self.device)
        if self._class_text is None:
            names = [spoken(name) for name in self.rewrite.classes]
            embed = class_tokens if self.rewrite.class_tokens else mean_embeddings
            self._class_text = embed(self.backbone, names, self.rewrite.class_templates)
        return self._class_text.to(self.device).expand(len(prompts), -1, -1)

    def forward(self, pixels: Tensor, text: Tensor, generator: Generators | None = None) -> Any:
        """Raw outputs of the head for pixels ``(b, 3, h, w)`` in [-1, 1] and text ``(b, t, d)``. The
        generator is for a backbone that samples the autoencoder's posterior; without one the noise is always the same.
        """
        text = text_adapter.adapted(self.head, text)
        pyramid = self.backbone.pyramid(pixels, text, attention=self.head.use_attention, generator=generator)
        return self.head(pyramid, tuple(pixels.shape[-2:]))

    def from_latents(self, latents: Tensor, text: Tensor, size: tuple[int, int]) -> Any:
        """The same for latents ``(b, c, u, v)`` that the backbone's ``encode_image`` gave for images of ``size``."""
        text = text_adapter.adapted(self.head, text)
        return self.head(
            self.backbone.pyramid_of(latents, text, size, attention=self.head.use_attention), size
        )

    def prompt(self, caption: str) -> str:
        """The prompt for a target image of this caption; a caption over the tokenizer's limit loses its end."""
        return self.fitted(self.rewrite.target, caption)

    def fitted(self, write: Write, caption: str) -> str:
        """The prompt that ``write`` makes of a caption, which loses its end where this network could not read it."""
        count = self.rewrite.counted(self.backbone.count_tokens)
        return fit_and_tell(write, caption, count, self.backbone.token_limit)

    def says(self, prompt: str, word: str) -> bool:
        """Whether a word stands in a prompt, so that :meth:`attention` can look for it; none does where the network is
        given averaged embeddings instead of a prompt."""
        return not self.rewrite.embeds and bool(_occurrences(word, prompt))

    def predict(
        self, image: Image, prompt: str | None = None, *, caption: str = "", precision: Precision = "no"
    ) -> Any:
        """The prediction for one image, at the image's own resolution: for segmentation ``uint8 (h, w)`` ids, for
        detection ``Detections``, for depth ``float32 (h, w)`` metres.

        Args:
            image: any size.
            prompt: given to the network as it is.
            caption: what the image shows; rewritten to the prompt when there is none.
            precision: mixed precision of the forward passes.
        """
        self.eval()
        prompt = self.prompt(caption) if prompt is None else prompt
        return predict(self, [image], [prompt], precision=precision)[0]

    def predict_images(
        self,
        items: Iterable[tuple[Image, str]],
        *,
        batch: int = 1,
        precision: Precision = "no",
        inference: InferenceSettings | None = None,
    ) -> Iterator[Any]:
        """Predictions for images and their prompts; see :func:`tadp_da.inference.predict_images`."""
        if self.training:  # eval() visits every module, and callers may pass one image at a time
            self.eval()
        return predict_images(self, items, batch=batch, precision=precision, inference=inference)

    @torch.no_grad()
    def attention(
        self, image: Image, words: list[str], prompt: str | None = None, *, caption: str = ""
    ) -> dict[str, np.ndarray]:
        """Where the network looks for words of the prompt (TADP, figure 4), the image seen as a whole.

        Returns:
            By word a ``float32 (h, w)`` map at the image's resolution: the share of attention on the word's tokens,
            averaged over them, over the places where it stands, and over strides.

        Raises:
            UsageError: when a word is not in the prompt, or the backbone gives no maps.
        """
        prompt = self.prompt(caption) if prompt is None else prompt
        positions = {word: self.positions(word, prompt) for word in words}
        maps = self.attention_maps(image, prompt)
        mean = sum(maps.values(), torch.zeros(())) / len(maps)
        return {word: mean[at].mean(0).numpy() for word, at in positions.items()}

    @torch.no_grad()
    def attention_maps(self, image: Image, prompt: str, *, layers: bool = False) -> dict[Any, Tensor]:
        """Attention of every token of a prompt, the image seen as a whole.

        Args:
            image: any size.
            prompt: given to the network as it is.
            layers: maps of single layers instead of their means by stride.

        Returns:
            By stride in pixels, or by ``(stride, layer's name)``, ``float32 (t, h, w)`` at the image's resolution:
            shares of attention, which sum to one over the tokens. The first token is the begin mark, behind the
            prompt's are the end mark and padding (with Stable Diffusion 1.x more end marks).

        Raises:
            UsageError: when the backbone gives no maps.
        """
        self.eval()
        pixels, text = (
            pixels_of(image, self.inference, self.device),
            text_adapter.adapted(self.head, self.encode_text([prompt])),
        )
        found: dict[Any, Tensor] = (
            self.backbone.layer_attention(pixels, text)
            if layers
            else self.backbone.pyramid(pixels, text).attention
        )
        if not found:
            raise UsageError("this backbone gives no attention maps", fix="choose one with cross-attention")
        size = self.inference.size(image.height, image.width)

        def enlarged(stride: int, maps: Tensor) -> Tensor:
            large = F.interpolate(maps.float(), scale_factor=stride, mode="bilinear", align_corners=False)
            large = large[..., : size[0], : size[1]]
            return F.interpolate(large, (image.height, image.width), mode="bilinear")[0].cpu()

        return {key: enlarged(key[0] if layers else key, maps) for key, maps in found.items()}

    def positions(self, word: str, prompt: str) -> list[int]:
        """Positions of a word's tokens among those of the encoded prompt, whose first is the begin mark.

        Raises:
            UsageError: when it is not in the prompt, or the network is given averaged embeddings instead of a prompt.
        """
        if self.rewrite.embeds:
            raise UsageError(
                f"the strategy {self.rewrite.strategy!r} gives the network averaged embeddings, which hold no words",
                fix="look for words with a model of another strategy",
            )
        found = _occurrences(word, prompt)
        if not found:
            raise UsageError(
                f"{word!r} is not in the prompt {prompt!r}",
                fix="choose words of the prompt, or give another caption",
            )
        count = self.backbone.count_tokens
        return [
            1 + i
            for match in found
            for i in range(count(prompt[: match.start()]), count(prompt[: match.end()]))
        ]

    def save(self, folder: Path, *, dtype: Literal["float32", "float16"] = "float32") -> None:
        """Write the folder; ``model.json`` last.

        Args:
            folder: may hold other files.
            dtype: of the weights on disk; half the size, and rounded, with ``"float16"``.
        """
        facts = {
            "head": {"name": self.head_name, "settings": self.head_settings},
            "labels": dataclasses.asdict(self.labels),
            "rewrite": as_json(self.rewrite),
            "inference": as_json(self.inference),
            "captioner": self.captioner,
            "text_adapter": hasattr(self.head, "text_adapter"),
        }
        files.write(folder, self.backbone, self.head, facts, dtype)

    @classmethod
    def load(cls, folder: Path, *, device: str | torch.device = "cpu") -> PerceptionModel:
        """Read a folder written by :meth:`save`; weights are ``float32`` in memory.

        Raises:
            ArtifactError: when it is no model, or a file is not what it was.
        """
        facts = files.read(folder)
        with files.explained(folder):
            labels = files.parse(LabelSpace, facts["labels"])
            model = cls.assemble(
                files.load_backbone(folder, facts["backbone"]),
                facts["head"]["name"],
                labels,
                rewrite=files.parse(Rewrite, facts["rewrite"]),
                inference=files.parse(InferenceSettings, facts["inference"]),
                captioner=str(facts.get("captioner", "")),
                adapter=bool(facts.get("text_adapter")),
                **facts["head"]["settings"],
            )
            model.head.load_state_dict(files.load_head(folder))
        model.folder = folder
        return model.requires_grad_(False).to(device)
