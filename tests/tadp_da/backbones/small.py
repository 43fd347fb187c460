"""Networks of students with random weights, saved by the real libraries."""

from __future__ import annotations

from pathlib import Path

import torch


def save_tiny_segformer(folder: Path) -> Path:
    """Write a SegFormer encoder of four narrow stages."""
    from transformers import SegformerConfig, SegformerModel

    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 16, 16, 16], "num_attention_heads": [1, 2, 2, 2], "depths": [1, 1, 1, 1]}
    SegformerModel(SegformerConfig(**sizes)).save_pretrained(folder)
    return folder


def save_mobilenet(folder: Path) -> Path:
    """Write torchvision's network with batch norm, whose statistics are those of no data."""
    from safetensors.torch import save_file
    from torchvision.models import mobilenet_v3_large

    torch.manual_seed(0)
    state = mobilenet_v3_large(weights=None).state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
    folder.mkdir(parents=True)
    save_file(state, folder / "mobilenet_v3_large.safetensors")
    return folder
