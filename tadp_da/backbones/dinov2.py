"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193), with or without registers (Darcet et al. 2023): the peer without text.

A vision transformer has one grid of patches. Heads that read several strides get a pyramid from it as in BEiT and DPT
(Ranftl et al. 2021): features of four evenly spaced layers, the shallowest at the finest stride, each through the
final layer norm as in DINOv2's own ``get_intermediate_layers``, resampled by powers of two without new parameters. So
that all strides are powers of two, the input is first scaled such that a patch covers ``stride`` pixels (16 by default,
7/8 of the size for patches of 14); cells of all levels then line up exactly with the pixels, at the strides of Stable
Diffusion 1.x.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tadp_da.backbones import BackboneSettings, Scope, backbones
from tadp_da.backbones.shared import low_rank
from tadp_da.backbones.shared.textless import Textless
from tadp_da.errors import ArtifactError, DataError
from tadp_da.fingerprints import code_of
from tadp_da.images import imagenet_normalize
from tadp_da.noising import Generators
from tadp_da.storage.hub import DINOV2, Files, has_weights, locate
from tadp_da.storage.pretrained import load_model, quiet
from tadp_da.types import FeaturePyramid, FeatureSpec

_FILES = Files(
    marker="config.json",
    wanted=["*.json", "*.safetensors"],
    unwanted=["*/*"],
    complete=lambda folder: (folder / "config.json").exists() and has_weights(folder),
    option="--model",
)
_CONFIGURATION = dataclasses.replace(_FILES, complete=lambda folder: (folder / "config.json").exists())
_CLASSES = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
#: Sizes of the aliases, so that planning needs no download.
_SIZES = {
    "dinov2-small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
    "dinov2-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "dinov2-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}
_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]
_LEVELS = 4


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DINOv2Settings(BackboneSettings):
    """How images become features.

    Attributes:
        stride: pixels of the image that one patch covers; the pyramid has half of it, itself, twice and four times it.
            8 sees four times as many patches as 16.
    """

    stride: Literal[8, 16, 32] = 16


