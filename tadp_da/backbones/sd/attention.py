"""Catching features and cross-attention maps in a UNet's forward pass, and the kernel of all other attention.

A :class:`FeatureRecorder` is shared by hooks and attention processors that stay in the UNet: its state decides what is
recorded, so nothing is added or removed between passes. Outside of a recording every processor is
the kernel that was chosen for the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tadp_da.backbones.sd.kernels import Attention, attention_processor
from tadp_da.errors import EnvironmentSetupError


class FeatureRecorder:
    """Features and maps of one forward pass, by stride."""

    def __init__(self) -> None:
        self.recording = False
        self.mapping = False
        self._features: dict[int, Tensor] = {}
        self._maps: dict[int, tuple[Tensor, int]] = {}
        self.layers: dict[tuple[int, str], Tensor] | None = None

    @contextmanager
    def record(self, *, maps: bool) -> Iterator[None]:
        """Record the passes inside; with ``maps`` the captured cross-attention layers also give their maps."""
        self._features, self._maps = {}, {}
        self.recording, self.mapping = True, maps
        try:
            yield
        finally:
            self.recording = self.mapping = False

    def feature(self, stride: int, hidden: Tensor) -> None:
        """Keep a feature ``(b, c, u, v)``."""
        self._features[stride] = hidden

    @contextmanager
    def keep_layers(self) -> Iterator[dict[tuple[int, str], Tensor]]:
        """Maps ``(b, t, u, v)`` of each layer by stride and name, of the last pass inside that was taken."""
        self.layers = {}
        try:
            yield self.layers
        finally:
            self.layers = None

    def add_map(self, stride: int, probabilities: Tensor, name: str = "") -> None:
        """Add one layer's head-mean probabilities ``(b, u*v, t)`` to the mean of its stride."""
        if self.recording:
            if self.layers is not None:
                self.layers[stride, name] = probabilities
            total, count = self._maps.get(stride, (0, 0))
            self._maps[stride] = (total + probabilities, count + 1)

    def take(self, size: tuple[int, int] | None = None) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Features ``(b, c, u, v)`` and layer-mean maps ``(b, t, u, v)``, both finest first, without the padding of
        images of ``size`` (h, w); empties the recorder."""
        whole = dict(sorted(self._features.items()))

        def crop(stride: int, x: Tensor) -> Tensor:
            return x if size is None else x[..., : -(-size[0] // stride), : -(-size[1] // stride)]

        def unflattened(stride: int, flat: Tensor) -> Tensor:
            return crop(stride, flat.transpose(1, 2).unflatten(2, whole[stride].shape[-2:]))

        maps = {s: unflattened(s, total / count) for s, (total, count) in sorted(self._maps.items())}
        if self.layers is not None:
            self.layers.update({key: unflattened(key[0], flat) for key, flat in self.layers.items()})
        self._features, self._maps = {}, {}
        return {s: crop(s, x) for s, x in whole.items()}, maps

    def checkpoint(self, module: nn.Module, *args: Any) -> Any:
        """Gradient checkpointing that recomputes a block the way it ran: with maps where maps were recorded.

        The backward pass runs after the recording has ended; plain checkpointing would then recompute with another
        attention and fail.
        """
        again: AbstractContextManager[None] = _Replay(self) if self.mapping else nullcontext()
        return checkpoint(module, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again))


class _Replay(AbstractContextManager[None]):
    """Compute as if maps were recorded, and drop them. Can be entered again, as a second backward pass does."""

    def __init__(self, recorder: FeatureRecorder) -> None:
        self.recorder = recorder

    def __enter__(self) -> None:
        self.recorder.mapping = True

    def __exit__(self, *_: object) -> None:
        self.recorder.mapping = False


class FeatureHook:
    """Forward hook that records a block's output.

    An object rather than a closure, so that a copied backbone records into its own recorder.
    """

    def __init__(self, stride: int, recorder: FeatureRecorder) -> None:
        self.stride, self.recorder = stride, recorder

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.recorder.recording:
            self.recorder.feature(self.stride, output[0] if isinstance(output, tuple) else output)


class MapProcessor:
    """Cross-attention that can show its probabilities.

    While maps are recorded the softmax is explicit and its one result serves both the output and the map; text has 77
    keys, so this costs little. Otherwise it is ``plain``, which starts as diffusers' ``AttnProcessor2_0``.
    """

    def __init__(self, stride: int, name: str, recorder: FeatureRecorder) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.stride, self.name, self.recorder = stride, name, recorder
        self.plain: Any = AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if not self.recorder.mapping:
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        # The scale goes in before the product, which would overflow in fp16 otherwise.
        query = heads(attn.to_q(hidden_states)) * attn.scale
        key, value = heads(attn.to_k(encoder_hidden_states)), heads(attn.to_v(encoder_hidden_states))
        probabilities = _scores(query, key, upcast=attn.upcast_attention).softmax(dim=-1, dtype=torch.float32)
        self.recorder.add_map(self.stride, probabilities.mean(dim=1), self.name)
        mixed = (probabilities.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](mixed))


def _scores(query: Tensor, key: Tensor, *, upcast: bool) -> Tensor:
    """Products of queries and keys; in fp32 for models that ask for it, whose products overflow in fp16 (SD 2.1)."""
    if not upcast or query.dtype == torch.float32:
        return query @ key.transpose(-1, -2)
    with torch.autocast(query.device.type, enabled=False):
        return query.float() @ key.float().transpose(-1, -2)


class Kernel:
    """The kernel of all attention whose maps nobody reads, chosen when a UNet first runs on a kind of device.

    Layers are given it one by one: the switches that diffusers has for a whole model would throw the capture away.

    Args:
        wanted: which one.
        unet: its attention layers but the captured ones get the kernel.
        captured: captured layers; their processors use the kernel while no map is recorded.
    """

    def __init__(
        self, wanted: Attention, unet: nn.Module, captured: list[tuple[nn.Module, MapProcessor]]
    ) -> None:
        from diffusers.models.attention_processor import Attention as Layer
        from diffusers.models.attention_processor import AttnProcessor2_0

        captured_ids = {id(layer) for layer, _ in captured}
        self.wanted, self.kind = wanted, AttnProcessor2_0  # what a fresh UNet has
        self.layers = [m for m in unet.modules() if isinstance(m, Layer) and id(m) not in captured_ids]
        self.processors = [processor for _, processor in captured]
        self.device = ""

    def settle(self, device: torch.device) -> None:
        """Choose for the device, if that has not been done.

        Raises:
            EnvironmentSetupError: when the kernel that was asked for does not run there.
        """
        if device.type == self.device:
            return
        chosen = attention_processor(self.wanted, device)
        if type(chosen) is not self.kind:
            for layer in self.layers:
                layer.set_processor(chosen)
            for processor in self.processors:
                processor.plain = chosen
        self.device, self.kind = device.type, type(chosen)


def require_capture(layers: list[tuple[nn.Module, MapProcessor]]) -> None:
    """Check that every captured attention layer still has its processor.

    Raises:
        EnvironmentSetupError: when something replaced it; maps would then be missing without a word.
    """
    for layer, processor in layers:
        found: object = layer.processor
        if found is not processor:
            raise EnvironmentSetupError(
                f"attention capture was replaced by {type(found).__name__}",
                where="cross-attention of the UNet",
                fix="do not call enable_xformers_memory_efficient_attention, set_attn_processor or "
                "set_default_attn_processor on the UNet; load the backbone afresh",
            )
