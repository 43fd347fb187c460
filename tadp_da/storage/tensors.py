"""Reading tensors from outside: safetensors only, because a pickle can run any code while it is read."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tadp_da.errors import ArtifactError

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
            fix=f"use its .safetensors file (such as {example}), or convert the file if you trust it: "
            "safetensors.torch.save_file of the tensors in torch.load(FILE, weights_only=True)",
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        ArtifactError: if it is a pickle, missing, truncated, damaged or empty, or a value is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_pickle(path)
    fix = "fetch or create the file again; only safetensors are read, never pickles"
    try:
        tensors: dict[str, Tensor] = load_file(path)
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
