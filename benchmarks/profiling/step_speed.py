"""Optimizer steps per second of personalization, beside what the diffusers example scripts do at every step:

    python -m benchmarks.profiling.step_speed                    # on the embedded model
    python -m benchmarks.profiling.step_speed --shape sd-1.5     # Stable Diffusion 1.5 of random weights

The scripts open and encode every image again at every step, encode its prompt, and textual inversion gives the
optimizer all of the embedding matrix and restores the other rows afterwards. Ours encodes what is frozen once and
trains the new rows alone. Both ways work on the same model, images and batch size and take turns step by step, so that
a busy machine slows both. DreamBooth of Stable Diffusion needs 22 GiB, or 12 with ``--optimizer adamw8bit``, because
two optimizers hold their states.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from benchmarks.profiling.full_size_cases import TINY, backbone
from benchmarks.profiling.measure import machine, options_of, synchronize
from benchmarks.reports.tables import grid
from personalize.denoising import LatentDataset, NoisePrediction, Prompts, Text, text_table
from personalize.latents import encode, target_size, to_pixels
from personalize.methods.dreambooth import DreamBooth
from personalize.methods.textual_inversion import TextualInversion
from tadp_da.backbones.sd.shapes import SD_15
from tadp_da.backbones.stable_diffusion import BackboneSettings, StableDiffusion
from tadp_da.run import Run
from tadp_da.training.loop import LoopSettings, fit
from tadp_da.types import Unlabeled

GOAL = 1.5
SHAPES = {"sd-1.5": SD_15, "tiny": TINY}
HEADER = ["method", "ours, steps/s", "theirs, steps/s", "ratio", "goal", "", "ours once before, s"]
_SEED, _IMAGES, _MOST_STEPS = 0, 5, 100_000
Method = TextualInversion | DreamBooth


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Seconds of each step of both ways, in turn, and what ours did once before."""

    ours: Sequence[float]
    theirs: Sequence[float]
    once: float

    @property
    def ratio(self) -> float:
        """How many steps of ours fit into one of theirs: the median over pairs of neighbours in time."""
        return statistics.median(t / o for o, t in zip(self.ours, self.theirs, strict=True))

    def row(self, method: str) -> list[str]:
        """A line of the table."""
        rates = [f"{1 / statistics.median(seconds):.3g}" for seconds in (self.ours, self.theirs)]
        met = "met" if self.ratio >= GOAL else "missed"
        return [method, *rates, f"{self.ratio:.2f}", str(GOAL), met, f"{self.once:.1f}"]


class Script:
    """A step as the diffusers example scripts take it: nothing is kept from one step to the next.

    Args:
        model: its VAE and scheduler are used as they are, its UNet is shared.
        text_encoder: of the prompts.
        images: opened anew for every batch.
        prompt: of every image.
        chosen: batch, size and optimizer.
    """

    def __init__(
        self, model: StableDiffusion, text_encoder: Any, images: Unlabeled, prompt: str, chosen: Method
    ) -> None:
        self.model, self.text_encoder, self.images = model, text_encoder, images
        self.prompt, self.chosen, self.device = prompt, chosen, model.device
        self.size, self.next = target_size(chosen, model), 0
        self.rng = np.random.default_rng(_SEED)

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The same as ours."""
        make: Any = torch.optim.AdamW
        if self.chosen.optimizer == "adamw8bit":
            from bitsandbytes.optim import AdamW8bit

            make = AdamW8bit
        return make(parameters, lr=self.chosen.learning_rate, weight_decay=self.chosen.weight_decay)

    def pixels(self) -> Tensor:
        """The next batch, from the files."""
        batch = []
        for _ in range(self.chosen.batch):
            image = self.images[self.next % len(self.images)].convert("RGB").resize(self.size[::-1])
            batch.append(ImageOps.mirror(image) if self.rng.random() < 0.5 else image)
            self.next += 1
        return to_pixels(batch).to(self.device)

    def text(self) -> Tensor:
        """The batch's prompts, encoded."""
        prompts = [self.prompt] * self.chosen.batch
        ids = self.model.tokenizer(
            prompts, padding="max_length", max_length=77, return_tensors="pt"
        ).input_ids
        return self.text_encoder(ids.to(self.device)).last_hidden_state

    def loss(self, text: Tensor) -> Tensor:
        """Mean squared error of the prediction for the next batch."""
        scheduler, vae = self.model.scheduler, self.model.vae
        with torch.no_grad():
            latents = vae.encode(self.pixels()).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        times = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), device=self.device)
        found = self.model.unet(scheduler.add_noise(latents, noise, times), times, text).sample
        velocity = scheduler.config.prediction_type == "v_prediction"
        return F.mse_loss(found, scheduler.get_velocity(latents, noise, times) if velocity else noise)

    def whole_matrix(self, tokens: Sequence[str]) -> Callable[[], None]:
        """Textual inversion: a step on all of the embedding matrix, then all rows but the new ones are restored."""
        self.text_encoder.requires_grad_(False)
        matrix = self.text_encoder.get_input_embeddings().weight.requires_grad_(True)
        before = matrix.detach().clone()
        others = torch.ones(len(matrix), dtype=torch.bool, device=self.device)
        others[self.model.tokenizer.convert_tokens_to_ids(list(tokens))] = False
        step = self.step([matrix], learns_text=True)

        def restoring() -> None:
            step()
            with torch.no_grad():
                matrix[others] = before[others]

        return restoring

    def step(self, parameters: Sequence[nn.Parameter], *, learns_text: bool = False) -> Callable[[], None]:
        """A step on parameters; DreamBooth's gradients are clipped, and text is encoded without."""
        optimizer = self.optimizer(parameters)

        def step() -> None:
            with torch.set_grad_enabled(learns_text):
                text = self.text()
            self.loss(text).backward()
            if not learns_text:
                torch.nn.utils.clip_grad_norm_(parameters, self.chosen.clip)
            optimizer.step()
            optimizer.zero_grad()

        return step


