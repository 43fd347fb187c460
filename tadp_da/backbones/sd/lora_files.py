"""LoRA files of diffusers (old and new), peft and kohya, read as low-rank layers in the diffusers format.

A low-rank change is ``scale * up @ down``, and ``scale = alpha / rank`` is folded into ``up``. kohya has tensors
``<layer>.alpha``, diffusers ``lora_adapter_metadata`` in the header of the file (without it the scale is 1), and peft
``adapter_config.json`` beside ``adapter_model.safetensors``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tadp_da.backbones.sd.words import model_of_width
from tadp_da.errors import ArtifactError
from tadp_da.storage.tensors import read_tensors

_PEFT = "base_model.model."
_TEXT = ("lora_te", "text_encoder", "text_model")
_KEY = re.compile(
    r"(?:unet\.|lora_unet_)?(?P<layer>.+?)"
    r"(?:[._]lora(?:_linear_layer)?[._](?P<side>down|up|A|B)(?:\.default)?\.weight|(?:_lora)?\.(?P<alpha>alpha))"
)
_SIDES = {"down": "down", "A": "down", "up": "up", "B": "up", None: "alpha"}
_OTHER_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "LoCon (Tucker decomposition)",
    "oft_": "OFT",
    "lora_B.bias": "LoRA with biases",
}
"""Changes of weights that are not a product of two matrices, by a part of their tensors' names."""


def read_lora(file: Path, unet: Any, *, unet_only: bool = False) -> dict[str, Tensor]:
    """Low-rank layers in the diffusers format (``unet.<module>.lora.down.weight``), every scale folded into ``up``.

    Raises:
        ArtifactError: for a file that cannot be read, is not a LoRA or one of another model, a layer that this UNet
            does not have, layers of the text encoder without ``unet_only``, half a pair, or a scale that is not known.
    """
    stored = read_tensors(file)
    tensors = {key.removeprefix(_PEFT): value for key, value in stored.items()}
    _require_kind(file, tensors, unet)
    text = [key for key in tensors if key.startswith(_TEXT)]
    if text and not unet_only:
        raise ArtifactError(
            f"the file changes the text encoder too ({len(text)} tensors, first {text[0]!r}), "
            "which a concept does not",
            where=file,
            fix="take the UNet's part alone: --unet-only; prompts are then encoded differently from the tool that it "
            "was learned with",
        )
    config = _configuration(file, of_peft=tensors.keys() != stored.keys())
    found = {}
    for module, parts in _layers(file, {k: v for k, v in tensors.items() if k not in text}, unet).items():
        if not {"down", "up"} <= parts.keys() or parts["down"].ndim < 2 or not len(parts["down"]):
            raise _strange(file, f"{module!r} has no pair of down and up")
        found[f"unet.{module}.lora.down.weight"] = parts["down"]
        found[f"unet.{module}.lora.up.weight"] = parts["up"] * _scale(file, config, module, parts)
    if not found:
        raise _strange(file, "it holds no low-rank layer of a UNet")
    return found


def _layers(file: Path, tensors: Mapping[str, Tensor], unet: nn.Module) -> dict[str, dict[str, Tensor]]:
    """``down``, ``up`` and perhaps ``alpha`` by module of the UNet."""
    layers = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    modules = {name.replace(".", "_"): name for name in layers}
    modules |= {
        short.removesuffix("_0"): name for short, name in modules.items() if short.endswith("_to_out_0")
    }
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        match = _KEY.fullmatch(key)
        layer = match["layer"].replace(".processor.", ".").replace(".", "_") if match else ""
        if match is None or layer not in modules:
            raise _strange(file, f"this UNet has no low-rank layer {key!r}")
        found.setdefault(modules[layer], {})[_SIDES[match["side"]]] = value.float()
    return found


def _require_kind(file: Path, tensors: Mapping[str, Tensor], unet: Any) -> None:
    for mark, kind in _OTHER_KINDS.items():
        if name := next((key for key in tensors if mark in key), None):
            raise ArtifactError(
                f"this is a {kind} file ({name!r}); a concept holds LoRA only: pairs of down and up",
                where=file,
                fix="fuse it into its model with the tool that made it, save that as a diffusers folder, and use the "
                "folder: --model FOLDER",
            )
    own = unet.config.cross_attention_dim
    for key, value in tensors.items():
        if not (value.is_floating_point() or key.endswith(".alpha")):
            raise _strange(file, f"{key!r} is of type {value.dtype}: quantized LoRAs are not read")
        match = re.search(r"attn2[._](?:processor[._])?to_[kv]", key) and _KEY.fullmatch(key)
        if match and match["side"] in ("down", "A") and value.ndim > 1 and value.shape[1] != own:
            raise ArtifactError(
                f"the LoRA is for {model_of_width(value.shape[1])}; this is {model_of_width(own)}",
                where=file,
                fix="choose the model that it was learned on: --model sd-1.5, sd-2.1 or a folder",
            )


def _configuration(file: Path, *, of_peft: bool) -> dict[str, Any]:
    """Peft's configuration of the UNet's layers; empty where the format needs none."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        text = (opened.metadata() or {}).get("lora_adapter_metadata")
    where = file.with_name("adapter_config.json") if text is None and of_peft else file
    try:
        config = json.loads(text or (where.read_text(encoding="utf-8") if where != file else "{}"))
        return {k.removeprefix("unet."): v for k, v in config.items() if not k.startswith("text_encoder")}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"cannot read the alpha of the LoRA {file.name}: {error}",
            where=where,
            fix="peft saves adapter_config.json with r and lora_alpha; put it beside the file",
        ) from error


def _scale(file: Path, config: Mapping[str, Any], module: str, parts: Mapping[str, Tensor]) -> float:
    """``alpha / rank`` of a layer."""
    from peft.utils.other import get_pattern_key

    def setting(name: str, pattern: str) -> float:
        special = config.get(pattern) or {}
        return float(special.get(get_pattern_key(special, module), config[name]))

    rank, scale = len(parts["down"]), 1.0
    try:
        if "alpha" in parts:
            scale = float(parts["alpha"]) / rank
        elif "lora_alpha" in config:
            if setting("r", "rank_pattern") != rank:
                raise ValueError(f"its rank is {rank}, the configuration's {setting('r', 'rank_pattern'):g}")
            divisor = math.sqrt(rank) if config.get("use_rslora") else rank
            scale = setting("lora_alpha", "alpha_pattern") / divisor
        if not math.isfinite(scale):
            raise ValueError(f"it is {scale}")
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, re.error) as error:
        raise _strange(file, f"the scale of {module!r} is not known: {error}") from error
    return scale


def _strange(file: Path, what: str) -> ArtifactError:
    return ArtifactError(
        what, where=file, fix="give a LoRA of the UNet of this model (Stable Diffusion 1.x or 2.x)"
    )
