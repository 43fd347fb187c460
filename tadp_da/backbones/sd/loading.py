"""Reading the parts of a diffusers pipeline, one by one: no pickle, no safety checker, nothing left over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tadp_da.backbones.sd import single_file as _single_file
from tadp_da.errors import ArtifactError
from tadp_da.storage.pretrained import READING, load_model, quiet, unreadable

#: Classes that each part of a Stable Diffusion pipeline may be of; None for any scheduler of diffusers.
_ALLOWED: Mapping[str, tuple[str, ...] | None] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": None,
}


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
        parts = _single_file.load(path, folder, classes) if path.is_file() else {}
        parts |= {name: _load(folder, name, kind) for name, kind in classes.items() if name not in parts}
    _check_fit(parts, path)
    return parts


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
        raise unreadable(folder / "model_index.json", error) from error
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
    if _ALLOWED[part] is None or part == "tokenizer":
        try:
            return kind.from_pretrained(str(folder / part))
        except READING as error:
            raise unreadable(folder / part, error) from error
    return load_model(kind, folder / part, part)
