"""What :mod:`benchmarks.profiling.full_size` measures: a Stable Diffusion 1.5 of random weights, read in three ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.profiling.measure import Cost, measure
from tadp_da.backbones.sd.attention import FeatureHook, FeatureRecorder
from tadp_da.backbones.sd.feature_layers import FeatureLayer, feature_layers
from tadp_da.backbones.sd.shapes import SD_15
from tadp_da.backbones.stable_diffusion import BackboneSettings, StableDiffusion
from tadp_da.heads.semantic_fpn import SemanticFPN
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace

LABELS = LabelSpace("segmentation", tuple(f"class {i}" for i in range(19)))
"""As many classes as Cityscapes has."""
RANK = 16
"""Of low-rank layers, as in fine-tuning."""
TOKENS = 77
Shape = Mapping[str, dict[str, Any]]
_NARROW: Shape = {
    "unet": {
        "block_out_channels": [32, 32, 64, 64], "attention_head_dim": 4, "cross_attention_dim": 32,
        "norm_num_groups": 8,
    },
    "vae": {"block_out_channels": [16, 16, 16, 16], "layers_per_block": 1, "norm_num_groups": 8},
    "text_encoder": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "vocab_size": 1000},
}  # fmt: skip
TINY: Shape = {part: SD_15[part] | narrow for part, narrow in _NARROW.items()}
"""The same shape with next to no width: what the tests run."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement.

    Attributes:
        title: what it is, as the table shows it.
        way: ``"eager"`` is plain attention with all maps, as in the published code; ``"bare"`` the network alone, as
            diffusers calls it; ``"ours"`` this project.
        work: the network's forward pass on a latent; the model's from pixels to logits; or forward pass, loss and
            backward pass of network and head, without the optimizer's step.
        trains: all of the network, or low-rank layers.
        half: bf16: weights where nothing trains, autocast where something does.
        recomputes: gradient checkpointing.
    """

    title: str
    way: Literal["eager", "bare", "ours"]
    work: Literal["features", "logits", "step"] = "features"
    trains: Literal["full", "lora"] = "full"
    half: bool = False
    recomputes: bool = False


CASES: Mapping[str, Case] = {
    "eager": Case(title="eager attention, all maps", way="eager"),
    "bare": Case(title="bare UNet call, no maps", way="bare"),
    "ours": Case(title="ours: features and maps", way="ours"),
    "bare-bf16": Case(title="bare UNet call, bf16 weights", way="bare", half=True),
    "ours-bf16": Case(title="ours, bf16 weights", way="ours", half=True),
    "logits": Case(title="ours, pixels to logits (VAE, UNet, FPN)", way="ours", work="logits"),
    "logits-bf16": Case(title="the same, bf16 weights", way="ours", work="logits", half=True),
    "step-eager": Case(title="training step, eager attention, all maps", way="eager", work="step"),
    "step": Case(title="training step, ours", way="ours", work="step"),
    "step-bf16": Case(title="training step, ours, bf16 autocast", way="ours", work="step", half=True),
    "step-lora": Case(title="training step, ours, LoRA", way="ours", work="step", trains="lora"),
    "step-lora-checkpointing": Case(
        title="training step, ours, LoRA and checkpointing", way="ours", work="step", trains="lora", recomputes=True
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
        self.recorder = FeatureRecorder()
        names = {name: name.removesuffix(".processor") for name in unet.attn_processors}
        unet.set_attn_processor({key: EveryMap(name, cells // 4, self.maps) for key, name in names.items()})
        for level in levels:
            unet.get_submodule(level.feature).register_forward_hook(FeatureHook(level.stride, self.recorder))

    def forward(self, latents: Tensor, text: Tensor) -> FeaturePyramid:
        """The same pyramid as the backbone's."""
        self.maps.clear()
        with self.recorder.record(maps=True):
            self.unet(latents, torch.ones(len(latents), device=latents.device), text, return_dict=False)
            for level in self.levels:
                for name in level.maps:
                    self.recorder.add_map(level.stride, self.maps[name])
        features, maps = self.recorder.take()
        return FeaturePyramid(features=features, attention=maps)


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
    channels_last: bool = False

    def cost(self, case: Case) -> Cost:
        """Build the networks of random weights, and measure."""
        torch.manual_seed(0)
        device, trains, size = torch.device(self.device), case.work == "step", (self.size, self.size)
        dtype = torch.bfloat16 if case.half and not trains else torch.float32
        shape = TINY if self.tiny else SD_15
        factor, unet = 2 ** (len(shape["vae"]["block_out_channels"]) - 1), bare_unet(shape)
        levels, side = feature_layers(unet, factor), self.size // factor
        spec = FeatureSpec(
            channels={level.stride: level.channels for level in levels},
            attention={level.stride: TOKENS for level in levels if level.maps},
        )
        head = SemanticFPN(spec, LABELS).to(device, dtype).train(trains)
        latents = torch.randn(1, 4, side, side).to(device, dtype)
        text = torch.randn(1, TOKENS, unet.config.cross_attention_dim).to(device, dtype)
        pixels, times = torch.rand(1, 3, *size).to(latents) * 2 - 1, torch.ones(1, device=device)
        targets = torch.randint(len(LABELS.classes), (1, *size), device=device)
        model: Any = unet
        if case.way == "eager":
            model = Published(unet, levels, side * side)
        elif case.way == "ours":
            model = backbone(
                shape, BackboneSettings(channels_last=self.channels_last), unet=unet, text_layers=1
            )
        model.to(device, dtype)

        def features() -> Any:
            if case.way == "bare":
                return model(latents, times, text, return_dict=False)
            return model(latents, text) if case.way == "eager" else model.pyramid_of(latents, text, size)

        def logits() -> Tensor:
            return head(model.pyramid(pixels, text), size)

        def step() -> None:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=case.half):
                loss = head.loss(head(features(), size), targets)
            loss.backward()

        gradients = torch.optim.SGD([*(_trained(case, model, unet) if trains else ()), *head.parameters()])
        work = {"features": features, "logits": logits, "step": step}[case.work]
        with torch.set_grad_enabled(trains):
            return measure(work, device, reset=gradients.zero_grad)


def bare_unet(shape: Shape) -> Any:
    """A frozen UNet of random weights."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config(shape["unet"]).eval().requires_grad_(False)


def backbone(
    shape: Shape, settings: BackboneSettings, *, unet: Any = None, text_layers: int | None = None
) -> StableDiffusion:
    """A backbone of random weights with the embedded tokenizer.

    Args:
        shape: configurations of the networks.
        settings: of the backbone.
        unet: a network that exists already.
        text_layers: layers of the text encoder, where texts are given encoded; None for all.
    """
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from tadp_da.mini import WEIGHTS

    layers = {} if text_layers is None else {"num_hidden_layers": text_layers}
    return StableDiffusion(
        unet or bare_unet(shape),
        AutoencoderKL.from_config(shape["vae"]),
        CLIPTextModel(CLIPTextConfig(**shape["text_encoder"] | layers)),
        CLIPTokenizer.from_pretrained(WEIGHTS / "stable-diffusion" / "tokenizer"),
        DDIMScheduler(),
        settings,
    )


def _trained(case: Case, model: Any, unet: Any) -> list[nn.Parameter]:
    """The parameters of the network that are trained."""
    if case.recomputes:
        unet.enable_gradient_checkpointing()
    if case.way == "ours":
        trained: list[nn.Parameter] = model.trainable(case.trains, rank=RANK)
        return trained
    return list(unet.requires_grad_(True).parameters())
