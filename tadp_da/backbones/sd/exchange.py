"""Concepts from and for other tools of Stable Diffusion: textual-inversion embeddings, and LoRA files of diffusers,
peft and kohya.

    concept = import_concept(backbone, word="<dusk>", embedding=Path("dusk.safetensors"))
    write_kohya(Concept.load(folder), Path("dusk-lora.safetensors"), alpha=1.0)

A low-rank change is ``scale * up @ down``. diffusers files have no scale of their own; kohya's have
``scale = alpha / rank`` with ``alpha`` stored per layer. It is folded into ``up`` when such a file is read, and out of
it when one is written, so that the change is the same for every ``alpha``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.storage.tensors import read_tensors

_ANONYMOUS = "emb_params"
"""What AUTOMATIC1111's embeddings call their only tensor."""
_KOHYA = "lora_unet_"
_SIDES = {
    ".lora.down.weight": "down",
    ".lora_A.weight": "down",
    ".lora_down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_B.weight": "up",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
}


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
        word: how prompts name the concept. With an embedding: which of the file's, where it holds several or none has a
            name. With a LoRA alone: its trigger word, if it has one.
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
        settings={k: str(v) for k, v in {"embedding": embedding, "lora": lora}.items() if v is not None},
    )
    backbone.load_concept(concept)
    return concept


def read_embedding(file: Path, word: str = "") -> tuple[str, Tensor]:
    """The word and the rows ``float32 (n, d)`` of an embedding file.

    Raises:
        ArtifactError: when it cannot be read, holds several embeddings and none is chosen, or no such one, or its
            tensor is not rows.
        UsageError: when the file does not say the word and none is given.
    """
    tensors = read_tensors(file)
    names = list(tensors)
    if names == [_ANONYMOUS]:
        if not word:
            raise UsageError(
                "the embedding does not say its word", where=file, fix="choose one: --word '<dusk>'"
            )
        name = _ANONYMOUS
    elif word in tensors or (not word and len(names) == 1):
        name = word or names[0]
    else:
        raise ArtifactError(
            f"the file holds {len(names)} embeddings: {', '.join(sorted(names)[:9])}"
            + (f"; none is {word!r}" if word else ""),
            where=file,
            fix=f"say which one: --word {sorted(names)[0]!r}",
        )
    rows = tensors[name].float()
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.numel():
        raise ArtifactError(
            f"{name!r} has shape {tuple(tensors[name].shape)}, expected rows (n, d)",
            where=file,
            fix="give a file of textual inversion for Stable Diffusion 1.x or 2.x",
        )
    return word or name, rows


def read_lora(file: Path, unet: nn.Module, *, unet_only: bool = False) -> dict[str, Tensor]:
    """Low-rank layers in the diffusers format (``unet.<module>.lora.down.weight``), every scale folded into ``up``.

    Raises:
        ArtifactError: for a file that cannot be read, a layer that this UNet does not have, layers of the text encoder
            without ``unet_only``, or half a pair.
    """
    modules = {name.replace(".", "_"): name for name, _ in unet.named_modules()}
    layers: dict[str, dict[str, Tensor]] = {}
    foreign: list[str] = []
    for key, value in read_tensors(file).items():
        suffix = next((s for s in _SIDES if key.endswith(s)), "")
        layer = key.removesuffix(suffix)
        if layer.startswith(("lora_te", "text_encoder")):
            foreign.append(key)
            continue
        module = modules.get(layer.removeprefix(_KOHYA).removeprefix("unet.").replace(".", "_"))
        if not suffix or module is None:
            raise _strange(file, f"this UNet has no low-rank layer {key!r}")
        layers.setdefault(module, {})[_SIDES[suffix]] = value.float()
    if foreign and not unet_only:
        raise ArtifactError(
            f"the file changes the text encoder too ({len(foreign)} tensors, first {foreign[0]!r}), "
            "which a concept does not",
            where=file,
            fix="take the UNet's part alone: --unet-only; prompts are then encoded differently from the tool that it "
            "was learned with",
        )
    if incomplete := [name for name, parts in layers.items() if not {"down", "up"} <= parts.keys()]:
        raise _strange(file, f"{incomplete[0]!r} has no pair of down and up")
    if not layers:
        raise _strange(file, "it holds no low-rank layer of a UNet")
    return dict(_plain(layers))


def _plain(layers: Mapping[str, Mapping[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    for name, parts in layers.items():
        rank = parts["down"].shape[0]
        scale = float(parts["alpha"]) / rank if "alpha" in parts else 1.0
        yield f"unet.{name}.lora.down.weight", parts["down"]
        yield f"unet.{name}.lora.up.weight", parts["up"] * scale


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
    for key, value in concept.lora.items():
        suffix = next(s for s in _SIDES if key.endswith(s))
        name = _KOHYA + key.removeprefix("unet.").removesuffix(suffix).replace(".", "_")
        if _SIDES[suffix] == "down":
            rank = value.shape[0]
            found[f"{name}.lora_down.weight"] = value
            found[f"{name}.alpha"] = value.new_tensor(alpha or rank)
        else:
            rank = value.shape[1]
            found[f"{name}.lora_up.weight"] = value * (rank / (alpha or rank))
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in found.items()}
    save_file(tensors, file, metadata={"format": "pt", "ss_network_module": "networks.lora"})


def _strange(file: Path, what: str) -> ArtifactError:
    return ArtifactError(
        what, where=file, fix="give a LoRA of the UNet of this model (Stable Diffusion 1.x or 2.x)"
    )
