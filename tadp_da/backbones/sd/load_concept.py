"""Loading a concept into a Stable Diffusion: everything is checked before anything changes."""

from __future__ import annotations

from typing import Any

from torch import nn

from tadp_da.backbones.sd import lora as _lora
from tadp_da.backbones.sd import words as _words
from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError


def load_concept(concept: Concept, base: str, unet: Any, tokenizer: Any, text_encoder: Any) -> None:
    """Load rows, weights and low-rank weights of ``concept``.

    Raises:
        ArtifactError: when the concept was made on another base than ``base``, or a tensor does not fit.
        UsageError: when its word is in the vocabulary already.
    """
    if concept.rows is not None:
        _words.require_rows(text_encoder, concept.rows)  # first: it can name both models
    if concept.backbone != base:
        raise ArtifactError(
            f"the concept {concept.word!r} was learned on backbone {concept.backbone}, this one is {base}",
            where="concept.json: backbone",
            fix="load the model that the concept was learned on, or learn it again on this one",
        )
    for token in concept.tokens:
        _words.require_new(tokenizer, token)
    _lora.require(unet, concept.lora)
    if concept.weights:
        _require_weights(unet, concept)
        unet.load_state_dict(dict(concept.weights), strict=True)
    if concept.rows is not None:
        _words.add(tokenizer, text_encoder, concept.tokens, concept.rows)
    _lora.load(unet, concept.lora)


def _require_weights(unet: nn.Module, concept: Concept) -> None:
    own = unet.state_dict()
    faults = [f"missing tensor {name!r}" for name in own.keys() - concept.weights.keys()]
    faults += [f"unknown tensor {name!r}" for name in concept.weights.keys() - own.keys()]
    for name, value in concept.weights.items():
        if name in own and value.shape != own[name].shape:
            faults.append(f"{name!r} has shape {tuple(value.shape)}, expected {tuple(own[name].shape)}")
        elif not bool(value.isfinite().all()):
            faults.append(f"{name!r} holds numbers that are not finite")
    if faults:
        raise ArtifactError(
            f"the concept's UNet weights do not fit: {sorted(faults)[0]} ({len(faults)} in all)",
            where=f"concept {concept.word!r}: unet/",
            fix="use the concept with the backbone that it was learned on, or learn it again on this one",
        )
