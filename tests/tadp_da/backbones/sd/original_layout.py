"""Writing a diffusers pipeline the other way round: as the single file of the original latent-diffusion code."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tadp_da.backbones.stable_diffusion import StableDiffusion

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def write_original(model: StableDiffusion, file: Path, *, openclip: bool = False, **extra: Tensor) -> Path:
    """The weights of a loaded model in one file; ``openclip`` names the text encoder's as Stable Diffusion 2 does."""
    tensors = {f"model.diffusion_model.{_unet(k)}": v for k, v in model.unet.state_dict().items()}
    for name, tensor in model.vae.state_dict().items():
        place = _vae(name, len(model.vae.config.block_out_channels))
        projection = ".attn_1." in place and place.endswith("weight") and "norm" not in place
        tensors[f"first_stage_model.{place}"] = tensor[:, :, None, None] if projection else tensor
    text = model.text_encoder.state_dict()
    if openclip:
        tensors |= {f"cond_stage_model.model.{k}": v for k, v in _openclip(text).items()}
    else:
        tensors |= {f"cond_stage_model.transformer.text_model.{k}": v for k, v in text.items()}
    save_file({k: v.contiguous().clone() for k, v in (tensors | extra).items()}, file)
    return file


def _unet(name: str) -> str:
    for new, old in _TOP.items():
        if name.startswith(f"{new}."):
            return old + name.removeprefix(new)
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        index = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{index}.{_inner(found[1], found[3])}"
    side, block, kind, layer, rest = re.match(r"(\w+)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name).groups()
    if kind == "downsamplers":
        return f"input_blocks.{3 * int(block) + 3}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * int(block) + 2}.{1 if block == '0' else 2}.{rest}"
    index = 3 * int(block) + int(layer) + (1 if side == "down" else 0)
    place = {"down": "input_blocks", "up": "output_blocks"}[side]
    return f"{place}.{index}.{1 if kind == 'attentions' else 0}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    first, _, last = rest.partition(".")
    return f"{_RESNET[first]}.{last}" if kind == "resnets" else rest


def _vae(name: str, levels: int) -> str:
    name = re.sub(r"(down|up)_blocks\.(\d)\.resnets\.(\d)", r"\1.\2.block.\3", name)
    name = re.sub(r"(down|up)_blocks\.(\d)\.(down|up)samplers\.0", r"\1.\2.\3sample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut")
    for new, old in {
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }.items():
        name = name.replace(f"attn_1.{new}.", f"attn_1.{old}.")
    name = re.sub(r"decoder\.up\.(\d)", lambda m: f"decoder.up.{levels - 1 - int(m[1])}", name)
    return name.replace("conv_norm_out", "norm_out")


def _openclip(text: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {
        "positional_embedding": text["embeddings.position_embedding.weight"],
        "token_embedding.weight": text["embeddings.token_embedding.weight"],
        "ln_final.weight": text["final_layer_norm.weight"],
        "ln_final.bias": text["final_layer_norm.bias"],
    }
    for name, tensor in text.items():
        if not name.startswith("encoder.layers."):
            continue
        place = name.replace("encoder.layers.", "transformer.resblocks.").replace("self_attn", "attn")
        for new, old in _CLIP.items():
            place = place.replace(new, old)
        if "q_proj" in place:
            parts = [text[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
            found[place.replace("q_proj.", "in_proj_")] = torch.cat(parts)
        elif "k_proj" not in place and "v_proj" not in place:
            found[place] = tensor
    return found
