"""A random BLIP-2 small enough for tests, in the format that transformers writes, and pictures to caption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    PreTrainedTokenizerFast,
)

from tadp_da.types import Unlabeled

WORDS = [
    "a",
    "an",
    "the",
    "[/car]",
    "street",
    "two",
    "trees",
    "road",
    "sky",
    "person",
    "on",
    "with",
    "and",
    "of",
]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
QUERIES = 4
PLACES = 64


def new_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def write_blip2(folder: Path, seed: int = 0, width: int = 16) -> Path:
    """A BLIP-2 with random weights: its captions mean nothing, but they are a function of the image."""
    torch.manual_seed(seed)
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": 32, "width": 32}), new_tokenizer(), num_query_tokens=QUERIES
    )
    tokenizer = processor.tokenizer
    common = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = Blip2Config(
        vision_config={**common, "image_size": 32, "patch_size": 8},
        qformer_config={**common, "encoder_hidden_size": width, "vocab_size": 8, "cross_attention_frequency": 1},
        text_config={
            "model_type": "opt", "hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": 2 * width,
            "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": len(tokenizer),
            "max_position_embeddings": PLACES, "tie_word_embeddings": False,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_text_hidden_size=width,
    )  # fmt: skip
    model = Blip2ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # from the library's small start every image gets the same caption
                parameter.normal_()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blip2(tmp_path_factory.mktemp("blip2"))


@pytest.fixture
def pictures(tmp_path: Path) -> Unlabeled:
    """Ten random pictures of several sizes in two folders."""
    root = tmp_path / "pictures"
    paths = []
    for i in range(10):
        path = root / ("night" if i % 2 else "day") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        size = (20 + 4 * (i % 3), 40, 3)
        flat = rng.integers(0, 256, (1, 1, 3)) // 2
        Image.fromarray((flat + rng.integers(0, 128, size)).astype(np.uint8)).save(path)
        paths.append(path)
    return Unlabeled(domain="pictures", root=root, paths=tuple(paths))