@backbones.add("dinov2")
class DINOv2(Textless):
    """A DINOv2 of transformers, with or without registers. It reads no text: all prompts give the same features.

    Attributes:
        network: ``Dinov2Model`` or ``Dinov2WithRegistersModel``; all of it is trainable but the mask token.
    """

    Settings = DINOv2Settings

    def __init__(
        self, network: Any, settings: DINOv2Settings | None = None, origin: str | None = None
    ) -> None:
        super().__init__(network, settings, origin)
        depth = len(network.encoder.layer)
        #: By stride, after how many layers its feature is taken.
        self.feature_layers = {
            (self.settings.stride >> 1) << i: max(1, depth * (i + 1) // _LEVELS) for i in range(_LEVELS)
        }
        self.spec = FeatureSpec(
            channels=dict.fromkeys(self.feature_layers, network.config.hidden_size), attention={}
        )
        self._checkpointing = False
        self.eval()

    @classmethod
    def from_pretrained(
        cls, model: str, settings: DINOv2Settings | None = None, *, revision: str | None = None
    ) -> DINOv2:
        """Load a transformers folder, a hub id or an alias (``"dinov2-small"``, ``-base``, ``-large``)."""
        found = locate(
            model, _FILES, DINOV2, "a folder with a transformers DINOv2 model (config.json)", revision
        )
        kind, _ = _class_and_config(_configuration(found.path), found.path)
        with quiet():
            return cls(load_model(kind, found.path, "DINOv2"), settings, found.origin)

    @classmethod
    def on_meta(cls, model: str, settings: DINOv2Settings | None = None) -> DINOv2:
        if model in _SIZES:
            config = {"model_type": "dinov2", "image_size": 518, **_SIZES[model]}
        else:
            found = locate(model, _CONFIGURATION, DINOV2, "a DINOv2 configuration", local_only=True)
            config = _configuration(found.path)
        kind, parsed = _class_and_config(config, model)
        with torch.device("meta"):
            return cls(kind(parsed), settings)

    def write_weights(self, folder: Path, dtype: torch.dtype) -> None:
        """Write a transformers model folder."""
        same = self.network.dtype == dtype
        with quiet():
            (self.network if same else copy.deepcopy(self.network).to(dtype)).save_pretrained(folder)

    @property
    def default_resolution(self) -> int:
        return int(self.network.config.image_size) // self._patch * self.settings.stride

    def parts(self) -> Mapping[str, nn.Module]:
        return {"DINOv2": self.network}

    @property
    def _patch(self) -> int:
        return int(self.network.config.patch_size)

    # Images

    @torch.no_grad()
    def encode_image(self, pixels: Tensor, generator: Generators | None = None) -> Tensor:
        """Pixels ``(b, 3, h, w)`` in [-1, 1] normalized as for ImageNet and scaled so that a patch covers ``stride``.

        Raises:
            DataError: for sizes that are not multiples of the coarsest stride.
        """
        grid, (height, width) = max(self.spec.channels), pixels.shape[-2:]
        if height % grid or width % grid or not height * width:
            raise DataError(
                f"pixels have shape {tuple(pixels.shape)}; expected (b, 3, h, w) with h and w multiples of {grid}",
                fix="resize or crop the images to the grid; pyramid() pads by itself",
            )
        size = [side // self.settings.stride * self._patch for side in (height, width)]
        return functional.interpolate(imagenet_normalize(pixels), size, mode="bilinear", antialias=True)

    def image_key(self) -> dict[str, Any]:
        return {"encoder": code_of(DINOv2.encode_image, imagenet_normalize), "stride": self.settings.stride}

    def pyramid_of(
        self, latents: Tensor, text: Tensor, size: tuple[int, int], *, attention: bool = True
    ) -> FeaturePyramid:
        height, width = size
        rows, columns = (side // self._patch for side in latents.shape[-2:])
        hidden = self.network.embeddings(latents.to(self.network.dtype))
        taken: dict[int, Tensor] = {}
        for depth, layer in enumerate(self.network.encoder.layer, start=1):
            again = self._checkpointing and torch.is_grad_enabled()
            hidden = checkpoint(layer, hidden, use_reentrant=False) if again else layer(hidden)
            if depth in self.feature_layers.values():
                patches = self.network.layernorm(hidden)[
                    :, -rows * columns :
                ]  # after class and register tokens
                taken[depth] = patches.transpose(1, 2).unflatten(2, (rows, columns))
        features = {
            stride: _resample(taken[depth], self.settings.stride, stride)
            for stride, depth in self.feature_layers.items()
        }
        return FeaturePyramid(
            features={s: x[..., : -(-height // s), : -(-width // s)] for s, x in features.items()},
            attention={},
        )

    # Training

    def trainable(self, scope: Scope, *, rank: int = 8, prediction: bool = False) -> list[nn.Parameter]:
        if scope == "lora":
            return low_rank.add(self.network, _PROJECTIONS, rank)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(scope == "full" and not name.endswith("mask_token"))
        return [p for p in self.network.parameters() if p.requires_grad]

    @contextmanager
    def gradient_checkpointing(self, on: bool = True) -> Iterator[None]:
        self._checkpointing = on
        try:
            yield
        finally:
            self._checkpointing = False

    def reinitialize(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = type(self.network)(self.network.config)
        self.network.load_state_dict(fresh.state_dict())


def _resample(patches: Tensor, have: int, want: int) -> Tensor:
    """Features ``(b, c, u, v)`` of stride ``have`` at stride ``want``; one is a power of two of the other."""
    if want < have:
        return functional.interpolate(patches, scale_factor=have // want, mode="bilinear")
    return functional.avg_pool2d(patches, want // have) if want > have else patches


def _configuration(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"not a readable model configuration: {error}", where=file, fix="fetch the model again"
        ) from error


def _class_and_config(config: dict[str, Any], where: object) -> tuple[Any, Any]:
    import transformers

    name = _CLASSES.get(str(config.get("model_type")))
    if name is None:
        raise ArtifactError(
            f"the model is of type {config.get('model_type')!r}, expected {' or '.join(_CLASSES)}",
            where=where,
            fix=f"use a DINOv2 model of transformers: {', '.join(DINOV2)}, facebook/dinov2-with-registers-base, ...",
        )
    kind = getattr(transformers, name)
    return kind, kind.config_class.from_dict(config)
