"""What :mod:`benchmarks.profiling.full_size` measures: a Stable Diffusion 1.5 of random weights, read in three ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.profiling.measure import Cost, measure
from tadp_da.backbones.sd.feature_layers import FeatureLayer, feature_layers
from tadp_da.backbones.sd.shapes import SD_15
from tadp_da.backbones.stable_diffusion import BackboneSettings, StableDiffusion
from tadp_da.heads.semantic_fpn import SemanticFPN
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace

CLASSES = tuple(f"class {i}" for i in range(19))
"""As many as Cityscapes has."""
RANK = 16
"""Of low-rank layers, as fine-tuning has it."""
TOKENS = 77
Shape = Mapping[str, dict[str, Any]]
_NARROW: Shape = {
    "unet": {
        "block_out_channels": [32, 32, 64, 64],
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
    },
    "vae": {"block_out_channels": [16, 16, 16, 16], "layers_per_block": 1, "norm_num_groups": 8},
    "text_encoder": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "vocab_size": 1000,
    },
}
TINY: Shape = {part: SD_15[part] | narrow for part, narrow in _NARROW.items()}
"""The same shape with next to no width: what the tests run."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement.

    Attributes:
        says: what it is, as the table shows it.
        way: ``"eager"`` is plain attention with all maps, as in the published code; ``"bare"`` the network alone, as
            diffusers calls it; ``"ours"`` this project.
        work: the network's forward pass on a latent; the model's from pixels to logits; or forward pass, loss and
            backward pass of network and head, without the optimizer's step.
        trains: all of the network, or low-rank layers.
        half: bf16: weights where nothing trains, autocast where something does.
        recomputes: gradient checkpointing.
    """

    says: str
    way: Literal["eager", "bare", "ours"]
    work: Literal["features", "logits", "step"] = "features"
    trains: Literal["full", "lora"] = "full"
    half: bool = False
    recomputes: bool = False


CASES: Mapping[str, Case] = {
    "eager": Case(says="eager attention, all maps", way="eager"),
    "bare": Case(says="bare UNet call, no maps", way="bare"),
    "ours": Case(says="ours: features and maps", way="ours"),
    "bare-bf16": Case(says="bare UNet call, bf16 weights", way="bare", half=True),
    "ours-bf16": Case(says="ours, bf16 weights", way="ours", half=True),
    "logits": Case(says="ours, pixels to logits (VAE, UNet, FPN)", way="ours", work="logits"),
    "logits-bf16": Case(says="the same, bf16 weights", way="ours", work="logits", half=True),
    "step-eager": Case(says="training step, eager attention, all maps", way="eager", work="step"),
    "step": Case(says="training step, ours", way="ours", work="step"),
    "step-bf16": Case(says="training step, ours, bf16 autocast", way="ours", work="step", half=True),
    "step-lora": Case(says="training step, ours, LoRA", way="ours", work="step", trains="lora"),
    "step-lora-checkpointing": Case(
        says="training step, ours, LoRA and checkpointing", way="ours", work="step", trains="lora", recomputes=True
    ),
}  # fmt: skip


class EveryMap:
    """Attention as the published code computes it: eager, with the head-mean map of every layer.

    It keeps the maps of layers with at most ``most`` queries, in the authors' code a quarter of the finest level's.
    """

    def __init__(self, name: str, most: int, kept: dict[str, Tensor]) -> None:
        self.name, self.most, self.kept = name, most, kept

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(layer(x))
            for layer, x in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        scores = torch.einsum("bid,bjd->bij", query, key) * attn.scale
        probabilities = scores.softmax(dim=-1)
        mean = probabilities.unflatten(0, (-1, attn.heads)).mean(dim=1)
        if mean.shape[1] <= self.most:
            self.kept[self.name] = mean
        mixed = torch.einsum("bij,bjd->bid", probabilities, value)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(mixed)))


class Published(nn.Module):
    """Features and maps by plain hooks and eager attention, over a UNet as diffusers builds it."""

    def __init__(self, unet: Any, levels: list[FeatureLayer], cells: int) -> None:
        super().__init__()
        self.unet, self.levels = unet, levels
        self.maps: dict[str, Tensor] = {}
        self.features: dict[int, Tensor] = {}
        unet.set_attn_processor(
            {
                name: EveryMap(name.removesuffix(".processor"), cells // 4, self.maps)
                for name in unet.attn_processors
            }
        )
        for level in levels:
            unet.get_submodule(level.feature).register_forward_hook(self._keeping(level.stride))

    def _keeping(self, stride: int) -> Callable[..., None]:
        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            self.features[stride] = output if isinstance(output, Tensor) else output[0]

        return keep

    def forward(self, latents: Tensor, text: Tensor) -> FeaturePyramid:
        """The same pyramid as the backbone's."""
        self.maps.clear()
        self.unet(latents, torch.ones(len(latents), device=latents.device), text, return_dict=False)
        maps = {}
        for level in (level for level in self.levels if level.maps):
            mean = torch.stack([self.maps[name] for name in level.maps]).mean(0)
            maps[level.stride] = mean.transpose(1, 2).unflatten(2, self.features[level.stride].shape[-2:])
        return FeaturePyramid(features=dict(sorted(self.features.items())), attention=maps)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and at what size to measure.

    Attributes:
        size: side of the square image in pixels.
        device: where to compute.
        tiny: next to no width, for tests.
        channels_last: the backbone's setting of that name; the other two ways are as diffusers has them.
    """

    size: int = 512
    device: str = "cpu"
    tiny: bool = False
    channels_last: bool = True

    def cost(self, case: Case) -> Cost:
        """Build the networks of random weights, and measure."""
        torch.manual_seed(0)
        device, trains = torch.device(self.device), case.work == "step"
        dtype = torch.bfloat16 if case.half and not trains else torch.float32
        shape = TINY if self.tiny else SD_15
        unet = _unet(shape)
        levels = feature_layers(unet, _factor(shape))
        head = SemanticFPN(_spec(levels), LabelSpace("segmentation", CLASSES)).to(device, dtype)
        side = self.size // _factor(shape)
        latents = torch.randn(1, 4, side, side).to(device, dtype)
        text = torch.randn(1, TOKENS, unet.config.cross_attention_dim).to(device, dtype)
        model = self._model(case, unet, shape, levels, side).to(device, dtype)
        if not trains:
            work = self._look(case, model, head.eval(), latents, text)
            return measure(torch.no_grad()(work), device)
        work = self._step(case, model, head.train(), latents, text)
        moving = [*_trained(case, model, unet), *head.parameters()]
        return measure(work, device, reset=lambda: _forget(moving))

    def _model(self, case: Case, unet: Any, shape: Shape, levels: list[FeatureLayer], side: int) -> Any:
        """Takes latents and text; ours encodes pixels too."""
        if case.way == "bare":
            return unet
        if case.way == "eager":
            return Published(unet, levels, side * side)
        settings = BackboneSettings(channels_last=self.channels_last)
        return backbone(shape, settings, unet=unet, text_layers=1)

    def _look(
        self, case: Case, model: Any, head: SemanticFPN, latents: Tensor, text: Tensor
    ) -> Callable[[], Any]:
        size = (self.size, self.size)
        if case.way == "bare":
            times = torch.ones(1, device=latents.device)
            return lambda: model(latents, times, text, return_dict=False)
        if case.way == "eager":
            return lambda: model(latents, text)
        if case.work == "features":
            return lambda: model.pyramid_of(latents, text, size)
        pixels = torch.rand(1, 3, *size).to(latents) * 2 - 1
        return lambda: head(model.pyramid(pixels, text), size)

    def _step(
        self, case: Case, model: Any, head: SemanticFPN, latents: Tensor, text: Tensor
    ) -> Callable[[], None]:
        size = (self.size, self.size)
        targets = torch.randint(len(CLASSES), (1, *size), device=latents.device)

        def work() -> None:
            with torch.autocast(latents.device.type, dtype=torch.bfloat16, enabled=case.half):
                pyramid = (
                    model(latents, text) if case.way == "eager" else model.pyramid_of(latents, text, size)
                )
                loss = head.loss(head(pyramid, size), targets)
            loss.backward()

        return work


def _unet(shape: Shape) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config(shape["unet"]).eval().requires_grad_(False)


def backbone(
    shape: Shape, settings: BackboneSettings, *, unet: Any = None, text_layers: int | None = None
) -> StableDiffusion:
    """A backbone of random weights with the embedded tokenizer.

    Args:
        shape: configurations of the networks.
        settings: of the backbone.
        unet: a network that is there already.
        text_layers: layers of the text encoder, where texts are given encoded; None for all.
    """
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from tadp_da.mini import WEIGHTS

    layers = {} if text_layers is None else {"num_hidden_layers": text_layers}
    return StableDiffusion(
        _unet(shape) if unet is None else unet,
        AutoencoderKL.from_config(shape["vae"]),
        CLIPTextModel(CLIPTextConfig(**shape["text_encoder"] | layers)),
        CLIPTokenizer.from_pretrained(WEIGHTS / "stable-diffusion" / "tokenizer"),
        DDIMScheduler(),
        settings,
    )


def _factor(shape: Shape) -> int:
    return 2 ** (len(shape["vae"]["block_out_channels"]) - 1)


def _spec(levels: list[FeatureLayer]) -> FeatureSpec:
    return FeatureSpec(
        channels={level.stride: level.channels for level in levels},
        attention={level.stride: TOKENS for level in levels if level.maps},
    )


def _trained(case: Case, model: Any, unet: Any) -> list[nn.Parameter]:
    """What of the network moves."""
    if case.recomputes:
        unet.enable_gradient_checkpointing()
    if case.way == "ours":
        moving: list[nn.Parameter] = model.trainable(case.trains, rank=RANK)
        return moving
    unet.requires_grad_(True)
    return list(unet.parameters())


def _forget(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
