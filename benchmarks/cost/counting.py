"""One real step of a recipe's networks on tensors without data: its operations, and its memory.

The networks are those of the runs, built on the ``meta`` device (:meth:`tadp_da.backbones.Backbone.on_meta`). The
loss is not run, because it depends on the content of images and labels; it has next to no operations. A head whose loss
runs layers of its own, as a detector's does on the regions that it draws, offers ``probe(raw)``: a scalar that depends
on all of its parameters, computed on as many regions as it trains on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from benchmarks.recipe import Recipe
from personalize import personalizers
from tadp_da.backbones import Backbone, Scope, meta_backbone
from tadp_da.captions.strategies import find
from tadp_da.custom_dataset import custom_domain
from tadp_da.domains import domains
from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.types import LabelSpace

Size = tuple[int, int]


@dataclass(frozen=True)
class Networks:
    """The networks of a recipe without data."""

    backbone: Backbone
    head: Any
    tokens: int | None = None
    """Of text, where it is not the backbone's encoding of a prompt."""

    def latents(self, size: Size, batch: int = 1) -> Tensor:
        """What the backbone makes of a batch of images of ``size``, padded to its grid."""
        grid = max(self.backbone.spec.channels)
        padded = [side + -side % grid for side in size]
        return self.backbone.encode_image(torch.empty(batch, 3, *padded, device=self.backbone.device))

    def text(self, batch: int = 1) -> Tensor:
        """Encoded prompts."""
        with torch.no_grad():
            text = self.backbone.encode_text(["a probe"] * batch)
        return text if self.tokens is None else text[:, :1].expand(-1, self.tokens, -1)

    def perceive(self, latents: Tensor, text: Tensor, size: Size) -> Tensor:
        """Backbone and head on latents; a scalar that depends on every parameter that is trained."""
        pyramid = self.backbone.pyramid_of(latents, text, size, attention=self.head.use_attention)
        raw = self.head(pyramid, size)
        if hasattr(self.head, "probe"):
            return self.head.probe(raw)
        return torch.stack([x.sum() for x in pytree.tree_leaves(raw) if isinstance(x, Tensor)]).sum()

    def train(self, recipe: Recipe) -> int:
        """Make trainable what the recipe trains, and return its number of parameters."""
        self.head.requires_grad_(True)
        trained = self.backbone.trainable(recipe.adapt.backbone, rank=recipe.adapt.lora_rank)
        return sum(p.numel() for p in trained) + count(self.head)


def build(recipe: Recipe) -> Networks:
    """The networks of a recipe, nothing of the backbone trainable."""
    backbone = meta_backbone(recipe.backbone.name, recipe.model, recipe.backbone.settings)
    backbone.requires_grad_(False)
    labels, spec, tokens = label_space(recipe), backbone.spec, None
    if find(recipe.strategy).class_templates:
        tokens = len(labels.classes)
        spec = spec.reading(tokens)
    with torch.device("meta"):
        kind = heads[recipe.head.name]
        head = kind(spec, labels, kind.Settings(**recipe.head.settings))
    return Networks(backbone, head, tokens)


def label_space(recipe: Recipe) -> LabelSpace:
    """What the head predicts. Of the user's own data no image is read: names come from the recipe, its legend or the
    categories of its COCO file.

    Raises:
        UsageError: when there are no labels to learn from, or nothing names their classes.
        DataError: when a COCO file is not of that form.
    """
    choice = recipe.target if recipe.train_on == "target" and recipe.target else recipe.source
    domain = domains[choice] if isinstance(choice, str) else custom_domain(choice)
    if domain.labels is None:
        raise UsageError(
            f"domain {domain.name!r} has no labels to learn from",
            fix="choose a labelled source, or give masks or boxes with your own images",
        )
    return domain.labels


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def encoding(networks: Networks, size: Size) -> int:
    """Operations of encoding an image."""
    return operations(lambda: networks.latents(size))


def inference_pass(networks: Networks, size: Size) -> int:
    """Operations of network and head on an encoded image, forward."""
    latents, text = networks.latents(size), networks.text()
    with torch.no_grad():
        return operations(lambda: networks.perceive(latents, text, size))


def training_pass(recipe: Recipe, size: Size) -> tuple[int, int]:
    """Operations of network and head on an encoded image, forward and backward, and how many parameters are trained."""
    networks = build(recipe)
    trained = networks.train(recipe)
    latents, text = networks.latents(size), networks.text()
    with networks.backbone.gradient_checkpointing(recipe.adapt.gradient_checkpointing):
        return operations(lambda: networks.perceive(latents, text, size).backward()), trained


def noise_operations(recipe: Recipe, size: Size) -> int:
    """Operations of a step of stage 1 on one image, forward and backward: on the network's weights (text encoded
    before), or on the rows of a word alone."""
    chosen = personalizers[recipe.personalize.name](**recipe.personalize.settings)
    networks = build(recipe)
    backbone, latents = networks.backbone, networks.latents(size)

    def step(text: Callable[[], Tensor]) -> int:
        return operations(lambda: backbone.noise_loss(latents, text(), torch.Generator()).sum().backward())

    if chosen.learns_weights:
        scope: Scope = getattr(chosen, "mode", "full")
        backbone.trainable(scope, rank=getattr(chosen, "rank", 1), prediction=True)
        encoded = networks.text()
        return step(lambda: encoded)
    tokens = backbone.add_tokens(chosen.word, chosen.like, chosen.vectors)
    with backbone.trained_rows(tokens):
        return step(lambda: backbone.encode_text([" ".join(tokens)]))


def operations(work: Callable[[], Any]) -> int:
    """Floating point operations of some work: two for a multiplication and its addition. Matrix products,
    convolutions and attention are counted, the rest is not.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def step_bytes(recipe: Recipe, size: Size, precision: str) -> int:
    """Peak of memory in a training step beyond weights, optimizer and inputs: activations, gradients, and what is
    alive for a moment. Attention is fused except in the layers whose maps are read.

    Args:
        recipe: batch, what is trained, and whether activations are recomputed.
        size: height and width of training images.
        precision: ``"no"``, ``"bf16"`` or ``"fp16"``, of the forward pass.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    networks, batch = build(recipe), recipe.adapt.batch
    networks.train(recipe)
    # Fused attention is chosen by the device: fake tensors have one.
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in (networks.backbone, networks.head):
            module.to_empty(device="cpu")
        text = networks.text(batch)
        return live_bytes(
            networks, lambda: networks.perceive(networks.latents(size, batch), text, size), recipe, precision
        )


def live_bytes(networks: Networks, forward: Callable[[], Tensor], recipe: Recipe, precision: str) -> int:
    """Peak of the bytes of all tensors that a forward and a backward pass make: every storage once, from its creation
    until nothing holds it."""
    owned = [*networks.backbone.parameters(), *networks.head.parameters()]
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    with _Live(owned) as made, networks.backbone.gradient_checkpointing(recipe.adapt.gradient_checkpointing):
        with torch.autocast("cpu", kind, enabled=precision != "no"):
            loss = forward()
        loss.backward()
    return made.peak


class _Live(TorchDispatchMode):
    """Counts the bytes of storages that operations make."""

    def __init__(self, owned: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known = WeakIdKeyDictionary({tensor.untyped_storage(): True for tensor in owned})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(made):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known[storage] = True
                self.live += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return made

    def _freed(self, size: int) -> None:
        self.live -= size
