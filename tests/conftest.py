"""Fixtures shared by all tests: a tiny Stable Diffusion, saved and loaded by the real libraries."""

from __future__ import annotations

import copy
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test reaches for a network
# What a test computes twice it shall compute twice: only tests of the cache have one.
os.environ["TADP_DA_CACHE"] = "off"
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores; before torch counts them
    os.environ["OMP_NUM_THREADS"] = "1"
# tests/tadp_da has the name of the package it tests: the package must be found first.
sys.path.insert(0, str(Path(__file__).parent.parent))

import pytest
from hypothesis import settings

# a busy machine is no failure, and a test fails always or never
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
# The libraries are millions of objects, and looking through them again and again took an eighth of the time.
gc.set_threshold(100_000, 20, 50)

#: Each is one token of the tiny tokenizer; any other word is spelled in letters.
WORDS = [
    "a",
    "an",
    "the",
    "in",
    "of",
    "at",
    "on",
    "and",
    "with",
    "photo",
    "picture",
    "painting",
    "style",
    "image",
    "street",
    "road",
    "car",
    "cars",
    "person",
    "tree",
    "building",
    "sky",
    "night",
    "dark",
    "day",
    "fog",
    "foggy",
    "rain",
    "snow",
    "watercolor",
    "comic",
    "sketch",
    "dashcam",
    "cat",
    "dog",
    "one",
    "two",
    "three",
]


DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))
"""For tests that run on a GPU too: ``@pytest.mark.parametrize("device", DEVICES)``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    import torch

    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing and not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="torch finds no NVIDIA GPU here"))


def clip_tokenizer(words: Sequence[str] = tuple(WORDS)) -> Any:
    """A ``CLIPTokenizer`` of 77 positions whose merges were trained until every given word is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
    )
    model.train_from_iterator(list(words), trainer)
    merges = [tuple(pair) for pair in json.loads(model.to_str())["model"]["merges"]]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    pieces = list(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def save_tiny_pipeline(
    folder: Path, *, seed: int = 0, scheduler: dict[str, Any] | None = None, width: int = 32, layers: int = 1
) -> Path:
    """Write a Stable Diffusion of random weights: 64x64 pixels, latents at a quarter of that, text width ``width``.

    One layer per block, where the real one has two, takes half the time."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=16,
        layers_per_block=layers,
        block_out_channels=(32, 32, 64, 64),
        attention_head_dim=4,
        cross_attention_dim=width,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    settings |= {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    pipeline = StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**(settings | (scheduler or {}))),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Stable Diffusion (epsilon prediction) in the diffusers format. Read only."""
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def _loaded_backbone(tiny_pipeline: Path) -> Any:
    from tadp_da.backbones.stable_diffusion import StableDiffusion

    return StableDiffusion.from_pretrained(str(tiny_pipeline))


@pytest.fixture
def backbone(_loaded_backbone: Any) -> Any:
    """A fresh ``StableDiffusion`` on the tiny pipeline, free to be changed: strides 4, 8, 16, 32; maps at 8, 16."""
    return copy.deepcopy(_loaded_backbone)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs ``tadp-da`` in this process; its exit code."""

    from tadp_da import cli

    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["tadp-da", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    return run
