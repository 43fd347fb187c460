"""MobileNetV3-Large (Howard et al., ICCV 2019) of torchvision: a small network for students, without text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tadp_da.backbones import BackboneSettings, backbones
from tadp_da.backbones.shared.textless import Pixelwise
from tadp_da.errors import ArtifactError, EnvironmentSetupError

_FILE = "mobilenet_v3_large.safetensors"
RANDOM, IMAGENET = "random", "imagenet"
_FIX = (
    f"give {IMAGENET}, which is fetched from download.pytorch.org, {RANDOM}, or a safetensors file of torchvision's "
    "mobilenet_v3_large"
)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MobileNetV3Settings(BackboneSettings):
    """How images become features.

    Attributes:
        dilated: the last stage has stride 16 and dilated convolutions instead of stride 32, as LR-ASPP reads it.
    """

    dilated: bool = False


def _groups(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, width), width)


def _network(dilated: bool, *, frozen_norm: bool) -> nn.Module:
    """torchvision's features; with the batch statistics of pretraining, or with groups for weights drawn anew: batches
    of a few images are too small for statistics, and nothing but parameters is to be kept."""
    from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf
    from torchvision.ops import FrozenBatchNorm2d

    norm = partial(FrozenBatchNorm2d, eps=0.001) if frozen_norm else _groups
    stages, last = _mobilenet_v3_conf("mobilenet_v3_large", dilated=dilated)
    return MobileNetV3(stages, last, norm_layer=norm).features.eval()


@backbones.add("mobilenet-v3")
class MobileNetV3Large(Pixelwise):
    """Features of the stages at strides 4, 8, 16 and, unless it is dilated, 32. ``model`` is ``imagenet``
    (torchvision's weights), ``random``, or a safetensors file or its folder."""

    Settings = MobileNetV3Settings

    def __init__(
        self, network: Any, settings: MobileNetV3Settings | None = None, origin: str | None = None
    ) -> None:
        made = settings or MobileNetV3Settings()
        #: Index of the last layer of each stride.
        self.last = {4: 3, 8: 6, 16: 16} if made.dilated else {4: 3, 8: 6, 16: 12, 32: 16}
        widths = {3: 24, 6: 40, 12: 112, 16: 960}
        super().__init__(network, {s: widths[i] for s, i in self.last.items()}, made, origin)

    @classmethod
    def from_pretrained(
        cls, model: str, settings: MobileNetV3Settings | None = None, *, revision: str | None = None
    ) -> MobileNetV3Large:
        dilated = (settings or MobileNetV3Settings()).dilated
        if model == RANDOM:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return cls(_network(dilated, frozen_norm=False), settings)
        state = _imagenet() if model == IMAGENET else _read(_file(model))
        network = _network(dilated, frozen_norm=_has_statistics(state))
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise ArtifactError(
                f"not the weights of mobilenet_v3_large: {str(error).splitlines()[-1].strip()}",
                where=model,
                fix=_FIX,
            ) from None
        return cls(network, settings, "torchvision/mobilenet_v3_large" if model == IMAGENET else str(model))

    @classmethod
    def on_meta(cls, model: str, settings: MobileNetV3Settings | None = None) -> MobileNetV3Large:
        frozen = model == IMAGENET or (model != RANDOM and _has_statistics(_read(_file(model))))
        with torch.device("meta"):
            return cls(_network((settings or MobileNetV3Settings()).dilated, frozen_norm=frozen), settings)

    def write_weights(self, folder: Path, dtype: torch.dtype) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().to("cpu", dtype).contiguous() for k, v in self.network.state_dict().items()}
        save_file(state, folder / _FILE, metadata={"format": "pt"})

    def parts(self) -> Mapping[str, nn.Module]:
        return {"MobileNetV3": self.network}

    def stages(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        strides = {index: stride for stride, index in self.last.items()}
        for index, layer in enumerate(self.network):
            x = layer(x)
            if index in strides:
                yield strides[index], x

    def low_rank_layers(self) -> list[str]:
        """Convolutions of one cell, which are most of the weights."""
        named = self.network.named_modules()
        return [name for name, m in named if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]

    def fresh(self) -> nn.Module:
        return _network(self.settings.dilated, frozen_norm=_has_statistics(self.network.state_dict()))


def _has_statistics(state: Mapping[str, Tensor]) -> bool:
    return any(name.endswith("running_mean") for name in state)


def _file(model: str) -> Path:
    path = Path(model).expanduser()
    file = path / _FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise EnvironmentSetupError("there are no weights of mobilenet_v3_large", where=file, fix=_FIX)
    return file


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of the features as ``float32``; those that classify images are left out."""
    try:
        return _features(load_file(file))
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"the weights cannot be read: {error}", where=file, fix=_FIX) from None


def _imagenet() -> dict[str, Tensor]:
    """torchvision's weights, from its cache or from the network: checked by the hash in their name, and unpickled with
    ``weights_only``, which runs no code."""
    from torchvision.models import MobileNet_V3_Large_Weights

    try:
        weights = MobileNet_V3_Large_Weights.IMAGENET1K_V2
        return _features(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise EnvironmentSetupError(
            f"cannot fetch torchvision's weights: {error}", where="download.pytorch.org", fix=_FIX
        ) from None


def _features(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    whole = any(name.startswith("features.") for name in state)
    kept = {
        k.removeprefix("features."): v for k, v in state.items() if not whole or k.startswith("features.")
    }
    return {k: v.float() for k, v in kept.items() if not k.endswith("num_batches_tracked")}
