"""Low-rank changes of a UNet in the diffusers format: read out of it, checked, and added to its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tadp_da.backbones.shared import low_rank
from tadp_da.errors import ArtifactError

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
_KEY = re.compile(r"unet\.(.+)\.lora\.(down|up)\.weight")


def tensors(unet: Any) -> dict[str, Tensor]:
    """The low-rank layers in the diffusers format (``unet.<module>.lora.down.weight``), on the CPU."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=low_rank.NAME))
    return {f"unet.{name}": value.detach().cpu().clone() for name, value in state.items()}


def pairs(lora: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """(down, up) by module of tensors in the diffusers format.

    Raises:
        ArtifactError: for another name, or half a pair.
    """
    sides: dict[str, dict[str, Tensor]] = {"down": {}, "up": {}}
    for key, value in lora.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise _refuse(f"unknown low-rank tensor {key!r}")
        sides[match[2]][match[1]] = value
    if odd := sides["down"].keys() ^ sides["up"].keys():
        raise _refuse(f"low-rank tensors of {min(odd)!r} are not a pair of down and up")
    return {module: (down, sides["up"][module]) for module, down in sides["down"].items()}


def require(unet: nn.Module, lora: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """:func:`pairs`, checked against the UNet.

    Raises:
        ArtifactError: also for a layer that this UNet does not have, shapes that do not fit, or numbers that are not
            finite.
    """
    layers = {name: m.weight for name, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    found = pairs(lora)
    for module, (down, up) in found.items():
        if module not in layers:
            raise _refuse(f"the UNet has no layer {module!r}")
        if not bool(down.isfinite().all() and up.isfinite().all()):
            raise _refuse(f"low-rank tensors of {module!r} hold numbers that are not finite")
        rows, columns = layers[module].flatten(1).shape
        fits = down.ndim > 1 < up.ndim and down[0].numel() == columns and up.shape[0] == rows
        if not fits or up[0].numel() != len(down):
            raise _refuse(
                f"low-rank tensors of {module!r} have shapes {tuple(down.shape)} and {tuple(up.shape)}, "
                f"the weight has {tuple(layers[module].shape)}"
            )
    return found


@torch.no_grad()
def load(unet: nn.Module, lora: Mapping[str, Tensor]) -> None:
    """Add the change that low-rank tensors in the diffusers format stand for to the weights.

    Raises:
        ArtifactError: see :func:`require`.
    """
    for module, (down, up) in require(unet, lora).items():
        weight: Any = unet.get_submodule(module).weight
        weight += (up.flatten(1) @ down.flatten(1)).reshape(weight.shape).to(weight)


def _refuse(what: str) -> ArtifactError:
    return ArtifactError(
        what,
        where="pytorch_lora_weights.safetensors",
        fix="use the concept with the backbone that it was learned on, or learn it again on this one",
    )