@dataclass(frozen=True)
class Turns:
    """A step of each way, and the seconds that ours took once, before its first step."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    once: float


@contextmanager
def both_ways(model: StableDiffusion, images: Unlabeled, chosen: Method, run: Run) -> Iterator[Turns]:
    """Textual inversion trains the rows of a new word, the script all of the embedding matrix in a text encoder of its
    own; DreamBooth trains all of the UNet by either way."""
    begun = time.perf_counter()
    text: Text = model.encode_text
    if isinstance(chosen, TextualInversion):
        tokens, sentences = model.add_tokens(chosen.word, chosen.like), chosen.sentences
    else:
        tokens, sentences = (chosen.word,), (chosen.prompt,)
    prompts = Prompts.of(sentences, tokens[0], images, None)
    views = LatentDataset(encode(model, images, chosen, run), prompts)
    if isinstance(chosen, DreamBooth):
        text = text_table(model, prompts.all(), run)
    once = time.perf_counter() - begun
    with ExitStack() as stack:
        if isinstance(chosen, TextualInversion):
            script = Script(model, copy.deepcopy(model.text_encoder), images, prompts.say(0, 0), chosen)
            parameters = [stack.enter_context(model.trained_rows(tokens))]
            theirs = script.whole_matrix(tokens)
        else:
            script = Script(model, model.text_encoder, images, prompts.say(0, 0), chosen)
            parameters = model.trainable("full", prediction=True)
            theirs = script.step(parameters)
        objective = NoisePrediction(model, text).requires_grad_(False).eval()
        for parameter in parameters:
            parameter.requires_grad_(True)
        groups = [{"params": parameters, "lr": chosen.learning_rate, "weight_decay": chosen.weight_decay}]
        loop = LoopSettings(steps=_MOST_STEPS, batch=chosen.batch, clip=chosen.clip)
        steps = fit(objective, groups, {"source": views}, loop, run, optimizer=chosen.optimizer)
        yield Turns(lambda: next(steps), theirs, once)


def compare(turns: Turns, steps: int, device: torch.device) -> StepTimes:
    """Seconds of each step of ours and of theirs, in turn; the first of each is not counted."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(steps + 1):
        for way, seconds in zip((turns.ours, turns.theirs), taken, strict=True):
            begun = time.perf_counter()
            way()
            synchronize(device)
            seconds.append(time.perf_counter() - begun)
    return StepTimes(ours=taken[0][1:], theirs=taken[1][1:], once=turns.once)


def draw_images(folder: Path, side: int) -> Unlabeled:
    """A few drawn scenes of that side as files."""
    from tadp_da.mini.styles import render
    from tadp_da.mini.world import draw_scene

    paths = tuple(folder / f"{index}.jpg" for index in range(_IMAGES))
    for index, path in enumerate(paths):
        scene = render(draw_scene(_SEED, index, (side, side)), "city-night", _SEED, index)
        Image.fromarray(scene).save(path, quality=95)
    return Unlabeled("city-night", folder, paths)


def run(method: str, options: argparse.Namespace) -> StepTimes:
    """Measure one method on a fresh model."""
    settings = BackboneSettings(channels_last=options.channels_last)
    torch.manual_seed(_SEED)
    mini = options.shape == "mini"
    model = (
        StableDiffusion.from_pretrained("mini", settings)
        if mini
        else backbone(SHAPES[options.shape], settings)
    )
    common: Any = {"batch": options.batch, "optimizer": options.optimizer, "resolution": options.size}
    own: Any = {"word": "<dusk>", "like": "night"}
    inversion = method == "textual-inversion"
    chosen: Method = TextualInversion(**common, **own) if inversion else DreamBooth(**common)
    with tempfile.TemporaryDirectory() as folder:
        the_run = Run(folder=Path(folder), seed=_SEED, device=options.device, quiet=True)
        model.to(the_run.torch_device)
        images = draw_images(Path(folder), target_size(chosen, model)[0])
        with both_ways(model, images, chosen, the_run) as turns:
            return compare(turns, options.steps, the_run.torch_device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    methods = ("textual-inversion", "dreambooth")
    parser = options_of(
        "benchmarks.profiling.step_speed",
        "Steps per second of personalization, beside the way of the diffusers example scripts.",
    )
    parser.add_argument("--shape", choices=["mini", *SHAPES], default="mini")
    parser.add_argument("--method", nargs="+", choices=methods, default=methods)
    parser.add_argument("--steps", type=int, default=10, help="counted steps of each way")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, help="side of the images; the model's own if not given")
    parser.add_argument("--optimizer", choices=["adamw", "adamw8bit"], default="adamw")
    parser.add_argument("--channels-last", action="store_true", help="the backbone's setting, for both ways")
    options = parser.parse_args(arguments)
    os.environ["TADP_DA_CACHE"] = "off"  # what was encoded for others would be found here
    print(grid(HEADER, [run(method, options).row(method) for method in options.method]))
    print(
        f"\n{options.shape}, batch {options.batch}, {options.optimizer}, fp32, {options.steps} steps of each way in "
        f"turn, {machine(options.device)}"
    )


if __name__ == "__main__":
    main()
