"""The networks of a recipe without their weights: shapes from a configuration, operations and memory counted on tensors
that hold no data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.places import own_domain
from benchmarks.recipe import Recipe
from tadp_da.backbones.sd import single_file as _single_file
from tadp_da.backbones.sd.feature_layers import FeatureLayer, feature_layers
from tadp_da.backbones.sd.locate import CONFIGURATION
from tadp_da.backbones.sd.lora import TARGETS
from tadp_da.domains import domains
from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.storage.hub import DIFFUSION
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace

PARTS = ("unet", "vae", "text_encoder")
SD_15: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 64,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
    },
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
    },
}
"""Stable Diffusion 1.5 as its configuration files have it, so that nothing need be fetched; the rest is diffusers'
default. Versions 1.1 to 1.4 are of the same shape."""
SD_21: dict[str, dict[str, Any]] = {
    "unet": SD_15["unet"]
    | {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "vae": SD_15["vae"],
    "text_encoder": SD_15["text_encoder"]
    | {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,  # of OpenCLIP's ViT-H/14, the last of whose 24 layers is left out
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
}
"""Stable Diffusion 2.1 likewise."""
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "sd-1.4": SD_15,
    "sd-1.5": SD_15,
    "sd-2.1": SD_21,
    "sd-2.1-base": SD_21 | {"unet": SD_21["unet"] | {"sample_size": 64}},
}
"""Built-in shapes by alias."""


def configuration(model: str) -> dict[str, dict[str, Any]]:
    """Configurations of the three networks of a model; nothing is fetched.

    Args:
        model: a diffusers folder; a single-file checkpoint; an alias of Stable Diffusion 1.x or 2.x or one of its
            repositories, whose shape is built in; or another repository that is in the hub's cache.

    Raises:
        UsageError: when the shape is not known on this machine.
        ArtifactError: for a file that is no checkpoint of Stable Diffusion.
    """
    path = _mini() if model == "mini" else Path(model).expanduser()
    # in the order in which runs look for a model: what is on disk wins over an alias of the same name
    if path.is_file() and path.suffix.lower() == ".safetensors":
        files = _beside(path)
        if not files:
            return SHAPES[_single_file._alias(path, _single_file._shapes(path))]
    elif path.exists():
        files = {part: path / part / "config.json" for part in PARTS}
    elif alias := _alias(model):
        return SHAPES[alias]
    else:
        files = _cached(model)
    try:
        return {part: json.loads(files[part].read_text(encoding="utf-8")) for part in PARTS}
    except (KeyError, OSError, ValueError):
        raise UsageError(
            f"the shape of {model!r} is not known here: no alias, no diffusers folder, and not in the hub's cache",
            where=path,
            fix="give --set model=FOLDER with a diffusers pipeline, or an alias whose shape is built in: "
            + ", ".join(f"--set model={alias}" for alias in SHAPES),
        ) from None


def _mini() -> Path:
    from tadp_da.mini import WEIGHTS

    return WEIGHTS / "stable-diffusion"


def _alias(model: str) -> str | None:
    """The alias that a name is, or one of whose repositories it is; revisions of a repository have one shape."""
    name = model.partition("@")[0]
    known = ((alias, {alias, *(source.repo for source in DIFFUSION[alias])}) for alias in SHAPES)
    return next((alias for alias, names in known if name in names), None)


def _beside(checkpoint: Path) -> dict[str, Path]:
    """Configuration files that lie beside a single-file checkpoint; none where there are not all."""
    for folder in (checkpoint.with_suffix(""), checkpoint.parent):
        if CONFIGURATION.complete(folder):
            return {part: folder / part / "config.json" for part in PARTS}
    return {}


def _cached(model: str) -> dict[str, Path]:
    """Configuration files of a repository of the hub that are in its cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repo, _, revision = model.partition("@")
    try:
        found = {
            part: try_to_load_from_cache(repo, f"{part}/config.json", revision=revision or None)
            for part in PARTS
        }
    except HFValidationError:  # no name of a repository
        return {}
    return {part: Path(file) for part, file in found.items() if isinstance(file, str)}


