"""What a recipe costs before it runs: parameters, operations, memory, hours. All of it is estimated.

Operations are counted on tensors without data (:mod:`benchmarks.cost.counting`), of one image; a batch is that
many times as much. Not counted: captions, previews, class images of prior preservation, reading files, what a
detector does by the content of its images, and the model trained on unchanged images that redrawn ones are held
against, which is that of another row where a table has it. Every training step is taken to encode its images anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

from adapt.objectives import objectives
from adapt.sources import sources
from benchmarks.cost import counting
from benchmarks.cost.counting import Networks, Size
from benchmarks.recipe import Benchmark, Recipe
from tadp_da.backbones import portable_settings
from tadp_da.captions.strategies import find
from tadp_da.custom_dataset import CustomDataset, custom_domain
from tadp_da.domains import domains
from tadp_da.errors import UsageError
from tadp_da.registry import nearest


class Peak(NamedTuple):
    """Peaks of dense matrix products in TFLOPS, from the makers' data sheets: in half precision, and in full precision
    (TF32 where the GPU has it, else fp32). PyTorch uses TF32 for convolutions only unless told otherwise, so the
    fraction that is reached is smaller there."""

    half: float
    full: float


PEAKS: Mapping[str, Peak] = {
    "A100": Peak(312, 156), "H100": Peak(989, 495), "V100": Peak(125, 15.7), "L4": Peak(121, 60), "T4": Peak(65, 8.1),
    "RTX-4090": Peak(165, 83), "RTX-3090": Peak(71, 36),
}  # fmt: skip
PRECISIONS = ("auto", "no", "bf16", "fp16")
NO_BF16 = ("V100", "T4")
IMAGE_SIZES: Mapping[str, Size] = {
    "nyu-v2": (480, 640),
    "cityscapes": (1024, 2048),
    "dark-zurich": (1080, 1920),
    "nighttime-driving": (1080, 1920),
}
"""Height and width of the images of domains that have one size."""
USUAL = (375, 500)
"""Taken for images of other domains: the usual size in Pascal VOC."""
_OPTIMIZER_BYTES = {"adamw": 8, "adamw8bit": 2}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Floating point operations of a stage.

    Attributes:
        mixed: of what ``--precision`` reaches: training steps, with the encoding of their images, and evaluation.
        rest: of what always runs in full precision: latents and images that are made before training.
    """

    mixed: int = 0
    rest: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(mixed=self.mixed + other.mixed, rest=self.rest + other.rest)

    def __mul__(self, times: int) -> Work:
        return Work(mixed=times * self.mixed, rest=times * self.rest)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Operations per second of what ``--precision`` reaches, and of the rest."""

    mixed: float
    rest: float

    def hours(self, work: Work) -> float:
        """How long some work takes."""
        return (work.mixed / self.mixed + work.rest / self.rest) / 3600


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One row of a table, at one seed. Operations are floating point operations; memory is in bytes.

    Attributes:
        size: height and width of a training image.
        batch: images per forward pass.
        passes: forward passes per step.
        parameters: by part.
        trained: parameters that fine-tuning changes.
        encoding: operations of the frozen image encoder in one step.
        training: operations of network and head in one step, forward and backward.
        memory: by part while fine-tuning, without models of objectives, such as a teacher.
        work: of the stages: ``"personalize"``, ``"adapt"``, ``"evaluate"``.
    """

    size: Size
    batch: int
    passes: int
    parameters: Mapping[str, int]
    trained: int
    encoding: int
    training: int
    memory: Mapping[str, int]
    work: Mapping[str, Work]


