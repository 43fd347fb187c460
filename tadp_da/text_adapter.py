"""The text adapter of VPD (Zhao et al., ICCV 2023): a small residual network on text embeddings, trained with the head.

It is a part of the head's module, so that it is trained, averaged, checkpointed and saved with it. TADP finds that it
brings nothing where prompts are captions (table 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_NAME, _START = "text_adapter", 1e-4


class TextAdapter(nn.Module):
    """``text + gamma * mlp(text)`` for text ``(b, t, d)``; gamma, one per channel, starts at 1e-4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gamma = nn.Parameter(torch.full((width,), _START))

    def forward(self, text: Tensor) -> Tensor:
        """The adapted text, of the same shape."""
        found: Tensor = text + self.gamma * self.mlp(text)
        return found


def add(head: nn.Module, width: int) -> None:
    """Give a head a text adapter for embeddings of ``width`` channels."""
    head.add_module(_NAME, TextAdapter(width))


def adapted(head: Any, text: Tensor) -> Tensor:
    """Text as the backbone is to read it: through the head's adapter, if it has one."""
    adapter = getattr(head, _NAME, None)
    return text if adapter is None else adapter(text)