@dataclass(frozen=True)
class Networks:
    """The networks of a recipe on tensors without data."""

    unet: Any
    vae: Any
    text_encoder: Any
    head: Any
    levels: tuple[FeatureLayer, ...]
    spec: FeatureSpec

    @property
    def factor(self) -> int:
        """Pixels per latent cell."""
        return min(self.spec.channels)

    @property
    def grid(self) -> int:
        """Coarsest stride in pixels."""
        return max(self.spec.channels)

    def text(self, batch: int) -> Tensor:
        """Encoded prompts, empty of data."""
        config = self.text_encoder.config
        return torch.empty(batch, config.max_position_embeddings, config.hidden_size)


def build(recipe: Recipe) -> Networks:
    """Networks of a recipe in the memory-free mode that is on (a meta device or fake tensors)."""
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    config = configuration(recipe.model)
    unet = UNet2DConditionModel.from_config(config["unet"])
    tiny = config["vae"].get("_class_name") == "AutoencoderTiny"
    vae = (AutoencoderTiny if tiny else AutoencoderKL).from_config(config["vae"])
    text = CLIPTextModel(CLIPTextConfig(**config["text_encoder"]))
    levels = tuple(feature_layers(unet, 2 ** (len(vae.config.block_out_channels) - 1)))
    tokens = text.config.max_position_embeddings
    spec = FeatureSpec(
        channels={level.stride: level.channels for level in levels},
        attention={level.stride: tokens for level in levels if level.maps},
    )
    head = heads[recipe.head.name](spec, label_space(recipe), **recipe.head.settings)
    return Networks(unet, vae, text, head, levels, spec)


def label_space(recipe: Recipe) -> LabelSpace:
    """What the head decides between. Of one's own data no picture is read: names come from the recipe, its legend or
    the categories of its COCO file.

    Raises:
        UsageError: when there are no labels to learn from, or nothing names their classes.
        DataError: when a COCO file is not of that form.
    """
    choice = recipe.target if recipe.train_on == "target" else recipe.source
    domain = domains[choice] if isinstance(choice, str) else own_domain(choice)
    if domain.labels is None:
        raise UsageError(
            f"domain {domain.name!r} has no labels to learn from",
            fix="choose a labelled source, or give masks or boxes with your own images",
        )
    return domain.labels


def trained_parameters(recipe: Recipe, networks: Networks) -> int:
    """How many parameters fine-tuning moves."""
    head = count(networks.head)
    if recipe.adapt.backbone == "full":
        return head + count(networks.unet)
    if recipe.adapt.backbone == "frozen":
        return head
    wide = sum(
        module.in_features + module.out_features
        for name, module in networks.unet.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(tuple(f".{target}" for target in TARGETS))
    )
    return head + recipe.adapt.lora_rank * wide


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def on_grid(networks: Networks, size: tuple[int, int]) -> tuple[int, int]:
    """The size that a pass really has: padded to the coarsest stride."""
    height, width = size
    return height + -height % networks.grid, width + -width % networks.grid


def encode(networks: Networks, size: tuple[int, int], batch: int) -> None:
    """The frozen autoencoder's pass over a batch."""
    with torch.no_grad():
        networks.vae.encode(torch.empty(batch, 3, *on_grid(networks, size)))


def perceive(networks: Networks, size: tuple[int, int], batch: int, *, moves: bool = False) -> Tensor:
    """UNet, neck and head on latents of a batch; a scalar that depends on every parameter that is trained, and where
    ``moves`` is set on the latents, so that gradients run through all of the UNet.

    What a detector does by the content of its images is left out: matching, suppression, pooling. Its region branch
    sees as many regions as it is trained on.
    """
    height, width = on_grid(networks, size)
    latents = torch.empty(
        batch, networks.unet.config.in_channels, height // networks.factor, width // networks.factor
    )
    latents.requires_grad_(moves)
    with _tapped(networks) as features:
        networks.unet(
            latents, torch.ones(batch), encoder_hidden_states=networks.text(batch), return_dict=False
        )
    maps = {
        s: features[s].new_empty(batch, t, *features[s].shape[-2:])
        for s, t in networks.spec.attention.items()
    }
    pyramid = FeaturePyramid(features=dict(sorted(features.items())), attention=maps)
    if networks.head.task == "segmentation":
        total: Tensor = networks.head(pyramid, size).sum()
        return total
    return _detect(networks.head, pyramid, size, batch)


