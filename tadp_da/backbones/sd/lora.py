"""Low-rank changes of a UNet through peft: adding them for training, reading them out, fusing them into the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tadp_da.errors import ArtifactError, UsageError

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
_SIDES = {".lora.down.weight": 0, ".lora_A.weight": 0, ".lora.up.weight": 1, ".lora_B.weight": 1}
_NAME = "tadp"


def add(unet: Any, rank: int) -> list[nn.Parameter]:
    """Put untrained low-rank layers beside every attention projection; only they train. Their scale is one."""
    from peft import LoraConfig

    if getattr(unet, "peft_config", None):
        raise UsageError(
            "the UNet has low-rank layers already",
            where="backbone",
            fix="call fuse_lora() first, or load it afresh",
        )
    unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, init_lora_weights="gaussian")
    unet.add_adapter(config, adapter_name=_NAME)
    return [p for p in unet.parameters() if p.requires_grad]


def tensors(unet: Any) -> dict[str, Tensor]:
    """The low-rank layers in the diffusers format (``unet.<module>.lora.down.weight``), on the CPU."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=_NAME))
    return {f"unet.{name}": value.detach().cpu().clone() for name, value in state.items()}


def fuse(unet: Any) -> None:
    """Add the low-rank change to the weights and take the layers out."""
    unet.fuse_lora()
    unet.unload_lora()


def require(unet: nn.Module, lora: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """Pairs (down, up) by module, checked against the UNet.

    Raises:
        ArtifactError: for a name that does not belong to this UNet, half a pair, shapes that do not fit, or
            numbers that are not finite.
    """
    pairs: dict[str, dict[int, Tensor]] = {}
    for key, value in lora.items():
        suffix = next((s for s in _SIDES if key.endswith(s)), None)
        module = key.removeprefix("unet.").removesuffix(suffix or "")
        if suffix is None or not key.startswith("unet.") or not _has(unet, module):
            raise _refuse(f"unknown low-rank tensor {key!r}")
        if not bool(value.isfinite().all()):
            raise _refuse(f"low-rank tensor {key!r} holds numbers that are not finite")
        pairs.setdefault(module, {})[_SIDES[suffix]] = value
    for module, pair in pairs.items():
        weight: Any = unet.get_submodule(module).weight
        if len(pair) != 2:
            raise _refuse(f"low-rank tensors of {module!r} are not a pair of down and up")
        down, up = pair[0], pair[1]
        if (up.shape[0], down.shape[1]) != tuple(weight.shape[:2]) or up.shape[1] != down.shape[0]:
            raise _refuse(
                f"low-rank tensors of {module!r} have shapes {tuple(down.shape)} and {tuple(up.shape)}, "
                f"the weight has {tuple(weight.shape)}"
            )
    return {module: [pair[0], pair[1]] for module, pair in pairs.items()}


def load(unet: Any, lora: Mapping[str, Tensor]) -> None:
    """Fuse low-rank tensors in the diffusers format into the weights; no adapter stays behind.

    Raises:
        ArtifactError: see :func:`require`; also when a tensor turns out to have had no effect.
    """
    pairs = require(unet, lora)
    before = {module: unet.get_submodule(module).weight.detach().clone() for module in pairs}
    trainable = {name: p.requires_grad for name, p in unet.named_parameters()}
    unet.load_lora_adapter(dict(lora), prefix="unet", adapter_name=_NAME)
    fuse(unet)
    for name, parameter in unet.named_parameters():  # peft freezes what it wraps
        parameter.requires_grad_(trainable[name])
    for module, (down, up) in pairs.items():
        expected = bool(up.count_nonzero()) and bool(down.count_nonzero())
        if expected and torch.equal(before[module], unet.get_submodule(module).weight):
            raise _refuse(f"low-rank tensors of {module!r} changed nothing")


def _has(unet: nn.Module, module: str) -> bool:
    try:
        return isinstance(unet.get_submodule(module), nn.Linear | nn.Conv2d)
    except AttributeError:
        return False


def _refuse(what: str) -> ArtifactError:
    return ArtifactError(
        what,
        where="pytorch_lora_weights.safetensors",
        fix="use the concept with the backbone that it was learned on, or learn it again on this one",
    )
