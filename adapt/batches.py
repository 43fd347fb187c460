"""Batches of stage 2: samples stacked, and what a model answers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Sample = dict[str, Any]


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Stack samples of one size; targets that are not tensors are listed."""

    def stack(key: str, values: list[Any]) -> Any:
        if key == "size":
            return values[0]
        return torch.stack(values) if isinstance(values[0], Tensor) else values

    return {key: stack(key, [sample[key] for sample in samples]) for key in samples[0]}


def raw_outputs(model: Any, batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Any:
    """Raw outputs of a perception model's head for a batch, from cached latents where it holds them.

    Args:
        model: the perception model.
        batch: ``text`` with ``latents`` and ``size``, or with ``pixels``.
        generators: for an autoencoder whose posterior is sampled, one per sample.
    """
    if "latents" in batch:
        return model.from_latents(batch["latents"], batch["text"], tuple(batch["size"]))
    return model(batch["pixels"], batch["text"], generators)
