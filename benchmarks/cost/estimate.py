"""What a recipe costs before anything is paid: parameters, operations, memory, hours. All of it estimates.

Operations are counted on tensors without data (:mod:`benchmarks.cost.shapes`), of one image; a batch is that
many times as much. Not counted: captions, previews, class images of prior preservation, reading files, and what a
detector does by the content of its images. Every training step is taken to encode its images anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.cost import shapes as sizes
from benchmarks.cost.shapes import Networks
from benchmarks.recipe import Benchmark, Recipe
from tadp_da.datasets import CustomDataset
from tadp_da.domains import domains
from tadp_da.errors import UsageError
from tadp_da.registry import nearest

Size = tuple[int, int]
PEAKS: Mapping[str, float] = {
    "A100": 312, "H100": 989, "V100": 125, "L4": 121, "T4": 65, "RTX-4090": 165, "RTX-3090": 71,
}  # fmt: skip
"""Peak of dense half precision matrix products in TFLOPS, from the makers' data sheets."""
FULL_PEAKS: Mapping[str, float] = {
    "A100": 156, "H100": 495, "V100": 15.7, "L4": 60, "T4": 8.1, "RTX-4090": 83, "RTX-3090": 36,
}  # fmt: skip
"""The same in full precision, from the same data sheets: dense TF32 where the GPU has it, fp32 on V100 and T4. PyTorch
takes TF32 for convolutions only unless told otherwise, so the share that is reached is the smaller."""
PRECISIONS = ("no", "bf16", "fp16")
IMAGE_SIZES: Mapping[str, Size] = {
    "cityscapes": (1024, 2048),
    "dark-zurich": (1080, 1920),
    "nighttime-driving": (1080, 1920),
}
"""Height and width of the images of domains that have one size."""
USUAL = (375, 500)
"""Taken for images of other domains: the usual size in Pascal VOC."""
_OPTIMIZER_BYTES = {"adamw": 8, "adamw8bit": 2}


@dataclass(frozen=True, kw_only=True)
class Work:
    """Floating point operations of a stage.

    Attributes:
        training: of training steps, which ``--precision`` reaches, the encoding of their images among them.
        rest: of the passes outside of them, which always run in full precision: evaluation, latents taken beforehand.
    """

    training: int = 0
    rest: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(training=self.training + other.training, rest=self.rest + other.rest)

    def __mul__(self, times: int) -> Work:
        return Work(training=times * self.training, rest=times * self.rest)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Operations per second of training steps and of the rest."""

    training: float
    rest: float

    def hours(self, work: Work) -> float:
        """How long some work takes."""
        return (work.training / self.training + work.rest / self.rest) / 3600


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One row of a table, at one seed. Operations are floating point operations; memory is in bytes.

    Attributes:
        size: height and width of a training image.
        batch: images per forward pass.
        passes: forward passes per step.
        parameters: by part.
        trained: parameters that fine-tuning moves.
        encoding: operations of the frozen autoencoder in one step.
        learning: operations of UNet and head in one step, forward and backward.
        memory: by part while fine-tuning in fp32; None for what is not estimated.
        work: of the stages: ``"personalize"``, ``"adapt"``, ``"evaluate"``.
    """

    size: Size
    batch: int
    passes: int
    parameters: Mapping[str, int]
    trained: int
    encoding: int
    learning: int
    memory: Mapping[str, int | None]
    work: Mapping[str, Work]


