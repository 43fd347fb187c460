"""Measure the embedded default on scenes it was not trained on, and draw what it makes.

    python -m tadp_da.mini.report --out docs/mini

Writes `report.json`, `report.md`, `samples.jpg`, `counts.jpg` and `reconstructions.jpg`. Held-out looks are
measured too.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from tadp_da.mini import WEIGHTS
from tadp_da.mini.pretrain_data import COUNTED, trained_looks
from tadp_da.mini.pretrain_export import CAPTIONER, DIFFUSION
from tadp_da.mini.styles import LOOKS, render
from tadp_da.mini.world import Scene, draw_scene, parse_counts

SEED = 1000  # a world that no image of the pretraining comes from
PROMPT = "a city street with two cars, a person and three trees"
COUNTED_PROMPTS = (
    "a photo of a city street",
    "a photo of a city street with two people",
    "a photo of a city street with a car and three people",
    "a photo of a city street with three cars",
)
STEPS, GUIDANCE = 30, 3.0
NEW_TOKENS = 48
Rows = dict[str, dict[str, float]]
RGBImage = NDArray[np.uint8]


class Captions:
    """The captioner in `weights/blip2`."""

    def __init__(self, weights: Path) -> None:
        folder = weights / CAPTIONER
        self.processor = Blip2Processor.from_pretrained(folder)
        self.model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()

    def __call__(self, images: Sequence[RGBImage | Image.Image], batch: int = 32) -> list[str]:
        """One caption for each RGB image (h w 3)."""
        found: list[str] = []
        for start in range(0, len(images), batch):
            inputs = self.processor(images=list(images[start : start + batch]), return_tensors="pt")
            tokens = self.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
            found += [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
        return found


def agreement(found: Sequence[Mapping[str, int]], true: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Percent of pairs with the same count of each thing, and of all three."""
    same = np.array([[a[thing] == b[thing] for thing in COUNTED] for a, b in zip(found, true, strict=True)])
    rates = dict(zip(COUNTED, (100 * same.mean(0)).tolist(), strict=True))
    return {**rates, "all": 100 * float(same.all(1).mean())}


def caption_accuracy(captions: Captions, scenes: Sequence[Scene], seed: int) -> Rows:
    """Counts in captions against counts in scenes, per look."""
    true = [scene.counts for scene in scenes]
    rows: Rows = {}
    for look in LOOKS:
        images = [render(scene, look, seed, index) for index, scene in enumerate(scenes)]
        rows[look] = agreement([parse_counts(text) for text in captions(images)], true)
    return rows


def psnr(images: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each image pair (b 3 h w in -1..1)."""
    return 10 * torch.log10(4 / (images - other).square().mean((1, 2, 3)))


def reconstructions(
    vae: AutoencoderKL, scenes: Sequence[Scene], seed: int, shown: int = 4
) -> tuple[Rows, RGBImage]:
    """PSNR per look through the autoencoder, and for each look a row of images, reconstructions to their right."""
    rows: Rows = {}
    strips = []
    for look in LOOKS:
        drawn = np.stack([render(scene, look, seed, index) for index, scene in enumerate(scenes)])
        images = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
        decoded = torch.cat([_through(vae, part) for part in images.split(16)])
        rows[look] = {"PSNR": float(psnr(images, decoded).mean())}
        back = ((decoded[:shown] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        strips.append(np.hstack([*drawn[:shown], *back]))
    return rows, np.vstack(strips)


def _through(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        decoded: torch.Tensor = vae.decode(vae.encode(images).latent_dist.mode()).sample
    return decoded.clamp(-1, 1)


def sample(pipeline: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int]) -> list[RGBImage]:
    """One RGB image per prompt and seed."""
    drawn: list[RGBImage] = []
    for start in range(0, len(prompts), 16):
        part = slice(start, start + 16)
        noise = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
        output = pipeline(
            list(prompts[part]), num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=noise,
            output_type="np",
        )  # fmt: skip
        drawn += [(255 * image).round().astype(np.uint8) for image in output.images]
    return drawn


def sample_grid(pipeline: StableDiffusionPipeline, prompts: Sequence[str], columns: int = 8) -> RGBImage:
    """One row of samples per prompt; the same noise in each column."""
    drawn = sample(
        pipeline, [text for text in prompts for _ in range(columns)], [*range(columns)] * len(prompts)
    )
    return np.vstack([np.hstack(drawn[i : i + columns]) for i in range(0, len(drawn), columns)])


def sample_counts(pipeline: StableDiffusionPipeline, captions: Captions, scenes: Sequence[Scene]) -> Rows:
    """Whether samples hold what their prompt counts, read by the captioner; and as a control, whether they hold what
    the prompt of another sample counts."""
    prompts = [f"a photo of {scene.caption}" for scene in scenes]
    found = [parse_counts(text) for text in captions(sample(pipeline, prompts, range(len(prompts))))]
    expected = [parse_counts(text) for text in prompts]
    return {
        "the prompt's own counts": agreement(found, expected),
        "another prompt's counts (control)": agreement(found, expected[1:] + expected[:1]),
    }


def table(title: str, rows: Rows) -> str:
    """A Markdown table, one line per row."""
    names = list(next(iter(rows.values())))
    lines = [f"### {title}", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(f'{row[column]:.1f}' for column in names)} |" for name, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure the embedded default on unseen scenes.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--scenes", type=int, default=200, help="unseen scenes for captions")
    parser.add_argument("--samples", type=int, default=64, help="samples whose counts are read")
    options = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    scenes = [draw_scene(SEED, index) for index in range(options.scenes)]
    pipeline = StableDiffusionPipeline.from_pretrained(options.weights / DIFFUSION)
    pipeline.set_progress_bar_config(disable=True)
    captions = Captions(options.weights)
    ratios, sheet = reconstructions(pipeline.vae, scenes[:32], SEED)
    Image.fromarray(sheet).save(options.out / "reconstructions.jpg", quality=88)
    looks = [LOOKS[look].templates[0].format(caption=PROMPT) for look in trained_looks()]
    for name, prompts in (("samples", looks), ("counts", COUNTED_PROMPTS)):
        Image.fromarray(sample_grid(pipeline, prompts)).save(options.out / f"{name}.jpg", quality=88)
    tables = {
        "Reconstruction, dB": ratios,
        "Captions with the right count, %": caption_accuracy(captions, scenes, SEED),
        "Samples with the right count, %": sample_counts(pipeline, captions, scenes[: options.samples]),
    }
    text = "\n".join(table(title, rows) for title, rows in tables.items())
    print(text)
    (options.out / "report.md").write_text(text)
    (options.out / "report.json").write_text(json.dumps(tables, indent=1) + "\n")


if __name__ == "__main__":
    main()
