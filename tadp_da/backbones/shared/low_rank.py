"""Low-rank layers (LoRA) beside a network's linear layers, through peft."""

from __future__ import annotations

from typing import Any

from torch import nn

from tadp_da.errors import UsageError

NAME = "tadp"
"""Of the adapter in peft."""


def add(network: Any, targets: list[str], rank: int) -> list[nn.Parameter]:
    """Put untrained low-rank layers of scale one beside the layers whose names end in ``targets``; only they train.

    Raises:
        UsageError: when the network has some already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if getattr(network, "peft_config", None):
        raise UsageError(
            "the network has low-rank layers already",
            where="backbone",
            fix="call fuse_lora() first, or load it again",
        )
    network.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights="gaussian")
    inject_adapter_in_model(config, network, adapter_name=NAME)
    return [p for p in network.parameters() if p.requires_grad]


def fuse(network: nn.Module) -> None:
    """Add the low-rank change to the weights and take the layers out."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(network.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            network.set_submodule(name, layer.get_base_layer())
    network.__dict__.pop("peft_config", None)