class Planner:
    """Costs of the rows of a table; what several rows share is counted once.

    Args:
        image: height and width of images of domains that have no size of their own here.
        precision: ``"no"``, ``"bf16"`` or ``"fp16"``, for the memory of a training step.
    """

    def __init__(self, image: Size = USUAL, precision: str = "no") -> None:
        self.image, self.precision = image, precision
        self._known: dict[str, Any] = {}

    def cost(self, recipe: Recipe, *, memory: bool = True) -> Cost:
        """What one row costs at one seed.

        Raises:
            UsageError: when the model's shape is not known on this machine.
        """
        networks, adapt, size = self._networks(recipe), recipe.adapt, self.training_size(recipe)
        passes = adapt.batch * adapt.accumulate
        encoding = passes * self._encoding(recipe, size)
        recompute = adapt.gradient_checkpointing
        each, trained = self._once(
            counting.training_pass, [recipe, size], *self._trained(recipe), size, recompute
        )
        parts = {**networks.backbone.parts(), "head": networks.head}
        parameters = {name: counting.count(part) for name, part in parts.items()}
        held: dict[str, int] = {}
        if memory:
            networks_known = (*self._trained(recipe), size, adapt.batch, recompute, self.precision)
            step = self._once(counting.step_bytes, [recipe, size, self.precision], *networks_known)
            held["weights"] = sum(p.nbytes for part in parts.values() for p in part.parameters())
            held["gradients"] = 4 * trained
            held["optimizer"] = _OPTIMIZER_BYTES[adapt.optimizer] * trained
            held["average"] = 4 * trained if adapt.ema else 0
            held["activations"] = max(0, step - held["gradients"])
        work = {
            "personalize": self._personalizing(recipe, networks),
            "adapt": Work(
                mixed=adapt.steps * (encoding + passes * each) + self._on_target(recipe, size, each),
                rest=self._redrawing(recipe),
            ),
            "evaluate": self._evaluating(recipe),
        }
        return Cost(
            size=size, batch=adapt.batch, passes=adapt.accumulate, parameters=parameters, trained=trained,
            encoding=encoding, training=passes * each, memory=held, work=work,
        )  # fmt: skip

    def _on_target(self, recipe: Recipe, size: Size, each: int) -> int:
        """Operations that a training's objectives spend on target images; ``each`` is those of one, forward and
        backward."""
        adapt, total = recipe.adapt, 0
        for choice in recipe.objectives:
            objective = choice.built(objectives)
            objective.steps, (plain, learned) = adapt.steps, objective.passes
            if not plain + learned:
                continue
            steps = sum("target" in objective.reads(step) for step in range(adapt.steps))
            given = self._networks(recipe), size
            forward = self._once(counting.inference_pass, given, *self._shape(recipe), size)
            encoded = (plain + learned) * self._encoding(recipe, size)
            images = steps * (adapt.target_batch or adapt.batch) * adapt.accumulate
            total += images * (encoded + plain * forward + learned * each)
        return total

    def training_size(self, recipe: Recipe) -> Size:
        """Height and width of a training image: the crop, or else the working size."""
        return recipe.adapt.augment.crop or recipe.inference.size(*self.image_size(_trained_on(recipe)))

    def image_size(self, domain: str | CustomDataset) -> Size:
        """Height and width of a domain's images."""
        from tadp_da.domains.mini import SIZE

        if not isinstance(domain, str):
            return self.image
        return SIZE if domain.startswith("mini-") else IMAGE_SIZES.get(domain, self.image)

    def _once(self, make: Callable[..., T], given: Sequence[Any], *inputs: Any) -> T:
        """``make(*given)``, computed once for all rows that have the same ``inputs``."""
        key = json.dumps([make.__name__, *inputs], sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = make(*given)
        found: T = self._known[key]
        return found

    def _shape(self, recipe: Recipe) -> list[Any]:
        chosen = recipe.backbone
        backbone = [recipe.model, chosen.name, portable_settings(chosen.name, chosen.settings)]
        strategy = find(recipe.strategy)
        text = [bool(strategy.class_templates), strategy.class_tokens, bool(strategy.prompt_templates)]
        text.append(recipe.text_adapter)
        return [*backbone, recipe.head.name, recipe.head.settings, counting.label_space(recipe).classes, text]

    def _trained(self, recipe: Recipe) -> list[Any]:
        """What decides which parameters are trained."""
        mode = recipe.adapt.backbone
        return [*self._shape(recipe), mode, recipe.adapt.lora_rank if mode == "lora" else 0]

    def _networks(self, recipe: Recipe) -> Networks:
        return self._once(counting.build, [recipe], *self._shape(recipe))

    def _encoding(self, recipe: Recipe, size: Size) -> int:
        return self._once(counting.encoding, [self._networks(recipe), size], *self._shape(recipe), size)

    def _personalizing(self, recipe: Recipe, networks: Networks) -> Work:
        chosen = SimpleNamespace(**recipe.personalize.settings)
        if not hasattr(chosen, "steps") or recipe.target is None:
            return Work()
        asked = chosen.resolution or networks.backbone.default_resolution
        size: Size = (asked, asked) if isinstance(asked, int) else tuple(asked)
        known = _count(recipe.target, "unlabeled")
        images = min(known, recipe.target_images or known) * chosen.views * (2 if chosen.flip else 1)
        inputs = recipe.model, size, recipe.as_json()["personalize"]
        each = self._once(counting.noise_operations, [recipe, size], *inputs)
        passes = chosen.steps * chosen.batch * chosen.accumulate
        return Work(mixed=passes * each, rest=images * self._encoding(recipe, size))

    def _redrawing(self, recipe: Recipe) -> int:
        """Operations that the source style spends with the network before the training."""
        domain, passes = _trained_on(recipe), recipe.source_style.built(sources).passes
        if not passes:
            return 0
        size = recipe.inference.size(*self.image_size(domain))
        forward = self._once(
            counting.inference_pass, [self._networks(recipe), size], *self._shape(recipe), size
        )
        each = round(passes * forward) + 2 * self._encoding(recipe, size)  # decoding is taken to cost as much
        return _count(domain, "train") * each

    def _evaluating(self, recipe: Recipe) -> Work:
        total, inference = 0, recipe.evaluate.inference(recipe.inference)
        for domain in (recipe.source, *([] if recipe.target is None else [recipe.target])):
            for scale in inference.scales:
                views = inference.views(*inference.size(*self.image_size(domain), scale))
                window = (
                    views[0].rows.stop - views[0].rows.start,
                    views[0].columns.stop - views[0].columns.start,
                )
                given = self._networks(recipe), window
                forward = self._once(counting.inference_pass, given, *self._shape(recipe), window)
                each = self._encoding(recipe, window) + forward
                total += _count(domain, "test") * len(views) * each
        return Work(mixed=total)


def _trained_on(recipe: Recipe) -> str | CustomDataset:
    return recipe.target if recipe.train_on == "target" and recipe.target else recipe.source


def _count(domain: str | CustomDataset, split: str) -> int:
    from tadp_da.domains.mini import COUNTS

    if isinstance(domain, str):
        # the drawn world states no counts to compare with: a part of it is no fault
        counts = COUNTS if domain.startswith("mini-") else domains[domain].counts
        return counts.get(split, 0)
    own = custom_domain(domain)
    return len(own.images(domain.root, split)) if split in own.splits else 0


_OF_A_CONCEPT = (
    "personalize",
    "model",
    "backbone",
    "target",
    "target_images",
    "held_out",
    "captioner",
    "captions",
)


def whole(benchmark: Benchmark, planner: Planner, seeds: int = 1) -> dict[str, dict[str, Work]]:
    """Operations of every row by stage, over seeds; a concept or a model of an earlier row costs nothing again."""
    made: set[str] = set()
    rows = {}
    for name, recipe in benchmark.rows.items():
        work, inputs = dict(planner.cost(recipe, memory=False).work), recipe.as_json()
        trained = {field: value for field, value in inputs.items() if field != "evaluate"}
        concept = {field: inputs[field] for field in _OF_A_CONCEPT}
        for stage, of in {"personalize": concept, "adapt": trained}.items():
            key = json.dumps([stage, of], sort_keys=True)
            if key in made:
                work[stage] = Work()
            made.add(key)
        rows[name] = {stage: value * seeds for stage, value in work.items()}
    return rows


def throughput(gpu: str, tflops: float | None, utilisation: float, precision: str = "no") -> Speed:
    """Operations per second: a fraction of the named GPU's peaks, in half precision for what a half ``precision``
    reaches and in full precision for all else.

    Args:
        gpu: one of :data:`PEAKS`.
        tflops: its peak in half precision, if it is another; that in full precision follows in the ratio of the named
            GPU, and is half of it for an unknown GPU.
        utilisation: the fraction.
        precision: see :func:`precision_on`.

    Raises:
        UsageError: for an unknown GPU without ``tflops``, or an unknown precision.
    """
    if tflops is None and gpu not in PEAKS:
        raise UsageError(
            f"no peak is known for the GPU {gpu!r}{nearest(gpu, list(PEAKS))}",
            fix=f"choose one of: {', '.join(PEAKS)}; or state it: --tflops 100",
        )
    peak = PEAKS.get(gpu, Peak(1, 0.5))
    half = 1e12 * (peak.half if tflops is None else tflops) * utilisation
    full = half * peak.full / peak.half
    return Speed(mixed=full if precision_on(gpu, precision) == "no" else half, rest=full)


def precision_on(gpu: str, asked: str) -> str:
    """The precision of a GPU: ``"auto"`` becomes bf16 except on :data:`NO_BF16`.

    Raises:
        UsageError: for an unknown precision.
    """
    if asked not in PRECISIONS:
        raise UsageError(
            f"unknown precision {asked!r}{nearest(asked, list(PRECISIONS))}",
            fix=f"choose one of: {', '.join(PRECISIONS)}",
        )
    if asked == "auto":
        return "no" if gpu in NO_BF16 else "bf16"
    return asked