class Planner:
    """Costs of the rows of a table; what several rows share is counted once.

    Args:
        image: height and width of images of domains that have no size of their own here.
    """

    def __init__(self, image: Size = USUAL) -> None:
        self.image = image
        self._known: dict[str, Any] = {}

    def cost(self, recipe: Recipe, *, memory: bool = True) -> Cost:
        """What one row costs at one seed.

        Raises:
            UsageError: when the model's shape is not known on this machine.
        """
        networks, adapt, size = self._networks(recipe), recipe.adapt, self.training_size(recipe)
        passes = adapt.batch * adapt.accumulate
        encoding = passes * self._encoding(recipe, networks, size)
        learning = passes * self._learning(recipe, networks, size)
        parts = ("unet", "vae", "text_encoder", "head")
        parameters = {part: sizes.count(getattr(networks, part)) for part in parts}
        trained = sizes.trained_parameters(recipe, networks)
        return Cost(
            size=size,
            batch=adapt.batch,
            passes=adapt.accumulate,
            parameters=parameters,
            trained=trained,
            encoding=encoding,
            learning=learning,
            memory=self._memory(recipe, sum(parameters.values()), trained, size) if memory else {},
            work={
                "personalize": self._personalizing(recipe, networks),
                "adapt": Work(training=adapt.steps * (encoding + learning)),
                "evaluate": self._evaluating(recipe, networks),
            },
        )

    def training_size(self, recipe: Recipe) -> Size:
        """Height and width of a training image: the crop, or else the working size."""
        source = recipe.target if recipe.train_on == "target" and recipe.target else recipe.source
        return recipe.adapt.augment.crop or recipe.inference.size(*self.image_size(source))

    def image_size(self, domain: str | CustomDataset) -> Size:
        """Height and width of a domain's images."""
        from tadp_da.domains.mini import SIZE

        if not isinstance(domain, str):
            return self.image
        return SIZE if domain.startswith("mini-") else IMAGE_SIZES.get(domain, self.image)

    def _once(self, kind: str, inputs: Any, make: Any) -> Any:
        key = json.dumps([kind, inputs], sort_keys=True, default=str)
        if key not in self._known:
            with sizes.shapes_only():
                self._known[key] = make()
        return self._known[key]

    def _shape(self, recipe: Recipe) -> list[Any]:
        return [recipe.model, recipe.head.name, recipe.head.settings, sizes.label_space(recipe).classes]

    def _networks(self, recipe: Recipe) -> Networks:
        found: Networks = self._once("networks", self._shape(recipe), lambda: sizes.build(recipe))
        return found

    def _encoding(self, recipe: Recipe, networks: Networks, size: Size) -> int:
        def count() -> int:
            return sizes.operations(lambda: sizes.encode(networks, size, 1))

        return int(self._once("encode", [recipe.model, size], count))

    def _looking(self, recipe: Recipe, networks: Networks, size: Size) -> int:
        def count() -> int:
            with torch.no_grad():
                return sizes.operations(lambda: sizes.perceive(networks, size, 1))

        return int(self._once("look", [*self._shape(recipe), size], count))

    def _learning(self, recipe: Recipe, networks: Networks, size: Size) -> int:
        """Forward and backward; low-rank layers cost next to nothing and save the gradients of what stays."""

        def count() -> int:
            networks.unet.requires_grad_(mode == "full")
            text = mode == "lora"  # gradients run through all of the UNet, to no weight of it
            try:
                return sizes.operations(lambda: sizes.perceive(networks, size, 1, moves=text).backward())
            finally:
                networks.unet.requires_grad_(True)

        mode = recipe.adapt.backbone
        counted = int(self._once("learn", [*self._shape(recipe), size, mode], count))
        again = recipe.adapt.gradient_checkpointing and mode != "frozen"
        return counted + (self._looking(recipe, networks, size) if again else 0)

    def _personalizing(self, recipe: Recipe, networks: Networks) -> Work:
        chosen = SimpleNamespace(**recipe.personalize.settings)
        if not hasattr(chosen, "steps") or recipe.target is None:
            return Work()
        asked = chosen.resolution or networks.unet.config.sample_size * networks.factor
        size: Size = (asked, asked) if isinstance(asked, int) else tuple(asked)
        method = recipe.personalize.name

        def count() -> int:
            return sizes.operations(lambda: sizes.learn_noise(networks, size, method).backward())

        there = _count(recipe.target, "unlabeled")
        images = min(there, recipe.target_images or there) * chosen.views * (2 if chosen.flip else 1)
        each = int(self._once("noise", [recipe.model, size, method], count))
        passes = chosen.steps * chosen.batch * chosen.accumulate
        return Work(training=passes * each, rest=images * self._encoding(recipe, networks, size))

    def _evaluating(self, recipe: Recipe, networks: Networks) -> Work:
        total = 0
        for domain in (recipe.source, recipe.target):
            if domain is None:
                continue
            size = recipe.inference.size(*self.image_size(domain))
            windows = recipe.inference.boxes(*size)
            rows, columns = windows[0]
            window = rows.stop - rows.start, columns.stop - columns.start
            each = self._encoding(recipe, networks, window) + self._looking(recipe, networks, window)
            total += _count(domain, "test") * len(windows) * (2 if recipe.inference.flip else 1) * each
        return Work(rest=total)

    def _kept(self, recipe: Recipe, size: Size) -> int:
        moves = recipe.adapt.backbone != "frozen"
        key = [*self._shape(recipe), size, moves]
        return int(self._once("kept", key, lambda: sizes.kept_for_backward(recipe, size, 1)))

    def _memory(self, recipe: Recipe, parameters: int, trained: int, size: Size) -> dict[str, int | None]:
        adapt = recipe.adapt
        kept = None if adapt.gradient_checkpointing else adapt.batch * self._kept(recipe, size)
        return {
            "weights": 4 * parameters,
            "gradients": 4 * trained,
            "optimizer": _OPTIMIZER_BYTES[adapt.optimizer] * trained,
            "average": 4 * trained if adapt.ema else 0,
            "activations": kept,
        }


def _count(domain: str | CustomDataset, split: str) -> int:
    return domains[domain].counts.get(split, 0) if isinstance(domain, str) else 0


def whole(benchmark: Benchmark, planner: Planner, seeds: int = 1) -> dict[str, dict[str, Work]]:
    """Operations of every row by stage, over seeds; a concept that an earlier row has learned costs nothing again."""
    learned: set[str] = set()
    rows = {}
    for name, recipe in benchmark.rows.items():
        work = dict(planner.cost(recipe, memory=False).work)
        concept = json.dumps(recipe.as_json()["personalize"], sort_keys=True)
        if concept in learned:
            work["personalize"] = Work()
        learned.add(concept)
        rows[name] = {stage: value * seeds for stage, value in work.items()}
    return rows


def throughput(gpu: str, tflops: float | None, utilisation: float, precision: str = "no") -> Speed:
    """Operations per second: a share of the named GPU's peaks, in half precision for training that is asked to be in it
    (a run's ``--precision``) and in full precision for all else.

    Args:
        gpu: one of :data:`PEAKS`.
        tflops: its peak in half precision, where it is another; that in full precision then stands to it as those of
            the named GPU do, and is half of it for a GPU that is not known.
        utilisation: the share.
        precision: ``"no"``, ``"bf16"`` or ``"fp16"``.

    Raises:
        UsageError: for a GPU that is not known when no peak is given, or an unknown precision.
    """
    if tflops is None and gpu not in PEAKS:
        raise UsageError(
            f"no peak is known for the GPU {gpu!r}{nearest(gpu, list(PEAKS))}",
            fix=f"choose one of: {', '.join(PEAKS)}; or state it: --tflops 100",
        )
    if precision not in PRECISIONS:
        raise UsageError(
            f"unknown precision {precision!r}{nearest(precision, list(PRECISIONS))}",
            fix=f"choose one of: {', '.join(PRECISIONS)}",
        )
    ratio = FULL_PEAKS[gpu] / PEAKS[gpu] if gpu in PEAKS else 0.5
    half = 1e12 * (PEAKS[gpu] if tflops is None else tflops) * utilisation
    full = half * ratio
    return Speed(training=full if precision == "no" else half, rest=full)
