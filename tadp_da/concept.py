"""Concept: what stage 1 learned of a target domain. One type for textual inversion and DreamBooth.

On disk a concept is a folder that plain diffusers opens: ``learned_embeds.safetensors``
(``load_textual_inversion``), ``pytorch_lora_weights.safetensors`` (``load_lora_weights``), a folder with the weights of
the part that was trained (``from_pretrained`` of its class), and ``concept.json``, which says what it is and which
backbone it belongs to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tadp_da.errors import ArtifactError
from tadp_da.storage.tensors import read_tensors

ROWS, LORA = "learned_embeds.safetensors", "pytorch_lora_weights.safetensors"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Concept:
    """What was learned, and on what.

    Attributes:
        word: how the concept stands in a prompt; the first placeholder token for learned rows, the rare
            token for DreamBooth, empty when nothing was learned.
        domain: name of the domain whose images it was learned from.
        backbone: fingerprint of the base it was learned on.
        method: which personalizer made it, for records only: no code asks for it.
        rows: new token-embedding rows ``(vectors, d)`` of ``word``, or None.
        weights: tensors that replace those of one part of the base, by their names in that part's state dict.
        part: which part; its folder in the diffusers format, such as ``"unet"``. Empty without ``weights``.
        part_config: its configuration.
        lora: low-rank tensors in the diffusers format (``<part>.<module>.lora.down.weight``).
        settings: the personalizer's settings, for records.
        folder: where it was loaded from.
    """

    word: str
    domain: str
    backbone: str
    method: str
    rows: Tensor | None = None
    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    part: str = ""
    part_config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    lora: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)

    @property
    def is_empty(self) -> bool:
        """Whether it changes neither prompts nor weights."""
        return not (self.word or self.weights or self.lora)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Placeholder tokens of the learned rows."""
        return token_names(self.word, 0 if self.rows is None else self.rows.shape[0])

    @property
    def prompt_word(self) -> str | None:
        """What a prompt must hold for the whole concept to be named: every placeholder token, or the rare
        token; None for none."""
        return " ".join(self.tokens) or self.word or None

    @property
    def prompt_advice(self) -> str:
        """What to write in prompts to name the concept, here and in plain diffusers."""
        if len(self.tokens) < 2:
            return f"its word in prompts is {self.prompt_word}" if self.prompt_word else "it has no word"
        return (
            f"in prompts of tadp-da write {self.prompt_word}; in plain diffusers, after load_textual_inversion, write "
            f"{self.word} alone, which diffusers expands"
        )

    @property
    def fingerprint(self) -> str:
        """blake2b over word, base and every tensor: equal exactly when installing gives the same model."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([self.word, self.backbone]).encode())
        tensors = {**self.weights, **self.lora} | ({} if self.rows is None else {"rows": self.rows})
        digest_tensors(digest, tensors)
        return digest.hexdigest()

    def only_word(self) -> Concept:
        """The word without the weights (an ablation): what is said changes, the network does not."""
        return dataclasses.replace(self, weights={}, part="", part_config={}, lora={})

    def only_weights(self) -> Concept:
        """The weights without the word (an ablation): the network changes, what is said does not."""
        return dataclasses.replace(self, word="", rows=None)

    def save(self, folder: Path) -> None:
        """Write the folder; ``concept.json`` last."""
        from safetensors.torch import save_file

        rows = {} if self.rows is None else {self.word: self.rows}
        files = {folder / ROWS: rows, folder / LORA: self.lora, folder / self.part / WEIGHTS: self.weights}
        for file, tensors in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            if tensors:
                plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
                save_file(plain, file, metadata={"format": "pt"})
        if self.weights:
            config = json.dumps(dict(self.part_config), indent=2)
            (folder / self.part / "config.json").write_text(config, encoding="utf-8")
        facts = {k: getattr(self, k) for k in ("word", "domain", "backbone", "method")}
        facts |= {"settings": dict(self.settings), "fingerprint": self.fingerprint}
        (folder / "concept.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Concept:
        """Read a folder written by :meth:`save`.

        Raises:
            ArtifactError: when it is not a concept, or its tensors are not those that were saved.
        """
        try:
            facts = json.loads((folder / "concept.json").read_text(encoding="utf-8"))
            kept = {k: facts[k] for k in ("word", "domain", "backbone", "method", "settings")}
            known = facts["fingerprint"]
            rows = read_tensors(folder / ROWS)[facts["word"]] if (folder / ROWS).exists() else None
            lora = read_tensors(folder / LORA) if (folder / LORA).exists() else {}
            for file in folder.glob(f"*/{WEIGHTS}"):  # at most one
                kept |= {"weights": read_tensors(file), "part": file.parent.name}
                kept["part_config"] = json.loads((file.parent / "config.json").read_text(encoding="utf-8"))
        except (OSError, KeyError, TypeError, ValueError, RecursionError, ArtifactError) as error:
            reason = error.what if isinstance(error, ArtifactError) else repr(error)
            raise ArtifactError(
                f"not a readable concept: {reason}",
                where=error.where if isinstance(error, ArtifactError) else folder,
                fix="make it again: tadp-da personalize --help",
            ) from error
        concept = cls(rows=rows, lora=lora, folder=folder, **kept)
        if concept.fingerprint != known:
            raise ArtifactError(
                "the concept's tensors are not those that were saved",
                where=folder,
                fix="delete the folder and make it again: tadp-da personalize --help",
            )
        return concept


def token_names(word: str, vectors: int) -> tuple[str, ...]:
    """``word``, ``word_1``, ...: the placeholder tokens of a word of several vectors, as diffusers names them."""
    return tuple(word if i == 0 else f"{word}_{i}" for i in range(vectors))


def digest_tensors(digest: Any, tensors: Mapping[str, Tensor]) -> None:
    """Feed names, shapes, types and bytes of the tensors, sorted by name, to a hashlib digest."""
    import torch

    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
