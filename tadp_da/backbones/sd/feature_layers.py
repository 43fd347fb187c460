"""Which layers of a UNet give the feature and the attention maps of each stride."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from tadp_da.errors import ArtifactError

_BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}


@dataclass(frozen=True)
class FeatureLayer:
    """One level of the pyramid.

    Attributes:
        stride: pixels per cell.
        channels: width of the feature.
        feature: name of the layer whose output is the feature.
        maps: names of the cross-attention layers whose probabilities are averaged.
    """

    stride: int
    channels: int
    feature: str
    maps: tuple[str, ...]


def feature_layers(unet: Any, factor: int) -> list[FeatureLayer]:
    """Feature layers of a UNet shaped like Stable Diffusion 1.x or 2.x on latents of ``factor`` pixels per cell, finest
    first.

    Features are those of the original UNet's output blocks 1, 4, 7 and 11 (TADP, section 3.1): the last layer before
    the one that ends in an upsampler, and at the finest level the last layer. Maps come from the down and up blocks of
    the same level; the middle block and the finest level give none, as in the authors' code.

    Raises:
        ArtifactError: for a UNet of another shape.
    """
    config = unet.config
    names = [*config.down_block_types, *config.up_block_types]
    if unknown := [name for name in names if name not in _BLOCKS]:
        raise ArtifactError(
            f"the UNet has blocks of type {unknown[0]}, which Stable Diffusion 1.x and 2.x do not have",
            where="unet/config.json",
            fix=f"use a pipeline whose UNet is made of {', '.join(sorted(_BLOCKS))}",
        )
    levels = len(unet.up_blocks)
    found = []
    for level in range(levels):
        up = levels - 1 - level
        block = unet.up_blocks[up]
        layer = max(len(block.resnets) - (1 if level == 0 else 2), 0)
        kind = "attentions" if hasattr(block, "attentions") else "resnets"
        maps = _cross_attention(unet, (f"down_blocks.{level}", f"up_blocks.{up}")) if level else ()
        found.append(
            FeatureLayer(
                stride=factor << level,
                channels=config.block_out_channels[level],
                feature=f"up_blocks.{up}.{kind}.{layer}",
                maps=maps,
            )
        )
    return found


def _cross_attention(unet: nn.Module, blocks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        name
        for block in blocks
        for name, _ in unet.named_modules()
        if name.startswith(f"{block}.") and name.endswith(".attn2")
    )
