"""Batches of stage 2, and the outputs of a model for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Sample = dict[str, Any]


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Stack samples of one size; targets that are not tensors become a list."""
    batch: dict[str, Any] = {key: [sample[key] for sample in samples] for key in samples[0]}
    stacked = {key: torch.stack(some) for key, some in batch.items() if isinstance(some[0], Tensor)}
    return batch | stacked | {"size": samples[0]["size"]}


def raw_outputs(model: Any, batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Any:
    """Raw outputs of a perception model's head.

    Args:
        model: the perception model.
        batch: ``text`` with cached ``latents`` and ``size``, or with ``pixels``.
        generators: for an autoencoder whose posterior is sampled, one per sample.
    """
    if "latents" in batch:
        return model.from_latents(batch["latents"], batch["text"], tuple(batch["size"]))
    return model(batch["pixels"], batch["text"], generators)
