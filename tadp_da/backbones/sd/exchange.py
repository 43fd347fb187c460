"""Concepts from and for other tools of Stable Diffusion: textual-inversion embeddings and LoRA files.

concept = import_concept(backbone, word="<dusk>", embedding=Path("dusk.safetensors"))
write_kohya(Concept.load(folder), Path("dusk-lora.safetensors"), alpha=1.0)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from tadp_da.backbones.sd import lora as _lora
from tadp_da.backbones.sd.lora_files import read_lora
from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.storage.tensors import read_tensors

_ANONYMOUS = ("emb_params", "*", "clip_l")
"""What AUTOMATIC1111 and ComfyUI call the only tensor of an embedding; its word is the name of the file there."""
_OTHER_MODELS = {"clip_g", "t5xxl"}


def import_concept(
    backbone: Any,
    *,
    word: str = "",
    embedding: Path | None = None,
    lora: Path | None = None,
    domain: str = "imported",
    unet_only: bool = False,
) -> Concept:
    """A concept of files that another tool has learned on this backbone's model.

    Args:
        backbone: a fresh backbone; the concept is loaded into it, which shows that it fits.
        word: how prompts name the concept; the embedding's own name by default. It selects one of several embeddings.
            With a LoRA alone: its trigger word, if it has one.
        embedding: safetensors file of learned rows.
        lora: safetensors file of low-rank UNet layers.
        domain: name for records.
        unet_only: leave out a LoRA's layers for the text encoder, which a concept does not have.

    Raises:
        UsageError: when there is no file, or the word is in the vocabulary already.
        ArtifactError: for a pickle, a damaged file, several embeddings without a choice, layers that this UNet does
            not have, or shapes that do not fit.
    """
    if embedding is None and lora is None:
        raise UsageError("there is nothing to import", fix="give an embedding, a LoRA, or both (safetensors)")
    rows = None
    if embedding is not None:
        word, rows = read_embedding(embedding, word)
    concept = Concept(
        word=word,
        domain=domain,
        backbone=backbone.fingerprint,
        method="imported",
        rows=rows,
        lora=read_lora(lora, backbone.unet, unet_only=unet_only) if lora is not None else {},
        settings={k: v.name for k, v in {"embedding": embedding, "lora": lora}.items() if v is not None},
    )
    backbone.load_concept(concept)
    return concept


def read_embedding(file: Path, word: str = "") -> tuple[str, Tensor]:
    """The word and the rows ``float32 (n, d)`` of an embedding file.

    Args:
        file: safetensors.
        word: the name of one of several embeddings; the only one is taken under any word.

    Raises:
        ArtifactError: when it cannot be read, is for another kind of model, holds several embeddings of which none is
            chosen, or its tensor is not rows.
        UsageError: when the file does not say the word and none is given.
    """
    tensors = read_tensors(file)
    if _OTHER_MODELS & tensors.keys():
        parts = ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in sorted(tensors))
        raise ArtifactError(
            f"this is an embedding for Stable Diffusion XL or 3, with rows for each text encoder: {parts}",
            where=file,
            fix="give an embedding of Stable Diffusion 1.x or 2.x",
        )
    name = word if word in tensors else next(iter(tensors))
    if len(tensors) > 1 and name != word:
        raise ArtifactError(
            f"the file holds {len(tensors)} embeddings: {', '.join(sorted(tensors)[:9])}"
            + (f"; none is {word!r}" if word else ""),
            where=file,
            fix=f"say which one: --word {sorted(tensors)[0]!r}",
        )
    word = word or ("" if name in _ANONYMOUS else name)
    if not word:
        raise UsageError(
            "the embedding does not say its word", where=file, fix=f"choose one: --word '<{file.stem}>'"
        )
    rows = tensors[name]
    if rows.ndim not in (1, 2) or not rows.numel() or not rows.is_floating_point():
        raise ArtifactError(
            f"{name!r} has shape {tuple(rows.shape)} and type {rows.dtype}, expected rows (n, d) of floats",
            where=file,
            fix="give a file of textual inversion for Stable Diffusion 1.x or 2.x",
        )
    return word, rows.float().reshape(-1, rows.shape[-1])


def write_kohya(concept: Concept, file: Path, *, alpha: float | None = None) -> None:
    """Write a concept's low-rank layers as kohya's scripts, AUTOMATIC1111 and ComfyUI read them.

    Args:
        concept: of DreamBooth with ``mode: lora``.
        file: the safetensors file.
        alpha: stored with each layer; the layer's rank when None. The change that is loaded is the same for all.

    Raises:
        UsageError: when the concept has no low-rank layers, or alpha is not above zero.
    """
    from safetensors.torch import save_file

    if not concept.lora:
        raise UsageError(
            f"the concept {concept.word!r} has no low-rank layers to write",
            fix="learn it with DreamBooth and --set mode=lora; a learned word is learned_embeds.safetensors already",
        )
    if alpha is not None and not 0 < alpha < float("inf"):
        raise UsageError(f"alpha is {alpha}", where="--alpha", fix="give a number above zero")
    found: dict[str, Tensor] = {}
    for module, (down, up) in _lora.pairs(concept.lora).items():
        name, rank = "lora_unet_" + module.replace(".", "_"), len(down)
        found[f"{name}.lora_down.weight"] = down
        found[f"{name}.lora_up.weight"] = up * (rank / (alpha or rank))
        found[f"{name}.alpha"] = down.new_tensor(alpha or rank)
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in found.items()}
    save_file(tensors, file, metadata={"format": "pt", "ss_network_module": "networks.lora"})
