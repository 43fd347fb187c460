"""The encoder of SegFormer, Mix Transformer (Xie et al., NeurIPS 2021), of transformers: a small network for students,
without text."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tadp_da.backbones import BackboneSettings, backbones
from tadp_da.backbones.shared.textless import Pixelwise
from tadp_da.errors import ArtifactError
from tadp_da.storage.hub import SEGFORMER, Files, has_weights, locate
from tadp_da.storage.pretrained import load_model, quiet

_FILES = Files(
    marker="config.json",
    wanted=["*.json", "*.safetensors"],
    unwanted=["*/*"],
    complete=lambda folder: (folder / "config.json").exists() and has_weights(folder),
    option="--weights",
)
RANDOM = "random"
_CLASSES = ("SegformerModel", "SegformerForImageClassification", "SegformerForSemanticSegmentation")


@backbones.add("segformer")
class Segformer(Pixelwise):
    """Features of the four stages, at strides 4, 8, 16 and 32. ``model`` is ``mit-b0``, another Mix Transformer's
    folder or hub id, or ``random``: the smallest, B0, with weights drawn anew."""

    Settings = BackboneSettings

    def __init__(self, network: Any, settings: Any = None, origin: str | None = None) -> None:
        channels = {4 << i: width for i, width in enumerate(network.config.hidden_sizes)}
        super().__init__(network, channels, settings, origin)

    @classmethod
    def from_pretrained(cls, model: str, settings: Any = None, *, revision: str | None = None) -> Segformer:
        if model == RANDOM:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return cls(_new(), settings)
        found = locate(model, _FILES, SEGFORMER, "a folder with a SegFormer of transformers", revision)
        kind = _kind(found.path)
        with quiet():
            loaded = load_model(kind, found.path, "SegFormer")
        return cls(getattr(loaded, "segformer", loaded), settings, found.origin)

    @classmethod
    def on_meta(cls, model: str, settings: Any = None) -> Segformer:
        if model == RANDOM:
            with torch.device("meta"):
                return cls(_new(), settings)
        found = locate(model, _FILES, SEGFORMER, "a SegFormer configuration", local_only=True)
        kind = _kind(found.path)
        with torch.device("meta"):
            built = kind(kind.config_class.from_pretrained(str(found.path)))
        return cls(getattr(built, "segformer", built), settings)

    def write_weights(self, folder: Path, dtype: torch.dtype) -> None:
        """Write a transformers model folder."""
        same = self.network.dtype == dtype
        with quiet():
            (self.network if same else copy.deepcopy(self.network).to(dtype)).save_pretrained(folder)

    def parts(self) -> Mapping[str, nn.Module]:
        return {"SegFormer": self.network}

    def stages(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        for stride, stage in zip(self.spec.channels, self.network.stages, strict=True):
            x = stage(x)
            yield stride, x

    def low_rank_layers(self) -> list[str]:
        """The attention projections."""
        return ["q_proj", "k_proj", "v_proj", "o_proj"]

    def fresh(self) -> nn.Module:
        network: nn.Module = type(self.network)(self.network.config)
        return network


def _new() -> Any:
    from transformers import SegformerConfig, SegformerModel

    return SegformerModel(SegformerConfig())


def _kind(folder: Path) -> Any:
    """The class that a folder's configuration names.

    Raises:
        ArtifactError: when it is not a SegFormer.
    """
    import transformers

    file = folder / "config.json"
    try:
        (name, *_) = json.loads(file.read_text(encoding="utf-8"))["architectures"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"not a readable model configuration: {error!r}", where=file, fix="fetch the model again"
        ) from None
    if name not in _CLASSES:
        raise ArtifactError(
            f"the model is a {name}, expected {' or '.join(_CLASSES)}",
            where=file,
            fix="use a SegFormer of transformers, such as nvidia/mit-b0",
        )
    return getattr(transformers, name)
