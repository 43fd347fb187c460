"""Backbones: networks that turn images and prompts into feature pyramids. One file per family.

A member is a subclass of :class:`Backbone`, registered by name::

    @backbones.add("my-network")
    class MyNetwork(Backbone): ...

``tests/contract/test_backbones.py`` asks of every member, at a small random size:

- ``Settings`` is a frozen pydantic dataclass whose defaults are valid; :meth:`BackboneSettings.portable` is JSON.
- ``pyramid`` has the strides, channels and attention tokens that ``spec`` announces, ``ceil(size / stride)`` cells at
  every stride for any image size, the same features with and without attention, and the same as ``pyramid_of`` of
  ``encode_image`` for sizes on the grid. It is a function of each image alone: the batch does not matter.
- ``trainable("full" | "lora" | "frozen")`` returns exactly the parameters that require a gradient, and each of them is
  reached by the pyramid; after ``fuse_lora`` the pyramid is the same and the state dict has its old names.
- Gradient checkpointing changes no gradient.
- ``save`` and ``load`` keep the pyramid bit for bit and ``Settings`` but for those of the machine; ``fingerprint``
  changes with the weights and stays through training.
- ``reinitialize`` changes the pyramid, as a function of the seed alone. ``on_meta`` has the same spec without data.
- A backbone that does not read text gives the same pyramid for all prompts; one that does not generate refuses concepts
  and everything about noise with a ``UsageError``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.noising import Generators
from tadp_da.registry import Registry
from tadp_da.settings import build, keyed
from tadp_da.storage.files import write_json
from tadp_da.types import FeaturePyramid, FeatureSpec

Scope = Literal["frozen", "full", "lora"]
_SETTINGS = "backbone.json"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class BackboneSettings:
    """Base of the settings of all backbones. A saved model does not keep those of :attr:`Effect.SPEED`."""

    def portable(self) -> dict[str, Any]:
        """The fields that decide the features, as JSON values."""
        return keyed(type(self), self)


class Backbone(nn.Module, ABC):
    """A network that is read as a perception backbone (TADP, section 3.1). New ones are in eval mode.

    Attributes:
        Settings: class of the settings.
        reads_text: whether prompts change the features.
        generates: whether it can denoise, draw images and learn concepts.
        spec: channels and attention tokens by stride; the coarsest stride is the grid that images are padded to.
        settings: how images become features.
        origin: where the weights were loaded from, ``owner/name@commit`` or a path; None when they were built here.
    """

    Settings: ClassVar[type[BackboneSettings]]
    reads_text: ClassVar[bool] = True
    generates: ClassVar[bool] = False

    spec: FeatureSpec
    settings: Any
    origin: str | None

    @classmethod
    @abstractmethod
    def from_pretrained(cls, model: str, settings: Any = None, *, revision: str | None = None) -> Self:
        """Load a folder, a file, a hub id or an alias.

        Raises:
            EnvironmentSetupError: when the model is not here and cannot be fetched.
            ArtifactError: when it is corrupt or of another family.
        """

    @classmethod
    @abstractmethod
    def on_meta(cls, model: str, settings: Any = None) -> Self:
        """The same network on the ``meta`` device: shapes without weights. Nothing is fetched.

        Raises:
            UsageError, EnvironmentSetupError: when the model's configuration is not known on this machine.
        """

    @abstractmethod
    def write_weights(self, folder: Path, dtype: torch.dtype) -> None:
        """Write what :meth:`from_pretrained` opens, learned words included."""

    def save(self, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Write what :meth:`load` reads back: weights of type ``dtype`` and, beside them, the settings."""
        self.write_weights(folder, dtype)
        write_json(folder / _SETTINGS, self.settings.portable())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder written by :meth:`save`.

        Raises:
            ArtifactError: when it is corrupt.
        """
        try:
            settings = cls.Settings(**json.loads((folder / _SETTINGS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            what = f"cannot read the backbone's settings: {error}"
            raise ArtifactError(what, where=folder / _SETTINGS, fix="save the model again") from error
        return cls.from_pretrained(str(folder), settings)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """blake2b of the base as loaded, before any concept or training (weights, configuration, vocabulary, noise):
        tells whether a concept fits."""

    @property
    def sampler(self) -> str:
        """What :meth:`sample` depends on besides the base: a key of artifacts that hold drawn images."""
        return ""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    @abstractmethod
    def default_resolution(self) -> int:
        """Side in pixels of the square images of pretraining."""

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """The networks by name, for tables of parameters; the trainable one comes first."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to ``(b, t, d)``; a prompt over the limit is a ``DataError``."""

    @abstractmethod
    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, without the begin and end marks."""

    @property
    @abstractmethod
    def token_limit(self) -> int:
        """Most tokens that a prompt may hold, without the begin and end marks (75 for CLIP)."""

    @abstractmethod
    def text_key(self) -> dict[str, Any]:
        """What :meth:`encode_text` depends on besides the prompt, as JSON values, for the cache."""

    @property
    @abstractmethod
    def caches_latents(self) -> bool:
        """Whether :meth:`encode_image` is a fixed, frozen and costly function of the image, so that its result is worth
        keeping."""

    @abstractmethod
    def encode_image(self, pixels: Tensor, generator: Generators | None = None) -> Tensor:
        """The frozen first step: pixels ``(b, 3, h, w)`` in [-1, 1] to latents ``(b, c, u, v)`` in fp32. h and w must
        be multiples of the coarsest stride."""

    @abstractmethod
    def image_key(self) -> dict[str, Any]:
        """What :meth:`encode_image` and :meth:`posterior` depend on besides the pixels, as JSON values, for caches."""

    def pyramid(
        self, pixels: Tensor, text: Tensor, *, attention: bool = True, generator: Generators | None = None
    ) -> FeaturePyramid:
        """Features at every stride, and attention maps where asked for, of one pass.

        Args:
            pixels: ``(b, 3, h, w)`` in [-1, 1], any size. Sizes off the grid are padded at the right and bottom by
                repeating the border: unlike reflection that works for images smaller than the padding, and it repeats
                no objects. The pyramid is cropped back to ceil(size / stride).
            text: encoded prompts ``(b, t, d)``.
            attention: whether maps are recorded. The features are the same either way.
            generator: see :meth:`encode_image`.
        """
        latents = self.encode_padded(pixels, generator)
        return self.pyramid_of(latents, text, (pixels.shape[-2], pixels.shape[-1]), attention=attention)

    def encode_padded(self, pixels: Tensor, generator: Generators | None = None) -> Tensor:
        """:meth:`encode_image` of pixels of any size, padded as :meth:`pyramid` pads them."""
        height, width = pixels.shape[-2:]
        grid = max(self.spec.channels)
        padded = nn.functional.pad(pixels, (0, -width % grid, 0, -height % grid), mode="replicate")
        return self.encode_image(padded, generator)

    @abstractmethod
    def pyramid_of(
        self, latents: Tensor, text: Tensor, size: tuple[int, int], *, attention: bool = True
    ) -> FeaturePyramid:
        """:meth:`pyramid` of images of ``size`` (h, w) whose latents :meth:`encode_image` has given already."""

    def layer_attention(self, pixels: Tensor, text: Tensor) -> dict[tuple[int, str], Tensor]:
        """Maps ``(b, t, u, v)`` of single cross-attention layers by stride and name; :meth:`pyramid` gives means."""
        return {}

    @abstractmethod
    def trainable(self, scope: Scope, *, rank: int = 8, prediction: bool = False) -> list[nn.Parameter]:
        """Choose what of the network trains; everything else of it is frozen.

        Args:
            scope: nothing, every weight, or new low-rank layers beside the attention projections.
            rank: rank of the low-rank layers.
            prediction: whether output layers that :meth:`pyramid` does not reach train too.

        Returns:
            The trainable parameters.
        """

    @abstractmethod
    def fuse_lora(self) -> None:
        """Add low-rank layers to the weights and take them out."""

    @abstractmethod
    def gradient_checkpointing(self, on: bool = True) -> AbstractContextManager[None]:
        """Inside, activations of the network are computed twice instead of kept. Does nothing where ``on`` is False."""

    @abstractmethod
    def reinitialize(self, seed: int) -> None:
        """Draw the trainable network's weights anew, in place: the same network without pretraining."""

    # Concepts and noise: backbones that generate override all of these.

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation ``(b, c, u, v)`` of the scaled latents, of which :meth:`encode_image` gives the
        mode or a draw; None where the encoder has no deviation. Settings of the pyramid do not matter here."""
        self._refuse("has no latents to learn a concept from")

    def add_tokens(self, word: str, like: str, vectors: int = 1) -> tuple[str, ...]:
        """Add new tokens whose rows all start as the mean of the rows of ``like``'s tokens, and return them.

        Args:
            word: the first new token; the others are ``word_1``, ``word_2``, ... A prompt must name all of them.
            like: initializer, one word or several; a single-token one gives a word that encodes like it.
            vectors: how many tokens.

        Raises:
            UsageError: when a token is in the vocabulary already, or ``like`` is empty.
        """
        self._refuse("has no vocabulary to add a word to")

    def trained_rows(self, tokens: Sequence[str]) -> AbstractContextManager[nn.Parameter]:
        """Inside, the embedding rows ``(n, d)`` of the tokens are a parameter of its own, which is written back at the
        end. No optimizer sees the whole matrix, so neither weight decay nor momentum can reach another row."""
        self._refuse("has no vocabulary")

    def concept_weights(self) -> dict[str, Any]:
        """The network's weights now, as ``weights``, ``part`` and ``part_config`` of a :class:`Concept`."""
        self._refuse("learns no concept")

    def lora_tensors(self) -> dict[str, Tensor]:
        """Low-rank layers that :meth:`trainable` added, as ``lora`` of a :class:`Concept`."""
        self._refuse("learns no concept")

    def load_concept(self, concept: Concept) -> Self:
        """Put a concept's rows and weights in place, and return this backbone. All is checked before anything changes.

        Raises:
            ArtifactError: when the concept was made on another base, or its tensors are not this model's.
            UsageError: when its word is in the vocabulary already, or this backbone takes no concept.
        """
        if concept.rows is not None or concept.weights or concept.lora:
            self._refuse(f"cannot load the concept {concept.word!r}")
        return self

    def noise_loss(
        self, latents: Tensor, text: Tensor, generator: Generators, *, min_snr: float | None = None
    ) -> Tensor:
        """Denoising loss per sample ``(b,)``; see :func:`tadp_da.noising.noise_loss`."""
        self._refuse("does not denoise")

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        steps: int = 30,
        guidance: float = 3.0,
        size: tuple[int, int] | None = None,
        start: Tensor | None = None,
        strength: float = 1.0,
    ) -> list[Any]:
        """One PIL image per prompt.

        Args:
            seed: image i is a function of (seed, i) and its prompt, not of the other prompts.
            guidance: scale of classifier-free guidance; 1 for none.
            size: (h, w) in pixels, multiples of the coarsest stride; None for :attr:`default_resolution`.
            start: latents, as of :meth:`posterior`, to start from instead of from noise (SDEdit, Meng et al., 2022).
            strength: share of the schedule that these go through.
        """
        self._refuse("draws no images")

    def _refuse(self, what: str) -> NoReturn:
        able = ", ".join(name for name in backbones if backbones[name].generates)
        raise UsageError(
            f"{type(self).__name__} {what}: it is not a generative model",
            where="backbone",
            fix=f"choose a backbone that generates ({able}), or personalize: none",
        )


backbones: Registry[type[Backbone]] = Registry("backbone", "tadp_da.backbones")


def load_backbone(name: str, model: str, settings: Any = None, *, revision: str | None = None) -> Backbone:
    """A backbone of the registry with the weights of ``model``.

    Args:
        name: in the registry.
        model: a folder, a file, a hub id or an alias that this backbone knows.
        settings: the backbone's ``Settings``, or a mapping of its fields; None for the defaults.
        revision: commit, tag or branch on the hub.

    Raises:
        UsageError: for an unknown name or settings that it does not take; see also :meth:`Backbone.from_pretrained`.
    """
    return backbones[name].from_pretrained(model, _settings(name, settings), revision=revision)


def meta_backbone(name: str, model: str, settings: Any = None) -> Backbone:
    """The same without weights and without a download; see :meth:`Backbone.on_meta`."""
    return backbones[name].on_meta(model, _settings(name, settings))


def portable_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a backbone's settings decides the features, as JSON values; the rest is about speed and memory."""
    return dict(_settings(name, settings).portable())


def _settings(name: str, settings: Any) -> Any:
    given = isinstance(settings, Mapping)
    return build(backbones[name].Settings, settings, "backbone.settings") if given else settings
