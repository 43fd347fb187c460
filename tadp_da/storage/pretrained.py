"""Loading and saving models of diffusers and transformers: no pickle, no progress bars, no tensor left over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tadp_da.errors import ArtifactError
from tadp_da.storage.hub import weights_variant

READING = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)
"""What the libraries raise for files that are missing or corrupt."""
_UNQUANTIZED = "give the model in floats (fp32, fp16, bf16 or fp8): its original, before it was quantized"
#: Buffers that older versions of transformers wrote and newer ones compute.
_OBSOLETE = ("position_ids",)


def load_model(kind: Any, folder: Path, part: str) -> Any:
    """A model in fp32 and eval mode; weights in half precision are read where there are no others.

    Args:
        kind: its class in diffusers or transformers.
        folder: with ``config.json`` and safetensors weights.
        part: what to call it in messages.

    Raises:
        ArtifactError: when it cannot be read, its weights are quantized, or its tensors are not exactly those of its
            configuration.
    """
    import torch

    transformers = kind.__module__.startswith("transformers.")
    dtype, stem = ("dtype", "model") if transformers else ("torch_dtype", "diffusion_pytorch_model")
    options = {dtype: torch.float32, "use_safetensors": True, "output_loading_info": True}
    options["variant"] = weights_variant(folder, stem) or None
    try:
        require_unquantized(folder, stem)
        model, info = kind.from_pretrained(str(folder), **options)
    except READING as error:
        raise unreadable(folder, error) from error
    for key in ("missing", "unexpected", "mismatched"):
        names = [n for n in sorted(map(str, info.get(f"{key}_keys") or ())) if not n.endswith(_OBSOLETE)]
        if names:
            raise ArtifactError(
                f"{part} has {len(names)} {key} tensors, first {names[0]!r}",
                where=folder,
                fix="fetch the model again: its weights and its config.json do not belong together",
            )
    return aligned(model)


def require_unquantized(folder: Path, stem: str = "model") -> None:
    """Check the configuration and the weights of a model of diffusers or transformers.

    Raises:
        ArtifactError: for a quantized model.
        OSError, SafetensorError, ValueError: when a file cannot be read.
    """
    config = folder / "config.json"
    content = json.loads(config.read_bytes()) if config.exists() else {}
    if isinstance(content, dict) and content.get("quantization_config"):
        raise ArtifactError(
            "the model is quantized: it has a quantization_config", where=config, fix=_UNQUANTIZED
        )
    for file in folder.glob(f"{stem}*.safetensors"):
        require_floats(file)


def require_floats(file: Path) -> None:
    """Check that no weight of a file is stored as integers, which would be read as if they were the values.

    Raises:
        ArtifactError: for a quantized model.
    """
    with safe_open(file, "pt") as opened:
        for name in list(opened.keys()):
            kind = opened.get_slice(name).get_dtype()
            if name.endswith(("weight", "bias")) and not kind.startswith(("F", "BF")):
                raise ArtifactError(
                    f"the weights are quantized: {name!r} is of type {kind}",
                    where=file,
                    fix=_UNQUANTIZED,
                )


def aligned(model: Any) -> Any:
    """The model in eval mode with its tensors copied. Tensors of a mapped file are at whatever address its header
    leaves them, and kernels round differently on unaligned data: copies make the same weights compute the same bits,
    whichever file they came from."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model.eval()


def unreadable(where: Path, error: Exception) -> ArtifactError:
    """The error for a file that one of :data:`READING` was raised for."""
    first = str(error).splitlines()[0] if str(error) else ""
    return ArtifactError(
        f"cannot read a part of the model: {type(error).__name__}: {first}",
        where=where,
        fix="fetch the model again; only safetensors weights are read, never pickles (.bin, .ckpt)",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no log messages of the libraries inside; errors are raised anyway."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with ExitStack() as undo:
        for log in (diffusers_logging, transformers_logging):
            undo.callback(log.set_verbosity, log.get_verbosity())
            if log.is_progress_bar_enabled():
                undo.callback(log.enable_progress_bar)
            log.set_verbosity_error()
            log.disable_progress_bar()
        yield
