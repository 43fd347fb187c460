"""Reading tensors from outside: safetensors only, because a pickle can run any code while it is read."""

from __future__ import annotations

import shlex
from pathlib import Path

from torch import Tensor

from tadp_da.errors import ArtifactError

_CONVERT = """import sys, torch, safetensors.torch as s
torch.serialization.add_safe_globals([torch.nn.ParameterDict])
d = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
d = d.get("string_to_param", d.get("state_dict", d))
s.save_file({k: v.detach().clone() for k, v in d.items() if torch.is_tensor(v)}, sys.argv[2])"""
"""Turns a pickle of tensors into safetensors, embeddings of AUTOMATIC1111 and checkpoints too."""
PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})


def refuse_pickle(path: Path, example: str = "learned_embeds.safetensors") -> None:
    """Refuse a pickle by its suffix, without reading it.

    Raises:
        ArtifactError: naming the kind of file to use instead (``example``), and how to convert.
    """
    if path.suffix.lower() in PICKLES:
        raise ArtifactError(
            f"{path.name} is a pickle, which can run any code when it is read",
            where=path,
            fix=f"use its .safetensors file (such as {example}), or convert the file with "
            + shlex.join(
                [
                    "python",
                    "-c",
                    _CONVERT.replace("\n", "; "),
                    str(path),
                    str(path.with_suffix(".safetensors")),
                ]
            ),
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; floats of 8 bits, which torch cannot compute with, as float32.

    Raises:
        ArtifactError: if it is a pickle, missing, truncated, damaged or empty, or a value is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_pickle(path)
    fix = "fetch or create the file again; only safetensors are read, never pickles"
    try:
        tensors = {
            k: v.float() if v.is_floating_point() and v.itemsize == 1 else v
            for k, v in load_file(path).items()
        }
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(f"cannot read tensors: {reason}", where=path, fix=fix) from error
    if not tensors:
        raise ArtifactError("the file holds no tensor", where=path, fix=fix)
    if wrong := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise ArtifactError(
            f"{len(wrong)} of {len(tensors)} tensors hold values that are not finite, first {wrong[0]!r}",
            where=path,
            fix="fetch it again; if training produced it, train again with a lower learning rate",
        )
    return tensors
