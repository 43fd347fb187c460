"""What backbones that read no text have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tadp_da.backbones import Backbone, Scope
from tadp_da.backbones.shared import low_rank
from tadp_da.fingerprints import base_key, code_of
from tadp_da.images import imagenet_normalize
from tadp_da.noising import Generators
from tadp_da.types import FeaturePyramid, FeatureSpec


class Textless(Backbone):
    """A backbone whose features depend on the image alone: all prompts are accepted and ignored.

    Args:
        network: all of what is trained; a member of the family, in eval mode.
        settings: the defaults when None.
        origin: where the weights are from.
    """

    reads_text: ClassVar[bool] = False

    def __init__(self, network: Any, settings: Any = None, origin: str | None = None) -> None:
        super().__init__()
        self.settings, self.origin = settings or self.Settings(), origin
        self.network: Any = network
        self._fingerprint = "meta" if self.device.type == "meta" else base_key(self)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Nothing, ``(b, 0, 0)``."""
        return torch.zeros(len(prompts), 0, 0, device=self.device)

    def count_tokens(self, prompt: str) -> int:
        return 0

    @property
    def token_limit(self) -> int:
        return 0

    def text_key(self) -> dict[str, Any]:
        return {}

    @property
    def caches_latents(self) -> bool:
        return False

    def fuse_lora(self) -> None:
        low_rank.fuse(self.network)


class Pixelwise(Textless):
    """One that reads pixels as they are, normalized as for ImageNet, in stages whose strides double.

    A member defines :meth:`stages`, :meth:`low_rank_layers` and :meth:`fresh`.
    """

    def __init__(
        self, network: Any, channels: dict[int, int], settings: Any = None, origin: str | None = None
    ) -> None:
        super().__init__(network, settings, origin)
        self.spec = FeatureSpec(channels=channels, attention={})
        self.eval()

    @abstractmethod
    def stages(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Stride and features of each level of an image ``(b, 3, h, w)`` on the grid, finest first."""

    @abstractmethod
    def low_rank_layers(self) -> list[str]:
        """Names of the layers that get low-rank layers beside them."""

    @abstractmethod
    def fresh(self) -> nn.Module:
        """The same network with new weights, drawn from the global generator."""

    @property
    def default_resolution(self) -> int:
        """That of ImageNet."""
        return 224

    def encode_image(self, pixels: Tensor, generator: Generators | None = None) -> Tensor:
        """Pixels ``(b, 3, h, w)`` in [-1, 1] normalized as for ImageNet."""
        return imagenet_normalize(pixels)

    def image_key(self) -> dict[str, Any]:
        return {"encoder": code_of(imagenet_normalize)}

    def pyramid_of(
        self, latents: Tensor, text: Tensor, size: tuple[int, int], *, attention: bool = True
    ) -> FeaturePyramid:
        height, width = size
        features = {s: x[..., : -(-height // s), : -(-width // s)] for s, x in self.stages(latents)}
        return FeaturePyramid(features=features, attention={})

    def trainable(self, scope: Scope, *, rank: int = 8, prediction: bool = False) -> list[nn.Parameter]:
        if scope == "lora":
            return low_rank.add(self.network, self.low_rank_layers(), rank)
        self.network.requires_grad_(scope == "full")
        return [p for p in self.network.parameters() if p.requires_grad]

    @contextmanager
    def gradient_checkpointing(self, on: bool = True) -> Iterator[None]:
        """Nothing: a small network has few activations."""
        yield

    def reinitialize(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = self.fresh()
        self.network.load_state_dict(fresh.state_dict())
