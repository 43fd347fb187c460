"""The captioner: a BLIP-2 (ViT, Q-Former, OPT) small enough to train from scratch on two cores.

The real BLIP-2 starts from a pretrained ViT, trains the Q-Former on tasks of its own, and only then adds a
pretrained language model. Here all three are trained from scratch together, so each of the first two has an auxiliary
task: the ViT classifies every patch and detects the center of countable things in it, the Q-Former counts them. Without
these, counting would have to be learned through the language model alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    GPT2Tokenizer,
)

from tadp_da.mini.pretrain_data import COUNTED, PATCH, TrainingImages, mirrored
from tadp_da.mini.pretrain_loop import Budget, Draw, Schedule, Training, train
from tadp_da.mini.pretrain_vae import recoloured
from tadp_da.mini.word_tokens import IMAGE
from tadp_da.mini.world import CLASSES

SCHEDULE = Schedule(lr=1e-3, warmup=300, weight_decay=0.05, ema=0.998)
QUERIES = 16
MOST = 6  # counts 0 .. 5, more counts as 5
LENGTH = 64  # longest text in tokens, without the queries
WIDTH = 128


def new_config(tokenizer: GPT2Tokenizer, size: int = 128, width: int = WIDTH) -> Blip2Config:
    """The captioner's architecture: patches of 8 pixels, the width of a distant person."""
    common = {"hidden_size": width, "num_attention_heads": 4, "initializer_range": 0.02}
    return Blip2Config(
        vision_config={
            **common, "intermediate_size": 4 * width, "num_hidden_layers": 4, "image_size": size, "patch_size": PATCH,
        },
        qformer_config={
            **common, "intermediate_size": 4 * width, "num_hidden_layers": 2, "cross_attention_frequency": 1,
            "encoder_hidden_size": width, "vocab_size": 8, "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            "model_type": "opt", "hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": 4 * width,
            "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": len(tokenizer), "dropout": 0.0,
            "max_position_embeddings": QUERIES + LENGTH, "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        },
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_text_hidden_size=width,
    )  # fmt: skip


def new_processor(tokenizer: GPT2Tokenizer, size: int = 128) -> Blip2Processor:
    """Image and text preprocessing in the transformers format."""
    images = BlipImageProcessor(size={"height": size, "width": size})
    return Blip2Processor(images, tokenizer, num_query_tokens=QUERIES)


class TrainableCaptioner(nn.Module):
    """BLIP-2 and the heads of the auxiliary tasks, which are discarded after training."""

    def __init__(self, config: Blip2Config) -> None:
        super().__init__()
        self.blip2 = Blip2ForConditionalGeneration(config)
        # transformers starts all queries at zero: equal queries get equal gradients and stay equal
        nn.init.normal_(self.blip2.query_tokens, std=0.5)
        self.patches = nn.Linear(config.vision_config.hidden_size, len(CLASSES) + len(COUNTED))
        self.counts = nn.Linear(QUERIES * config.qformer_config.hidden_size, len(COUNTED) * MOST)

    def forward(self, pixels: Tensor, tokens: Tensor, attention: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For pixels (b 3 h w): next-token scores (b t k) of tokens (b t), patch scores (b u v c), and scores of the
        counts (b thing number)."""
        output = self.blip2(pixel_values=pixels, input_ids=tokens, attention_mask=attention)
        seen = output.vision_outputs.last_hidden_state[:, 1:]
        side = int(seen.shape[1] ** 0.5)
        counts = self.counts(output.qformer_outputs.last_hidden_state.flatten(1))
        return output.logits, self.patches(seen).unflatten(1, (side, side)), counts.unflatten(1, (-1, MOST))


def distorted(images: Tensor, draw: Draw) -> Tensor:
    """Random brightness, contrast, colour, blur and noise (b 3 h w in -1..1): captions must not depend on one look."""
    count = len(images)
    images = recoloured(images, draw, 0.3)
    contrast = draw.uniform(0.6, 1.3, count, 1, 1, 1)
    brightness = draw.uniform(-0.3, 0.3, count, 1, 1, 1)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, draw.uniform(0.3, 1.3, count, 1, 1, 1)) * contrast + brightness
    blurred = gaussian_blur(images, [3, 3], [float(draw.numpy.uniform(0.4, 1.2))])
    images = torch.where(draw.uniform(0, 1, count, 1, 1, 1) < 0.3, blurred, images)
    noise = draw.uniform(0, 0.08, count, 1, 1, 1) * draw.normal(*images.shape)
    return (images + noise).clamp(-1, 1)


def _batch(data: TrainingImages, draw: Draw, batch: int) -> tuple[Tensor, Tensor, list[str]]:
    chosen = draw.indices(len(data), batch)
    images = torch.from_numpy(data.images[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
    cells = torch.from_numpy(data.cells[chosen]).float()
    flip = draw.uniform(0, 1, batch, 1, 1, 1) < 0.5
    images, cells = torch.where(flip, images.flip(-1), images), torch.where(flip, cells.flip(2), cells)
    captions = [
        mirrored(data.captions[index]) if mirror else data.captions[index]
        for index, mirror in zip(chosen, flip.flatten().tolist(), strict=True)
    ]
    return distorted(images, draw), cells, captions


def _tokens(tokenizer: GPT2Tokenizer, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Input tokens, attention mask and targets: queries, start, words, end."""
    text = tokenizer(
        [f"{caption}{tokenizer.eos_token}" for caption in captions], padding=True, return_tensors="pt"
    )
    image = torch.full((len(captions), QUERIES), tokenizer.convert_tokens_to_ids(IMAGE))
    tokens = torch.cat([image, text.input_ids], 1)
    attention = torch.cat([torch.ones_like(image), text.attention_mask], 1)
    targets = tokens.masked_fill(attention == 0, -100)
    targets[:, : QUERIES + 1] = -100
    return tokens, attention, targets


def _losses(
    model: TrainableCaptioner,
    tokenizer: GPT2Tokenizer,
    mean: Tensor,
    std: Tensor,
    data: TrainingImages,
    batch: int,
    draw: Draw,
) -> dict[str, Tensor]:
    images, cells, captions = _batch(data, draw, batch)
    tokens, attention, targets = _tokens(tokenizer, captions)
    with torch.autocast("cpu", torch.bfloat16):
        scores, patches, counts = model((images / 2 + 0.5 - mean) / std, tokens, attention)
    patches = patches.float()
    share = cells[..., : len(CLASSES)]
    share = share / share.sum(-1, keepdim=True).clamp(min=1)
    classes = -(share * patches[..., : len(CLASSES)].log_softmax(-1)).sum(-1).mean()
    # few patches contain a thing: weight them up, or the head predicts "nothing" everywhere
    things = F.binary_cross_entropy_with_logits(
        patches[..., len(CLASSES) :], cells[..., len(CLASSES) :].clamp(max=1), pos_weight=torch.tensor(5.0)
    )
    words = F.cross_entropy(scores[:, :-1].float().flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
    true = cells[..., len(CLASSES) :].sum((1, 2)).long().clamp(max=MOST - 1)
    number = F.cross_entropy(counts.float().flatten(0, 1), true.flatten())
    return {"words": words, "classes": classes, "things": 5 * things, "counts": 0.5 * number}


def train_blip2(
    data: TrainingImages, tokenizer: GPT2Tokenizer, budget: Budget, work: Path, seed: int,
    schedule: Schedule = SCHEDULE, batch: int = 32,
) -> nn.Module:  # fmt: skip
    """Train end to end with the language-model loss on the captions of all pretraining looks."""
    torch.manual_seed(seed)
    model = TrainableCaptioner(new_config(tokenizer, data.size))
    images = new_processor(tokenizer, data.size).image_processor
    mean, std = (torch.tensor(values)[:, None, None] for values in (images.image_mean, images.image_std))
    return train(
        model, lambda draw: _losses(model, tokenizer, mean, std, data, batch, draw), budget, schedule,
        work / "blip2", seed,
    )  # fmt: skip


def load_captioner(tokenizer: GPT2Tokenizer, work: Path, size: int = 128) -> Blip2ForConditionalGeneration:
    """The captioner with the averaged weights of the last checkpoint, finished or not."""
    model = TrainableCaptioner(new_config(tokenizer, size))
    state = Training(model, work / "blip2", SCHEDULE)
    if not state.resume():
        raise FileNotFoundError(f"{state.checkpoint} does not exist: run the stage 'blip2' first")
    state.averaged()
    return model.blip2
