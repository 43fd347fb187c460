"""Stable Diffusion 1.x and 2.x, of any size, as a perception backbone (TADP, section 3.1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tadp_da.backbones import backbones
from tadp_da.backbones.sd import lora as _lora
from tadp_da.backbones.sd import words as _words
from tadp_da.backbones.sd.attention import FeatureHook, FeatureRecorder, Kernel, MapProcessor, require_capture
from tadp_da.backbones.sd.install import fingerprint, install
from tadp_da.backbones.sd.kernels import compile_blocks
from tadp_da.backbones.sd.loading import load_parts
from tadp_da.backbones.sd.locate import locate
from tadp_da.backbones.sd.pixels import as_for_imagenet
from tadp_da.backbones.sd.saving import save_parts
from tadp_da.backbones.sd.settings import BackboneSettings as BackboneSettings
from tadp_da.backbones.sd.taps import taps
from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError, DataError, UsageError
from tadp_da.noising import Generators, Noising, noise_loss, normal
from tadp_da.storage.files import write_json
from tadp_da.types import FeaturePyramid, FeatureSpec

_SETTINGS = "backbone.json"


@backbones.add("stable-diffusion")
class StableDiffusion(nn.Module):
    """A Stable Diffusion 1.x- or 2.x-shaped model: UNet, VAE, CLIP text encoder and tokenizer, scheduler.

    VAE and text encoder are frozen and stay in eval mode; the UNet is trainable as it comes. Sizes of things (strides,
    channels, tokens) follow from the parts, so one class serves every model of the family.

    Attributes:
        spec: channels and attention tokens by stride.
        factor: pixels per latent cell.
        grid: coarsest stride in pixels.
        noising: forward process of the scheduler.
        origin: where the parts were loaded from, ``owner/name@commit`` or a path; None when they were built here.

    Raises:
        ArtifactError: when the parts are not of the Stable Diffusion 1.x or 2.x family.
        UsageError: when settings do not fit the parts.
    """

    Settings = BackboneSettings

    def __init__(
        self,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        settings: BackboneSettings | None = None,
        origin: str | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or BackboneSettings()
        self.origin = origin
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.vae.requires_grad_(False)
        self.text_encoder.requires_grad_(False)
        self.train(False)
        self.noising = Noising(scheduler.config)
        self.factor: int = 2 ** (len(vae.config.block_out_channels) - 1)
        self._check_settings()
        self._tape = FeatureRecorder()
        self._captured: list[tuple[nn.Module, MapProcessor]] = []
        self.spec = self._tap()
        self._kernel = Kernel(self.settings.attention, unet, self._captured)
        self.grid: int = max(self.spec.channels)
        # Now, because later is after training: a base is what was loaded.
        self._fingerprint = fingerprint({"unet": unet, "vae": vae, "text_encoder": text_encoder})
        if self.settings.channels_last:
            unet.to(memory_format=torch.channels_last)
            vae.to(memory_format=torch.channels_last)
        if self.settings.compile:
            compile_blocks(unet)

    @classmethod
    def from_pretrained(
        cls, model: str, settings: BackboneSettings | None = None, *, revision: str | None = None
    ) -> StableDiffusion:
        """Load a diffusers pipeline folder, an original checkpoint (.safetensors), a hub id or an alias (``"mini"``).

        Raises:
            EnvironmentSetupError: when the model is not here and cannot be fetched.
            ArtifactError: when it is corrupt or of another family.
        """
        found = locate(str(model), revision)
        return cls(**load_parts(found.path), settings=settings, origin=found.origin)

    def save(self, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Write a diffusers pipeline folder, learned words included, and these settings beside it."""
        save_parts(self, folder, dtype)
        write_json(folder / _SETTINGS, self.settings.portable())

    @classmethod
    def load(cls, folder: Path) -> StableDiffusion:
        """Read a folder written by :meth:`save`.

        Raises:
            ArtifactError: when it is corrupt.
        """
        try:
            settings = BackboneSettings(**json.loads((folder / _SETTINGS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"cannot read the backbone's settings: {error}",
                where=folder / _SETTINGS,
                fix="save the model again",
            ) from error
        return cls.from_pretrained(str(folder), settings)

    def _check_settings(self) -> None:
        if self.settings.timestep >= self.noising.steps:
            raise UsageError(
                f"timestep {self.settings.timestep} is beyond the scheduler's {self.noising.steps} steps",
                where="backbone.timestep",
                fix=f"choose 0 to {self.noising.steps - 1}",
            )
        if self.settings.posterior == "sample" and not hasattr(self.vae, "quant_conv"):
            raise UsageError(
                f"{type(self.vae).__name__} has no posterior to sample",
                where="backbone.posterior",
                fix="choose posterior: mode",
            )

    def _tap(self) -> FeatureSpec:
        """Put hooks and processors into the UNet; they are idle outside of :meth:`pyramid`."""
        levels = taps(self.unet, self.factor)
        for level in levels:
            layer = self.unet.get_submodule(level.feature)
            layer.register_forward_hook(FeatureHook(level.stride, self._tape))
            for name in level.maps:
                processor = MapProcessor(level.stride, self._tape)
                self._captured.append((self.unet.get_submodule(name), processor))
                self.unet.get_submodule(name).set_processor(processor)
        tokens = self.text_encoder.config.max_position_embeddings
        return FeatureSpec(
            channels={level.stride: level.channels for level in levels},
            attention={level.stride: tokens for level in levels if level.maps},
        )

    @property
    def fingerprint(self) -> str:
        """blake2b of UNet, VAE and text encoder as they were loaded, before any concept or training."""
        return self._fingerprint

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device

    def train(self, mode: bool = True) -> StableDiffusion:
        """Training mode for the UNet only."""
        super().train(mode)
        self.vae.eval()
        self.text_encoder.eval()
        return self

    # Text

    @property
    def token_limit(self) -> int:
        """Most tokens that a prompt may hold, without the begin and end marks (75 for CLIP)."""
        return self._positions - 2

    @property
    def _positions(self) -> int:
        return int(self.text_encoder.config.max_position_embeddings)

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, without the begin and end marks."""
        return len(_words.token_ids(self.tokenizer, prompt))

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to the last hidden state of all positions, ``(b, t, d)``: begin mark, tokens, end marks to the end.

        Differentiable in the token embeddings where they are trainable.

        Raises:
            DataError: for a prompt over the limit; nothing is cut in silence.
        """
        for prompt in prompts:
            if (count := self.count_tokens(prompt)) > self.token_limit:
                raise DataError(
                    f"a prompt has {count} tokens; the text encoder reads {self.token_limit}",
                    where=f"{prompt[:60]!r}...",
                    fix="shorten the caption or the template around it",
                )
        batch = self.tokenizer(
            list(prompts), padding="max_length", max_length=self._positions, return_tensors="pt"
        )
        return self.text_encoder(batch.input_ids.to(self.text_encoder.device)).last_hidden_state

    def add_tokens(self, word: str, like: str, vectors: int = 1) -> tuple[str, ...]:
        """Add new tokens whose rows all start as the mean of the rows of ``like``'s tokens.

        Args:
            word: the first new token; the others are ``word_1``, ``word_2``, ... A prompt must name all of them.
            like: initializer, one word or several; a single-token one gives a word that encodes like it.
            vectors: how many tokens.

        Returns:
            The new tokens. Tokenizer and embedding have grown; all other rows are as before.

        Raises:
            UsageError: when a token is in the vocabulary already, or ``like`` is empty.
        """
        row = _words.initial_row(self.tokenizer, self.text_encoder, like)
        tokens = _words.names(word, vectors)
        _words.add(self.tokenizer, self.text_encoder, tokens, row.expand(len(tokens), -1))
        return tokens

    def token_rows(self, tokens: Sequence[str]) -> Tensor:
        """Embedding rows ``(n, d)`` of learned tokens, as a :class:`Concept` holds them."""
        ids = self.tokenizer.convert_tokens_to_ids(list(tokens))
        return self.text_encoder.get_input_embeddings().weight.detach()[ids].cpu().clone()

    # Images

    @torch.no_grad()
    def encode_image(self, pixels: Tensor, generator: Generators | None = None) -> Tensor:
        """Pixels ``(b, 3, h, w)`` in [-1, 1] to scaled latents ``(b, 4, u, v)`` in fp32.

        Args:
            pixels: images whose sides are multiples of the coarsest stride.
            generator: noise for ``posterior: sample``; without one every image gets the same noise, so that
                its latents are a function of the image alone.

        Raises:
            DataError: for other sizes or shapes.
        """
        if (
            pixels.ndim != 4
            or pixels.shape[1] != 3
            or any(side % self.grid or not side for side in pixels.shape[2:])
        ):
            raise DataError(
                f"pixels have shape {tuple(pixels.shape)}; expected (b, 3, h, w) with h and w multiples of {self.grid}",
                fix="resize or crop the images to the grid; pyramid() pads by itself",
            )
        pixels = as_for_imagenet(pixels) if self.settings.pixels == "imagenet" else pixels
        encoded = self.vae.encode(pixels.to(self.vae.dtype))
        if hasattr(encoded, "latents"):
            latents = encoded.latents
        elif self.settings.posterior == "mode":
            latents = encoded.latent_dist.mode()
        else:
            dist = encoded.latent_dist
            noise = normal(dist.mean.shape, generator or [torch.Generator().manual_seed(0) for _ in pixels])
            latents = dist.mean + dist.std * noise.to(dist.mean)
        return latents.float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode_image(self, latents: Tensor) -> Tensor:
        """Scaled latents ``(b, 4, u, v)`` back to pixels ``(b, 3, h, w)``, about in [-1, 1]."""
        return self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor).sample

    # The network

    def denoise(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The UNet's prediction (epsilon or v), ``(b, 4, u, v)``, for noisy latents and timesteps ``(b,)``."""
        self._kernel.settle(self.device)
        dtype = self.unet.dtype  # that of its weights; autocast takes over from here
        return self.unet(
            latents.to(dtype), timesteps, encoder_hidden_states=text.to(dtype), return_dict=False
        )[0]

    def noise_loss(
        self, latents: Tensor, text: Tensor, generator: Generators, *, min_snr: float | None = None
    ) -> Tensor:
        """Denoising loss per sample ``(b,)``; see :func:`tadp_da.noising.noise_loss`."""
        return noise_loss(self.denoise, self.noising, latents, text, generator, min_snr=min_snr)

    def pyramid(
        self, pixels: Tensor, text: Tensor, *, attention: bool = True, generator: Generators | None = None
    ) -> FeaturePyramid:
        """Features at every stride, and attention maps where asked for, of one pass on the clean latent.

        Args:
            pixels: ``(b, 3, h, w)`` in [-1, 1], any size. Sizes off the grid are padded at the right and
                bottom by repeating the border: unlike reflection that works for images smaller than the
                padding, and it draws no second copy of things. The pyramid is cropped back to
                ceil(size / stride).
            text: encoded prompts ``(b, t, d)``.
            attention: whether maps are recorded. The features are the same either way.
            generator: see :meth:`encode_image`.

        Raises:
            EnvironmentSetupError: when something replaced the attention processors.
        """
        latents = self.encode_image(self._pad(pixels), generator)
        return self.pyramid_of(latents, text, (pixels.shape[-2], pixels.shape[-1]), attention=attention)

    def pyramid_of(
        self, latents: Tensor, text: Tensor, size: tuple[int, int], *, attention: bool = True
    ) -> FeaturePyramid:
        """:meth:`pyramid` of images of ``size`` (h, w) whose latents :meth:`encode_image` has given already."""
        require_capture(self._captured)
        if self.unet.is_gradient_checkpointing:
            self.unet.enable_gradient_checkpointing(self._tape.checkpoint)
        height, width = size
        if not self.settings.scaled:
            latents = latents / self.vae.config.scaling_factor
        timesteps = torch.full((len(latents),), self.settings.timestep, device=latents.device)
        with self._tape.record(maps=attention):
            # The two output layers run for nothing: they are under a thousandth of the work, and leaving them
            # out would mean an exception through diffusers' code.
            self.denoise(latents, timesteps, text)
            features, maps = self._tape.take()

        def crop(levels: dict[int, Tensor]) -> dict[int, Tensor]:
            return {s: x[..., : -(-height // s), : -(-width // s)] for s, x in levels.items()}

        return FeaturePyramid(features=crop(features), attention=crop(maps))

    def _pad(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        return functional.pad(pixels, (0, -width % self.grid, 0, -height % self.grid), mode="replicate")

    # Change

    def trainable(
        self, kind: Literal["frozen", "full", "lora"], *, rank: int = 8, prediction: bool = False
    ) -> list[nn.Parameter]:
        """Choose what of the UNet trains; everything else of it is frozen.

        Args:
            kind: nothing, every weight, or new low-rank layers beside the attention projections.
            rank: rank of the low-rank layers.
            prediction: whether the output layers train too; :meth:`pyramid` does not reach them.

        Returns:
            The trainable parameters.
        """
        if kind == "lora":
            return _lora.add(self.unet, rank)
        outputs = ("conv_norm_out.", "conv_out.")
        for name, parameter in self.unet.named_parameters():
            parameter.requires_grad_(kind == "full" and (prediction or not name.startswith(outputs)))
        return [p for p in self.unet.parameters() if p.requires_grad]

    def lora_tensors(self) -> dict[str, Tensor]:
        """Low-rank layers that :meth:`trainable` added, in the diffusers format."""
        return _lora.tensors(self.unet)

    def reinitialize(self, seed: int) -> None:
        """Draw the UNet's weights anew, in place: the same network without diffusion pretraining."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = type(self.unet).from_config(self.unet.config)
        self.unet.load_state_dict(fresh.state_dict())

    def fuse_lora(self) -> None:
        """Add the low-rank layers to the weights and take them out."""
        _lora.fuse(self.unet)

    def load_concept(self, concept: Concept) -> StableDiffusion:
        """Put a concept's rows and weights in place, and return this backbone. All is checked before anything changes.

        Raises:
            ArtifactError: when the concept was made on another base, or its tensors are not this model's.
            UsageError: when its word is in the vocabulary already.
        """
        install(concept, self.fingerprint, self.unet, self.tokenizer, self.text_encoder)
        return self

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        steps: int = 30,
        guidance: float = 3.0,
        size: tuple[int, int] | None = None,
    ) -> list[Any]:
        """One PIL image per prompt through diffusers' pipeline with this model's scheduler.

        Args:
            prompts: what to draw; over the limit is an error.
            seed: image i is a function of (seed, i) and its prompt, not of the other prompts.
            steps: denoising steps.
            guidance: classifier-free guidance scale; 1 for none.
            size: (h, w) in pixels, multiples of the coarsest stride; None for the size of pretraining.
        """
        from tadp_da.backbones.sd.sampling import sample

        self._kernel.settle(self.device)
        return sample(self, prompts, seed=seed, steps=steps, guidance=guidance, size=size)
