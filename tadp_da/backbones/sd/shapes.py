"""Configurations of Stable Diffusion's networks, and the networks without weights. Nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tadp_da.backbones.sd import single_file as _single_file
from tadp_da.backbones.sd.locate import CONFIGURATION, mini_folder
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.storage.hub import DIFFUSION, locate
from tadp_da.storage.pretrained import quiet

PARTS = ("unet", "vae", "text_encoder")
SD_15: dict[str, dict[str, Any]] = {
    "unet": {"sample_size": 64, "cross_attention_dim": 768},
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
    },
    "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}
"""Stable Diffusion 1.1 to 1.5 as their configuration files have it, so that nothing need be fetched; the rest is the
default of diffusers and transformers."""
SD_21: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "vae": SD_15["vae"],
    "text_encoder": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,  # of OpenCLIP's ViT-H/14, the last of whose 24 layers is left out
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
}
"""The same of Stable Diffusion 2.1."""
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "sd-1.4": SD_15,
    "sd-1.5": SD_15,
    "sd-2.1": SD_21,
    "sd-2.1-base": SD_21 | {"unet": SD_21["unet"] | {"sample_size": 64}},
}
"""Built-in shapes by alias."""


def configuration(model: str) -> dict[str, dict[str, Any]]:
    """Configurations of the three networks of a model.

    Args:
        model: a diffusers folder; a single-file checkpoint; an alias of Stable Diffusion 1.x or 2.x or one of its
            repositories, whose shape is built in; or another repository that is in the hub's cache.

    Raises:
        UsageError: when the shape is not known on this machine.
        ArtifactError: for a file that is not a checkpoint of Stable Diffusion.
    """
    path = mini_folder() if model == "mini" else Path(model).expanduser()
    # in the order in which runs look for a model: what is on disk comes before an alias of the same name
    if path.is_file() and path.suffix.lower() == ".safetensors":
        folder = _single_file.beside(path)
        if folder is None:
            return SHAPES[_single_file.alias(path)]
        path = folder
    elif not path.exists() and (alias := _alias(model)):
        return SHAPES[alias]
    try:
        name = str(path) if path.exists() else model
        folder = locate(name, CONFIGURATION, DIFFUSION, "a pipeline", local_only=True).path
        files = {part: folder / part / "config.json" for part in PARTS}
        return {part: json.loads(file.read_text(encoding="utf-8")) for part, file in files.items()}
    except (EnvironmentSetupError, OSError, ValueError):
        raise UsageError(
            f"the shape of {model!r} is not known here: no alias, no diffusers folder, and not in the hub's cache",
            where=path,
            fix="give --set model=FOLDER with a diffusers pipeline, or an alias whose shape is built in: "
            + ", ".join(f"--set model={alias}" for alias in SHAPES),
        ) from None


def meta_parts(model: str) -> dict[str, Any]:
    """The parts of a model as ``StableDiffusion`` takes them, networks on the ``meta`` device. Tokenizer and scheduler
    are those of the embedded model: shapes do not depend on them."""
    from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    config = configuration(model)
    tiny = config["vae"].get("_class_name") == "AutoencoderTiny"
    with quiet(), torch.device("meta"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(config["unet"]),
            "vae": (AutoencoderTiny if tiny else AutoencoderKL).from_config(config["vae"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**config["text_encoder"])),
        }
    with quiet():
        parts["tokenizer"] = CLIPTokenizer.from_pretrained(mini_folder() / "tokenizer")
        return parts | {"scheduler": DDIMScheduler.from_pretrained(mini_folder() / "scheduler")}


def _alias(model: str) -> str | None:
    """The alias that a name is, or one of whose repositories it is; revisions of a repository have one shape."""
    name = model.partition("@")[0]
    known = ((alias, {alias, *(source.repo for source in DIFFUSION[alias])}) for alias in SHAPES)
    return next((alias for alias, names in known if name in names), None)
