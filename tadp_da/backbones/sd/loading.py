"""Reading the parts of a diffusers pipeline, one by one: no pickle, no safety checker, nothing left over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tadp_da.backbones.sd import single_file as _single_file
from tadp_da.errors import ArtifactError

#: Classes that each part of a Stable Diffusion pipeline may be of; None for any scheduler of diffusers.
_ALLOWED: Mapping[str, tuple[str, ...] | None] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": None,
}
#: Buffers that older versions of transformers wrote and newer ones compute.
_OBSOLETE = ("position_ids",)


def load_parts(path: Path) -> dict[str, Any]:
    """``unet``, ``vae``, ``text_encoder``, ``tokenizer`` and ``scheduler``, weights in fp32.

    Args:
        path: a pipeline folder, or an original single-file checkpoint in safetensors.

    Raises:
        ArtifactError: when a part is missing, of another kind, corrupt, or when its tensors are not exactly
            those of its configuration.
        EnvironmentSetupError: when the configuration of a single-file checkpoint cannot be found.
    """
    with quiet():
        folder = _single_file.configuration(path) if path.is_file() else path
        classes = _classes(folder)
        parts = _convert(path, folder, classes) if path.is_file() else {}
        parts |= {name: _load(folder, name, kind) for name, kind in classes.items() if name not in parts}
    _check_fit(parts, path)
    return parts


def _convert(file: Path, folder: Path, classes: dict[str, Any]) -> dict[str, Any]:
    try:
        parts = _single_file.load(file, folder, classes)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise _corrupt(file, error) from error
    return {name: _settle(model) for name, model in parts.items()}


def _check_fit(parts: dict[str, Any], path: Path) -> None:
    unet = parts["unet"].config
    width, expected = parts["text_encoder"].config.hidden_size, unet.cross_attention_dim
    if width != expected:
        raise ArtifactError(
            f"the text encoder is {width} wide, the UNet reads text of width {expected}",
            where=path,
            fix="take unet/ and text_encoder/ from the same model",
        )
    if unet.in_channels != parts["vae"].config.latent_channels:
        raise ArtifactError(
            f"the UNet reads {unet.in_channels} channels, the VAE gives {parts['vae'].config.latent_channels}",
            where=path,
            fix="use a text-to-image model, not one for inpainting, depth or upscaling",
        )


def _classes(folder: Path) -> dict[str, Any]:
    import diffusers
    import transformers

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _corrupt(folder / "model_index.json", error) from error
    found = {}
    for part, allowed in _ALLOWED.items():
        library, name = (index.get(part) or ("", ""))[:2]
        source: Any = {"diffusers": diffusers, "transformers": transformers}.get(library)
        kind = getattr(source, str(name), None) if source else None
        fits = name in allowed if allowed else str(name).endswith("Scheduler")
        if kind is None or not fits:
            raise ArtifactError(
                f"{part} is {name or 'missing'!r}; expected {' or '.join(allowed or ('a diffusers scheduler',))}",
                where=folder / "model_index.json",
                fix="use a pipeline of the Stable Diffusion 1.x or 2.x family in the diffusers format",
            )
        found[part] = kind
    return found


def _load(folder: Path, part: str, kind: Any) -> Any:
    import torch
    from safetensors import SafetensorError

    weights = _ALLOWED[part] is not None and part != "tokenizer"
    options = {"torch_dtype" if part != "text_encoder" else "dtype": torch.float32, "use_safetensors": True}
    try:
        if not weights:
            return kind.from_pretrained(str(folder / part))
        model, info = kind.from_pretrained(str(folder / part), output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _corrupt(folder / part, error) from error
    left = {key: sorted(map(str, info.get(key) or ())) for key in ("missing_keys", "unexpected_keys")}
    left["unexpected_keys"] = [k for k in left["unexpected_keys"] if not k.endswith(_OBSOLETE)]
    left["mismatched_keys"] = [str(k) for k in info.get("mismatched_keys") or ()]
    for key, names in left.items():
        if names:
            raise ArtifactError(
                f"{part} has {len(names)} {key.replace('_keys', '')} tensors, first {names[0]!r}",
                where=folder / part,
                fix="fetch the model again: its weights and its config.json do not belong together",
            )
    return _settle(model)


def _settle(model: Any) -> Any:
    # Tensors of a mapped file lie at whatever address its header leaves them, and kernels round otherwise on unaligned
    # data: copies make the same weights compute the same bits, whichever file they came from.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model.eval()


def _corrupt(place: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"cannot read a part of the model: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        where=place,
        fix="fetch the model again; only safetensors weights are read, never pickles (.bin, .ckpt)",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no chatter while parts are read or written; what is wrong is raised."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    undo: list[Callable[[], None]] = []
    for log in (diffusers_logging, transformers_logging):
        level = log.get_verbosity()
        undo.append(lambda log=log, level=level: log.set_verbosity(level))  # type: ignore[misc]
        if log.is_progress_bar_enabled():
            undo.append(log.enable_progress_bar)
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for step in undo:
            step()