def _detect(head: Any, pyramid: FeaturePyramid, size: tuple[int, int], batch: int) -> Tensor:
    levels = list(head(pyramid, size).levels.values())
    settings = head.settings
    scores, moves = head.rpn.head(levels)
    regions = levels[0].new_empty(batch * settings.roi_batch, settings.width, settings.pool, settings.pool)
    found = head.regions.box_predictor(head.regions.box_head(regions.requires_grad_(torch.is_grad_enabled())))
    return torch.stack([x.sum() for x in (*scores, *moves, *found)]).sum()


@contextmanager
def _tapped(networks: Networks) -> Iterator[dict[int, Tensor]]:
    """The features of every level, as they pass."""
    features: dict[int, Tensor] = {}

    def keeping(stride: int) -> Callable[..., None]:
        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            features[stride] = output if isinstance(output, Tensor) else output[0]

        return keep

    hooks = [
        networks.unet.get_submodule(level.feature).register_forward_hook(keeping(level.stride))
        for level in networks.levels
    ]
    try:
        yield features
    finally:
        for hook in hooks:
            hook.remove()


def learn_noise(networks: Networks, size: tuple[int, int], method: str) -> Tensor:
    """Stage 1 on one image: the UNet's prediction, differentiable in all of it (DreamBooth) or in the words alone."""
    height, width = on_grid(networks, size)
    words = method == "textual-inversion"
    networks.unet.requires_grad_(not words)
    networks.text_encoder.requires_grad_(False)
    if words:
        networks.text_encoder.get_input_embeddings().requires_grad_(True)
        tokens = torch.zeros(1, networks.text_encoder.config.max_position_embeddings, dtype=torch.long)
        text = networks.text_encoder(tokens).last_hidden_state
    else:
        text = networks.text(1)
    channels = networks.unet.config.in_channels
    latents = torch.empty(1, channels, height // networks.factor, width // networks.factor)
    predicted = networks.unet(latents, torch.ones(1), encoder_hidden_states=text, return_dict=False)[0]
    networks.unet.requires_grad_(True)
    total: Tensor = predicted.sum()
    return total


def operations(work: Callable[[], Any]) -> int:
    """Floating point operations of some work: two for a multiplication and its addition. Matrix products,
    convolutions and attention are counted, the rest is not.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def shapes_only() -> AbstractContextManager[Any]:
    """Tensors made inside have a shape and no data."""
    return torch.device("meta")


def kept_for_backward(recipe: Recipe, size: tuple[int, int], batch: int) -> int:
    """Bytes in fp32 that autograd keeps from the forward pass for the backward pass: every storage once, parameters
    not counted. Attention is fused but for the layers whose maps are read, which keep their probabilities. For low-rank
    layers it is what all of the UNet would keep, an upper bound.
    """
    from diffusers.models.attention_processor import AttnProcessor
    from torch._subclasses.fake_tensor import FakeTensorMode

    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FakeTensorMode(), torch.device("cpu"):
        networks = build(recipe)
        moving = recipe.adapt.backbone != "frozen"
        networks.unet.requires_grad_(moving)
        for name in (name for level in networks.levels for name in level.maps):
            networks.unet.get_submodule(name).set_processor(AttnProcessor())
        modules = (networks.unet, networks.head)
        owned = {p.untyped_storage()._cdata for module in modules for p in module.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = perceive(networks, size, batch)
        total = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in owned)
        del loss
    return math.ceil(total)
