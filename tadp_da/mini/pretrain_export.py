"""Write what was trained in the folder formats of diffusers and transformers, in half precision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, StableDiffusionPipeline
from tokenizers import Tokenizer
from transformers import Blip2ForConditionalGeneration, CLIPTokenizer, GenerationConfig, GPT2Tokenizer

from tadp_da.mini.pretrain_blip2 import LENGTH, new_processor
from tadp_da.mini.pretrain_loop import atomic
from tadp_da.mini.pretrain_unet import Denoiser, new_scheduler

DIFFUSION, CAPTIONER = "stable-diffusion", "blip2"


def export_diffusion(vae: AutoencoderKL, denoiser: Denoiser, tokenizer: CLIPTokenizer, folder: Path) -> Path:
    """`folder/stable-diffusion`, which `StableDiffusionPipeline.from_pretrained` loads."""

    def write(draft: Path) -> None:
        pipeline = StableDiffusionPipeline(
            vae=vae, text_encoder=denoiser.text_encoder, tokenizer=tokenizer, unet=denoiser.unet,
            scheduler=new_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        for part in (vae, denoiser):
            part.half()
        pipeline.save_pretrained(draft, safe_serialization=True)
        _single_precision(draft / "text_encoder" / "config.json")
        _plain_bpe(tokenizer.backend_tokenizer, draft / "tokenizer")

    return _replaced(folder / DIFFUSION, write)


def export_captioner(model: Blip2ForConditionalGeneration, tokenizer: GPT2Tokenizer, folder: Path) -> Path:
    """`folder/blip2`, which `Blip2ForConditionalGeneration` and `Blip2Processor` load. Decoding is greedy."""

    def write(draft: Path) -> None:
        model.generation_config = GenerationConfig(
            max_new_tokens=LENGTH,
            do_sample=False,
            num_beams=1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        # Blip2's generate asks the language model's own settings, which from_pretrained makes from its config
        model.config.text_config.max_new_tokens = LENGTH
        model.half().save_pretrained(draft, safe_serialization=True)
        _single_precision(draft / "config.json")
        new_processor(tokenizer, model.config.vision_config.image_size).save_pretrained(draft)
        _plain_bpe(tokenizer.backend_tokenizer, draft)

    return _replaced(folder / CAPTIONER, write)


def _replaced(target: Path, write: Callable[[Path], None]) -> Path:
    """Fill a new folder, then put it in the place of the old one."""
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write(draft)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return target


def _single_precision(path: Path) -> None:
    """Say float32 in a transformers config: files stay half as large, models load at the precision that a CPU needs."""
    config = json.loads(path.read_text())

    def mark(node: dict[str, Any]) -> None:
        for key, value in node.items():
            if key == "dtype":
                node[key] = "float32"
            elif isinstance(value, dict):
                mark(value)

    mark(config)
    atomic(path, lambda draft: draft.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n"))


def _plain_bpe(tokenizer: Tokenizer, folder: Path) -> None:
    """vocab.json and merges.txt beside tokenizer.json, for readers of the older format."""
    tokenizer.model.save(str(folder))
