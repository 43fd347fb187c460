"""The files of a perception model: writing them so that the last one completes the folder, reading them with care."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from tadp_da.backbones import backbones
from tadp_da.errors import ArtifactError, TadpError, UsageError
from tadp_da.storage.files import file_digest, write_json

T = TypeVar("T")
FORMAT = 2
FACTS, HEAD, BACKBONE = "model.json", "head.safetensors", "backbone"
MODELS = "models.json"
"""In the folder of a table: which model belongs to which row and seed."""
_FIX = "train it again: tadp-da adapt --help"


def parse(kind: type[T], value: Any) -> T:
    """Back from JSON values."""
    return TypeAdapter(kind).validate_python(value)


def write(folder: Path, backbone: Any, head: nn.Module, facts: Mapping[str, Any], dtype: str) -> None:
    """Write backbone, head and facts; ``model.json`` names every file with its digest and comes last."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).unlink(missing_ok=True)
    stored = getattr(torch, dtype)
    backbone.save(folder / BACKBONE, dtype=stored)
    tensors = {k: v.detach().to("cpu", stored).contiguous() for k, v in head.state_dict().items()}
    save_file(tensors, folder / HEAD, metadata={"format": "pt"})
    written = [folder / HEAD, *sorted(p for p in (folder / BACKBONE).rglob("*") if p.is_file())]
    known = {"format": FORMAT, "dtype": dtype, **facts}
    known["backbone"] = next(name for name in backbones if backbones[name] is type(backbone))
    known["files"] = {p.relative_to(folder).as_posix(): file_digest(p) for p in written}
    write_json(folder / FACTS, known)


def read(folder: Path) -> dict[str, Any]:
    """The facts of a whole, unchanged folder.

    Raises:
        UsageError: for a run folder, with the models in it.
        ArtifactError: when ``model.json`` is missing or of another format, or a file is not what it was.
    """
    if not (folder / FACTS).exists() and (models := _models_in(folder)):
        raise UsageError(
            "this is a run folder, which holds models",
            where=folder,
            fix=f"name one of them: {'; '.join(models)}",
        )
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        made, known = facts["format"], dict(facts["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"not a perception model: {error!r}", where=folder / FACTS, fix=_FIX) from error
    if made != FORMAT:
        raise ArtifactError(
            f"model format {made}, this version reads {FORMAT}",
            where=folder,
            fix="install the version that wrote it",
        )
    for name, digest in known.items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise ArtifactError("a file is missing or not what was saved", where=folder / name, fix=_FIX)
    return facts


def _models_in(folder: Path) -> list[str]:
    """Row, seed and folder of the models in a run folder, as its tables note them."""
    found: dict[str, None] = {}
    # the demo's report has a folder of its own
    for path in sorted([*folder.glob(f"tables/*/{MODELS}"), *folder.glob(f"*/{MODELS}")]):
        with suppress(OSError, ValueError, AttributeError):
            for row, models in json.loads(path.read_text(encoding="utf-8")).items():
                found |= {f"{row}, seed {seed}: {folder / name}": None for seed, name in models.items()}
    return list(found)


def load_backbone(folder: Path, name: str) -> Any:
    """The backbone of that registry name."""
    return backbones[name].load(folder / BACKBONE)


def load_head(folder: Path) -> dict[str, Tensor]:
    """The head's tensors as ``float32``."""
    from safetensors.torch import load_file

    return {k: v.float() for k, v in load_file(folder / HEAD).items()}


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what goes wrong with the contents of an unchanged folder into an error that says where."""
    from safetensors import SafetensorError

    try:
        yield
    except ArtifactError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        ValidationError,
        SafetensorError,
        TadpError,
    ) as error:
        raise ArtifactError(
            f"the model cannot be put together: {str(error).splitlines()[0]}", where=folder, fix=_FIX
        ) from error
