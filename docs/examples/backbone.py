"""A ResNet-18 of torchvision as a backbone without text: the classic peer."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tadp_da.backbones import Backbone, BackboneSettings, Scope, backbones
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.fingerprints import base_key
from tadp_da.images import imagenet_normalize
from tadp_da.types import FeaturePyramid, FeatureSpec

_FILE = "resnet18.safetensors"
_WIDTHS = {4: 64, 8: 128, 16: 256, 32: 512}


def _network() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(weights=None)


@backbones.add("resnet-18")
class ResNet18(Backbone):
    """Features of the four stages, at strides 4, 8, 16 and 32. ``model`` is a folder with ``resnet18.safetensors``."""

    Settings = BackboneSettings
    reads_text = False

    def __init__(self, network: nn.Module, settings: Any = None, origin: str | None = None) -> None:
        super().__init__()
        self.network, self.settings, self.origin = network, settings or BackboneSettings(), origin
        self.spec = FeatureSpec(channels=dict(_WIDTHS), attention={})
        self._fingerprint = "meta" if self.device.type == "meta" else base_key(self)
        self.eval()

    @classmethod
    def from_pretrained(cls, model: str, settings: Any = None, *, revision: str | None = None) -> "ResNet18":
        file = Path(model) / _FILE
        if not file.is_file():
            raise EnvironmentSetupError(
                "there are no weights", where=file, fix="save torchvision's resnet18 there"
            )
        network = _network()
        network.load_state_dict(load_file(file))
        return cls(network, settings, str(model))

    @classmethod
    def on_meta(cls, model: str, settings: Any = None) -> "ResNet18":
        with torch.device("meta"):
            return cls(_network(), settings)

    def write_weights(self, folder: Path, dtype: torch.dtype) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = copy.deepcopy(self.network).to("cpu", dtype).state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, folder / _FILE)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def default_resolution(self) -> int:
        return 224

    def parts(self) -> Mapping[str, nn.Module]:
        return {"ResNet-18": self.network}

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
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

    def encode_image(self, pixels: Tensor, generator: Any = None) -> Tensor:
        return imagenet_normalize(pixels)

    def image_key(self) -> dict[str, Any]:
        return {}

    def pyramid_of(
        self, latents: Tensor, text: Tensor, size: tuple[int, int], *, attention: bool = True
    ) -> FeaturePyramid:
        net, (height, width) = self.network, size
        x = net.maxpool(net.relu(net.bn1(net.conv1(latents))))
        features = {}
        for stride, stage in zip(_WIDTHS, (net.layer1, net.layer2, net.layer3, net.layer4), strict=True):
            x = stage(x)
            features[stride] = x[..., : -(-height // stride), : -(-width // stride)]
        return FeaturePyramid(features=features, attention={})

    def train(self, mode: bool = True) -> "ResNet18":
        """Batch statistics stay those of pretraining, so that an image's features do not depend on its batch."""
        return super().train(False)

    def trainable(self, scope: Scope, *, rank: int = 8, prediction: bool = False) -> list[nn.Parameter]:
        if scope == "lora":
            raise UsageError("a ResNet has no attention for low-rank layers", fix="choose full or frozen")
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(scope == "full" and not name.startswith("fc."))
        return [p for p in self.network.parameters() if p.requires_grad]

    def fuse_lora(self) -> None:
        """There are no low-rank layers."""

    @contextmanager
    def gradient_checkpointing(self, on: bool = True) -> Iterator[None]:
        yield

    def reinitialize(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network.load_state_dict(_network().state_dict())
