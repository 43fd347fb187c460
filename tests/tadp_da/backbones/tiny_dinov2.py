"""A DINOv2 of random weights, saved by the real library."""

from __future__ import annotations

from pathlib import Path

import torch


def save_tiny_dinov2(folder: Path, *, seed: int = 0, registers: int = 0, layers: int = 4) -> Path:
    """Write a DINOv2 of width 32 on patches of 14; with ``registers``, of the variant that has them."""
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    sizes = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4, "image_size": 56}
    sizes |= {"patch_size": 14}
    torch.manual_seed(seed)
    if registers:
        config = Dinov2WithRegistersConfig(**sizes, num_register_tokens=registers)
        model = Dinov2WithRegistersModel(config)
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    with torch.no_grad():  # at zero, as they are initialized, none of these would be seen
        for name, parameter in model.named_parameters():
            if name.endswith(("cls_token", "register_tokens", "bias")):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder
