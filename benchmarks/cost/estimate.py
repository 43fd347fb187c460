"""What a recipe costs before it runs: parameters, operations, memory, hours. All of it is estimated.

Operations are counted on tensors without data (:mod:`benchmarks.cost.counting`), of one image; a batch is that
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

from benchmarks.cost import counting
from benchmarks.cost.counting import Networks, Size
from benchmarks.recipe import Benchmark, Recipe
from tadp_da.backbones import portable_settings
from tadp_da.datasets import CustomDataset
from tadp_da.domains import domains
from tadp_da.errors import UsageError
from tadp_da.registry import nearest

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
        encoding: operations of the frozen image encoder in one step.
        learning: operations of network and head in one step, forward and backward.
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
        encoding = passes * self._encoding(recipe, size)
        each, trained = self._learning(recipe, size)
        learning = passes * each
        parts = {**networks.backbone.parts(), "head": networks.head}
        parameters = {name: counting.count(part) for name, part in parts.items()}
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
                "evaluate": self._evaluating(recipe),
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
            self._known[key] = make()
        return self._known[key]

    def _shape(self, recipe: Recipe) -> list[Any]:
        chosen = recipe.backbone
        backbone = [recipe.model, chosen.name, portable_settings(chosen.name, chosen.settings)]
        return [*backbone, recipe.head.name, recipe.head.settings, counting.label_space(recipe).classes]

    def _training(self, recipe: Recipe) -> list[Any]:
        """What decides which parameters move."""
        mode = recipe.adapt.backbone
        return [*self._shape(recipe), mode, recipe.adapt.lora_rank if mode == "lora" else 0]

    def _networks(self, recipe: Recipe) -> Networks:
        found: Networks = self._once("networks", self._shape(recipe), lambda: counting.build(recipe))
        return found

    def _encoding(self, recipe: Recipe, size: Size) -> int:
        def count() -> int:
            return counting.operations(lambda: self._networks(recipe).latents(size))

        return int(self._once("encode", [*self._shape(recipe), size], count))

    def _looking(self, recipe: Recipe, size: Size) -> int:
        def count() -> int:
            networks = self._networks(recipe)
            latents, text = networks.latents(size), networks.text()
            with torch.no_grad():
                return counting.operations(lambda: networks.perceive(latents, text, size))

        return int(self._once("look", [*self._shape(recipe), size], count))

    def _learning(self, recipe: Recipe, size: Size) -> tuple[int, int]:
        """Operations of a pass, forward and backward, and how many parameters move."""
        again = recipe.adapt.gradient_checkpointing

        def count() -> tuple[int, int]:
            networks = counting.build(recipe)
            trained = networks.train(recipe)
            latents, text = networks.latents(size), networks.text()
            with networks.backbone.gradient_checkpointing(again):
                step = counting.operations(lambda: networks.perceive(latents, text, size).backward())
            return step, trained

        found: tuple[int, int] = self._once("learn", [*self._training(recipe), size, again], count)
        return found

    def _personalizing(self, recipe: Recipe, networks: Networks) -> Work:
        chosen = SimpleNamespace(**recipe.personalize.settings)
        if not hasattr(chosen, "steps") or recipe.target is None:
            return Work()
        asked = chosen.resolution or networks.backbone.default_resolution
        size: Size = (asked, asked) if isinstance(asked, int) else tuple(asked)
        there = _count(recipe.target, "unlabeled")
        images = min(there, recipe.target_images or there) * chosen.views * (2 if chosen.flip else 1)
        key = [recipe.model, size, recipe.as_json()["personalize"]]
        each = int(self._once("noise", key, lambda: counting.noise_operations(recipe, size)))
        passes = chosen.steps * chosen.batch * chosen.accumulate
        return Work(training=passes * each, rest=images * self._encoding(recipe, size))

    def _evaluating(self, recipe: Recipe) -> Work:
        total = 0
        for domain in (recipe.source, recipe.target):
            if domain is None:
                continue
            size = recipe.inference.size(*self.image_size(domain))
            windows = recipe.inference.windows(*size)
            rows, columns = windows[0]
            window = rows.stop - rows.start, columns.stop - columns.start
            each = self._encoding(recipe, window) + self._looking(recipe, window)
            total += _count(domain, "test") * len(windows) * (2 if recipe.inference.flip else 1) * each
        return Work(rest=total)

    def _kept(self, recipe: Recipe, size: Size) -> int:
        key = [*self._training(recipe), size]
        return int(self._once("kept", key, lambda: counting.kept_for_backward(recipe, size)))

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
