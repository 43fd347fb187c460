"""Original single-file checkpoints (``v1-5-pruned-emaonly.safetensors`` and its like) through diffusers' converters.

Such a file holds weights only. Sizes, vocabulary and noise schedule come from a folder of configuration files, which is
looked for beside the file, then in the hub's cache, then on the hub; never guessed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tadp_da.backbones.sd.locate import CONFIGURATION
from tadp_da.errors import ArtifactError, EnvironmentSetupError
from tadp_da.storage.hub import DIFFUSION, fetch
from tadp_da.storage.pretrained import READING, aligned, require_floats, unreadable

#: What the original code calls the parts.
_PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
_TEXT_KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_INPUT = "model.diffusion_model.input_blocks.0.0.weight"


def configuration(file: Path) -> Path:
    """Folder of the configuration that belongs to a checkpoint.

    In this order: a folder named like the file; the file's own folder; that of the model which the shapes and, for
    Stable Diffusion 2, the name of the file tell.

    Raises:
        ArtifactError: when the file cannot be read, or does not tell which model it is.
        EnvironmentSetupError: when the configuration is neither here nor can be fetched.
    """
    _shapes(file)  # before all else: it may not be a checkpoint
    if folder := beside(file):
        return folder
    name = alias(file)
    try:
        return fetch(name, CONFIGURATION, DIFFUSION).path
    except EnvironmentSetupError as error:
        raise EnvironmentSetupError(
            f"the configuration of {file.name} is missing, which a single-file checkpoint does not hold; {error.what}",
            where=error.where,
            fix=f"on a machine with network run: hf download {DIFFUSION[name][0].repo} --include '*.json' "
            f"'tokenizer/*' --local-dir {file.stem}; put that folder at {file.with_suffix('')}, or give a whole "
            "diffusers folder: --model FOLDER",
        ) from error


def beside(file: Path) -> Path | None:
    """The configuration folder named like the checkpoint, or its own; None where neither is one."""
    return next((f for f in (file.with_suffix(""), file.parent) if CONFIGURATION.complete(f)), None)


def load(file: Path, folder: Path, kinds: dict[str, Any]) -> dict[str, Any]:
    """The parts with weights, in fp32, by diffusers' converters; averaged (EMA) weights where the file has them.

    Args:
        file: the checkpoint.
        folder: its configuration.
        kinds: class of each part.

    Raises:
        ArtifactError: when tensors are missing, left over or of another shape.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    options = {"config": str(folder), "local_files_only": True, "torch_dtype": torch.float32}
    require_floats(file)
    with safe_open(file, "pt") as opened:
        names = list(opened.keys())
    averaged = {"extract_ema": True} if any(name.startswith("model_ema.") for name in names) else {}
    # Only the pipeline converts text encoders.
    no_others = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
    try:
        parts = {
            "unet": kinds["unet"].from_single_file(str(file), subfolder="unet", **options, **averaged),
            "vae": kinds["vae"].from_single_file(str(file), subfolder="vae", **options),
        }
        pipeline = StableDiffusionPipeline.from_single_file(str(file), **options, **parts, **no_others)
    except (*READING, AttributeError) as error:
        raise unreadable(file, error) from error
    parts["text_encoder"] = pipeline.text_encoder
    for part, model in parts.items():
        if empty := [name for name, tensor in model.state_dict().items() if tensor.is_meta]:
            raise _other(file, f"{part} misses {len(empty)} tensors, first {empty[0]!r}")
        prefix = _PREFIXES.get(part)
        left = sum(name.startswith(prefix) for name in names) - len(model.state_dict()) if prefix else 0
        if left:
            raise _other(file, f"{part} has {left} tensors too many")
    return {name: aligned(model) for name, model in parts.items()}


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, "pt") as opened:
            names = set(opened.keys())
            shapes = {k: tuple(opened.get_slice(k).get_shape()) for k in (_TEXT_KEY, _INPUT) if k in names}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"cannot read the checkpoint: {error}", where=file, fix="fetch the file again"
        ) from error
    if len(shapes) < 2:
        raise _other(file, "these are not the tensors of an original Stable Diffusion checkpoint")
    return shapes


def alias(file: Path) -> str:
    """The alias of the model that the shapes and, for Stable Diffusion 2, the name of a checkpoint tell.

    Raises:
        ArtifactError: when they tell none.
    """
    shapes = _shapes(file)
    width, channels = shapes[_TEXT_KEY][-1], shapes[_INPUT][1]
    if channels == 4 and width == 768:
        return "sd-1.5"
    # The two models of Stable Diffusion 2.1 have the same shapes, but one predicts noise and the other velocity.
    named = [name for mark, name in (("768", "sd-2.1"), ("512", "sd-2.1-base")) if mark in file.stem]
    if channels == 4 and width == 1024 and len(named) == 1:
        return named[0]
    raise ArtifactError(
        f"cannot tell which model {file.name} is: its UNet reads {channels} channels and text of width {width}",
        where=file,
        fix=f"put the configuration files of its diffusers version (model_index.json and folders) at "
        f"{file.with_suffix('')}; for Stable Diffusion 2.1 the file's own name will do: "
        "v2-1_768-ema-pruned.safetensors or v2-1_512-ema-pruned.safetensors",
    )


def _other(file: Path, what: str) -> ArtifactError:
    return ArtifactError(
        what,
        where=file,
        fix="use a whole original checkpoint of Stable Diffusion 1.x or 2.x, with the configuration that belongs to it",
    )
