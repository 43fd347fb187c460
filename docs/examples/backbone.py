"""A ResNet-18 of torchvision as a backbone without text: the classic peer."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d

from tadp_da.backbones import BackboneSettings, backbones
from tadp_da.backbones.shared.textless import Pixelwise
from tadp_da.errors import EnvironmentSetupError

_FILE = "resnet18.safetensors"
_CHANNELS = {4: 64, 8: 128, 16: 256, 32: 512}


def _network() -> nn.Module:
    """Batch statistics stay those of pretraining, so that an image's features do not depend on its batch."""
    network = resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    network.fc = nn.Identity()
    return network


@backbones.add("resnet-18")
class ResNet18(Pixelwise):
    """Features of the four stages, at strides 4, 8, 16 and 32. ``model`` is a folder with ``resnet18.safetensors``."""

    Settings = BackboneSettings

    def __init__(self, network: nn.Module, settings: Any = None, origin: str | None = None) -> None:
        super().__init__(network, _CHANNELS, settings, origin)

    @classmethod
    def from_pretrained(cls, model: str, settings: Any = None, *, revision: str | None = None) -> "ResNet18":
        file = Path(model) / _FILE
        if not file.is_file():
            raise EnvironmentSetupError(
                "there are no weights", where=file, fix="save torchvision's resnet18 there"
            )
        network = _network()
        state = {name: value for name, value in load_file(file).items() if not name.startswith("fc.")}
        network.load_state_dict(state)
        return cls(network, settings, str(model))

    @classmethod
    def on_meta(cls, model: str, settings: Any = None) -> "ResNet18":
        with torch.device("meta"):
            return cls(_network(), settings)

    def write_weights(self, folder: Path, dtype: torch.dtype) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().to("cpu", dtype).contiguous() for k, v in self.network.state_dict().items()}
        save_file(state, folder / _FILE)

    def parts(self) -> Mapping[str, nn.Module]:
        return {"ResNet-18": self.network}

    def stages(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        net = self.network
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        for stride, stage in zip(_CHANNELS, (net.layer1, net.layer2, net.layer3, net.layer4), strict=True):
            x = stage(x)
            yield stride, x

    def low_rank_layers(self) -> list[str]:
        return [name for name, layer in self.network.named_modules() if isinstance(layer, nn.Conv2d)]

    def fresh(self) -> nn.Module:
        return _network()
