"""Stable Diffusion 1.x and 2.x, of any size, as a perception backbone (TADP, section 3.1)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tadp_da.backbones import Backbone, Scope, backbones
from tadp_da.backbones.sd import lora as _lora
from tadp_da.backbones.sd import words as _words
from tadp_da.backbones.sd.attention import FeatureHook, FeatureRecorder, Kernel, MapProcessor, require_capture
from tadp_da.backbones.sd.feature_layers import feature_layers
from tadp_da.backbones.sd.kernels import lay_out
from tadp_da.backbones.sd.load_concept import load_concept
from tadp_da.backbones.sd.loading import load_parts
from tadp_da.backbones.sd.locate import locate
from tadp_da.backbones.sd.pipeline import sample, save_parts
from tadp_da.backbones.sd.settings import StableDiffusionSettings
from tadp_da.backbones.sd.shapes import meta_parts
from tadp_da.backbones.shared import low_rank
from tadp_da.concept import Concept, token_names
from tadp_da.errors import DataError
from tadp_da.fingerprints import base_key, code_of, config_key, environment_key, tokenizer_of, weights_of
from tadp_da.images import imagenet_normalize
from tadp_da.noising import Generators, Noising, noise_loss, normal
from tadp_da.types import FeaturePyramid, FeatureSpec

BackboneSettings = StableDiffusionSettings
_OUTPUTS = ("conv_norm_out.", "conv_out.")


@backbones.add("stable-diffusion")
class StableDiffusion(Backbone):
    """A Stable Diffusion 1.x- or 2.x-shaped model: UNet, VAE, CLIP text encoder and tokenizer, scheduler.

    VAE and text encoder are frozen and stay in eval mode; the UNet is trainable as it comes. Sizes of things (strides,
    channels, tokens) follow from the parts, so one class serves every model of the family.

    Attributes:
        factor: pixels per latent cell.
        grid: coarsest stride in pixels.
        noising: forward process of the scheduler.

    Raises:
        ArtifactError: when the parts are not of the Stable Diffusion 1.x or 2.x family.
        UsageError: when settings do not fit the parts.
    """

    Settings = StableDiffusionSettings
    generates: ClassVar[bool] = True

    def __init__(
        self,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        settings: StableDiffusionSettings | None = None,
        origin: str | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or StableDiffusionSettings()
        self.origin = origin
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.vae.requires_grad_(False)
        self.text_encoder.requires_grad_(False)
        self.train(False)
        self.noising = Noising(scheduler.config)
        self.factor: int = 2 ** (len(vae.config.block_out_channels) - 1)
        self.settings.check(self.noising.steps, self.vae)
        self._recorder = FeatureRecorder()
        self._captured: list[tuple[nn.Module, MapProcessor]] = []
        self.spec = self._capture()
        self._kernel = Kernel(self.settings.attention, unet, self._captured)
        self.grid: int = max(self.spec.channels)
        # Now, because later is after training: a base is what was loaded.
        self._fingerprint = "meta"
        if self.device.type != "meta":
            self._fingerprint = base_key(self, tokenizer, self.noising.facts)
        lay_out(unet, vae, self.settings)

    @classmethod
    def from_pretrained(
        cls, model: str, settings: StableDiffusionSettings | None = None, *, revision: str | None = None
    ) -> StableDiffusion:
        """Load a diffusers pipeline folder, an original checkpoint (.safetensors), a hub id or an alias ("mini")."""
        found = locate(str(model), revision)
        return cls(**load_parts(found.path), settings=settings, origin=found.origin)

    @classmethod
    def on_meta(cls, model: str, settings: StableDiffusionSettings | None = None) -> StableDiffusion:
        decides = (settings or StableDiffusionSettings()).portable()
        return cls(**meta_parts(model), settings=StableDiffusionSettings(**decides, attention="sdpa"))

    def write_weights(self, folder: Path, dtype: torch.dtype) -> None:
        save_parts(self, folder, dtype)

    def _capture(self) -> FeatureSpec:
        """Put hooks and processors into the UNet; they are idle outside of :meth:`pyramid`."""
        levels = feature_layers(self.unet, self.factor)
        for level in levels:
            layer = self.unet.get_submodule(level.feature)
            layer.register_forward_hook(FeatureHook(level.stride, self._recorder))
            for name in level.maps:
                processor = MapProcessor(level.stride, name, self._recorder)
                self._captured.append((self.unet.get_submodule(name), processor))
                self.unet.get_submodule(name).set_processor(processor)
        tokens = self.text_encoder.config.max_position_embeddings
        channels = {level.stride: level.channels for level in levels}
        if self.settings.latent:
            channels[self.factor] += self.unet.config.in_channels
        return FeatureSpec(
            channels=channels,
            attention={level.stride: tokens for level in levels if level.maps},
        )

    @property
    def fingerprint(self) -> str:
        """blake2b of UNet, VAE, text encoder, tokenizer and the noise schedule as they were loaded, before any concept
        or training."""
        return self._fingerprint

    @property
    def sampler(self) -> str:
        return config_key(self.scheduler)

    @property
    def default_resolution(self) -> int:
        return int(self.unet.config.sample_size) * self.factor

    def parts(self) -> Mapping[str, nn.Module]:
        return {"UNet": self.unet, "VAE": self.vae, "text encoder": self.text_encoder}

    def train(self, mode: bool = True) -> StableDiffusion:
        """Training mode for the UNet only."""
        super().train(mode)
        self.vae.eval()
        self.text_encoder.eval()
        return self

    # Text

    @property
    def token_limit(self) -> int:
        return int(self.text_encoder.config.max_position_embeddings) - 2

    def count_tokens(self, prompt: str) -> int:
        return len(_words.token_ids(self.tokenizer, prompt))

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """The last hidden state of all positions: begin mark, tokens, end marks to the end. Differentiable in the token
        embeddings where they are trainable."""
        return _words.encode(self.tokenizer, self.text_encoder, prompts)

    def text_key(self) -> dict[str, Any]:
        return {
            "text_encoder": weights_of(self.text_encoder),
            "text_encoder_config": config_key(self.text_encoder),
            "tokenizer": tokenizer_of(self.tokenizer),
            "code": code_of(_words.encode),
            **environment_key(self.text_encoder),
        }

    def add_tokens(self, word: str, like: str, vectors: int = 1) -> tuple[str, ...]:
        row = _words.initial_row(self.tokenizer, self.text_encoder, like)
        tokens = token_names(word, vectors)
        _words.add(self.tokenizer, self.text_encoder, tokens, row.expand(len(tokens), -1))
        return tokens

    def token_rows(self, tokens: Sequence[str]) -> Tensor:
        """Embedding rows ``(n, d)`` of learned tokens, as a :class:`Concept` holds them."""
        ids = self.tokenizer.convert_tokens_to_ids(list(tokens))
        return self.text_encoder.get_input_embeddings().weight.detach()[ids].cpu().clone()

    def trained_rows(self, tokens: Sequence[str]) -> AbstractContextManager[nn.Parameter]:
        return _words.trained_rows(self.tokenizer, self.text_encoder, tokens)

    # Images

    @property
    def caches_latents(self) -> bool:
        return self.settings.posterior != "sample"

    def image_key(self) -> dict[str, Any]:
        return {
            "vae": weights_of(self.vae),
            "vae_config": config_key(self.vae),
            "scaling": self.vae.config.scaling_factor,
            "pixels": [self.settings.pixels, self.settings.posterior],
            "encoder": code_of(imagenet_normalize, StableDiffusion.encode_image, StableDiffusion.posterior),
            **environment_key(self.vae),
        }

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the scaled latents; the tiny autoencoder has no deviation."""
        encoded, scale = self.vae.encode(pixels.to(self.vae.dtype)), self.vae.config.scaling_factor
        if hasattr(encoded, "latents"):
            return encoded.latents.float() * scale, None
        return encoded.latent_dist.mean.float() * scale, encoded.latent_dist.std.float() * scale

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
        pixels = imagenet_normalize(pixels) if self.settings.pixels == "imagenet" else pixels
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
        return self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor).sample.float()

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
        return noise_loss(self.denoise, self.noising, latents, text, generator, min_snr=min_snr)

    def pyramid_of(
        self, latents: Tensor, text: Tensor, size: tuple[int, int], *, attention: bool = True
    ) -> FeaturePyramid:
        require_capture(self._captured)
        if self.unet.is_gradient_checkpointing:
            self.unet.enable_gradient_checkpointing(self._recorder.checkpoint)
        if not self.settings.scaled:
            latents = latents / self.vae.config.scaling_factor
        timesteps = torch.full((latents.shape[0],), self.settings.timestep, device=latents.device)
        with self._recorder.record(maps=attention):
            # The two output layers run for nothing: they are under a thousandth of the work, and leaving them
            # out would mean an exception through diffusers' code.
            self.denoise(latents, timesteps, text)
            features, maps = self._recorder.take(size)
        if self.settings.latent:
            finest = features[self.factor]
            seen = latents[..., : finest.shape[-2], : finest.shape[-1]].to(finest.dtype)
            features[self.factor] = torch.cat([finest, seen], dim=1)
        return FeaturePyramid(features=features, attention=maps)

    def layer_attention(self, pixels: Tensor, text: Tensor) -> dict[tuple[int, str], Tensor]:
        with self._recorder.keep_layers() as found:
            self.pyramid(pixels, text)
        return found

    # Training

    def trainable(self, scope: Scope, *, rank: int = 8, prediction: bool = False) -> list[nn.Parameter]:
        if scope == "lora":
            return low_rank.add(self.unet, _lora.TARGETS, rank)
        for name, parameter in self.unet.named_parameters():
            parameter.requires_grad_(scope == "full" and (prediction or not name.startswith(_OUTPUTS)))
        return [p for p in self.unet.parameters() if p.requires_grad]

    @contextmanager
    def gradient_checkpointing(self, on: bool = True) -> Iterator[None]:
        if on:
            self.unet.enable_gradient_checkpointing()
        try:
            yield
        finally:
            if on:
                self.unet.disable_gradient_checkpointing()

    def reinitialize(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = type(self.unet).from_config(self.unet.config)
        self.unet.load_state_dict(fresh.state_dict())

    # Concepts

    def concept_weights(self) -> dict[str, Any]:
        weights = {name: value.detach().cpu().clone() for name, value in self.unet.state_dict().items()}
        return {"weights": weights, "part": "unet", "part_config": json.loads(self.unet.to_json_string())}

    def lora_tensors(self) -> dict[str, Tensor]:
        return _lora.tensors(self.unet)

    def fuse_lora(self) -> None:
        low_rank.fuse(self.unet)

    def load_concept(self, concept: Concept) -> StableDiffusion:
        load_concept(concept, self.fingerprint, self.unet, self.tokenizer, self.text_encoder)
        return self

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
        """Through diffusers' pipelines with this model's scheduler."""
        self._kernel.settle(self.device)
        how: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
        how |= {"size": size} if start is None else {"start": start, "strength": strength}
        return sample(self, prompts, seed=seed, **how)
