"""Captions per second of a BLIP-2 of random weights, one image at a time and in batches, without its real weights:

    python -m benchmarks.profiling.caption_speed                # the shape of blip2-opt-2.7b in bf16: 8 GiB

Every caption has the same number of tokens, so that random weights take the time of real ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.profiling.measure import MIB, Cost, machine, measure, options_of
from benchmarks.reports.tables import grid
from tadp_da.captions.captioner import Captioner, CaptionerSettings

OPT_27B: dict[str, Any] = {
    "model_type": "opt", "hidden_size": 2560, "word_embed_proj_dim": 2560, "ffn_dim": 10240, "num_hidden_layers": 32,
    "num_attention_heads": 32, "vocab_size": 50304, "max_position_embeddings": 2048, "eos_token_id": 50118,
}  # fmt: skip
"""The language model of blip2-opt-2.7b; its vision model and its Q-Former are the defaults of transformers."""
IMAGE_TOKEN = 50265
PARTS = ("vision_config", "qformer_config", "text_config")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def captioner(
    tokens: int, dtype: torch.dtype, device: str, *, layers: int | None = None, tiny: bool = False
) -> Captioner:
    """A BLIP-2 of random weights with the embedded tokenizer, whose captions have no meaning.

    Args:
        tokens: of every caption.
        dtype: of its weights.
        device: where they are.
        layers: most layers of each of the three parts; None for all.
        tiny: next to no width, for tests.
    """
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor
    from transformers.initialization import no_init_weights

    from tadp_da.mini import WEIGHTS

    parts: dict[str, dict[str, Any]] = {name: {} for name in PARTS} | {"text_config": OPT_27B}
    if tiny:
        narrow = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
        own = [{}, {"encoder_hidden_size": 32}, {"word_embed_proj_dim": 32, "ffn_dim": 64}]
        parts = {name: parts[name] | narrow | more for name, more in zip(PARTS, own, strict=True)}
    config = Blip2Config(**parts, image_token_index=IMAGE_TOKEN)
    for part in (getattr(config, name) for name in PARTS):
        part.num_hidden_layers = min(part.num_hidden_layers, layers or part.num_hidden_layers)
    with no_init_weights():
        model = Blip2ForConditionalGeneration._from_config(config, dtype=dtype)
    _fill(model)
    processor = Blip2Processor.from_pretrained(WEIGHTS / "blip2")
    side = config.vision_config.image_size
    processor.image_processor.size = {"height": side, "width": side}
    settings = CaptionerSettings(max_new_tokens=tokens, min_new_tokens=tokens)
    return Captioner("blip2-opt-2.7b of random weights", model.to(device).eval(), processor, settings)


@torch.no_grad()
def _fill(model: torch.nn.Module) -> None:
    """The same noise over and over: drawing billions of numbers would take longer than captioning."""
    noise = torch.randn(2**22, generator=torch.Generator().manual_seed(0)) * 0.02
    for parameter in model.parameters():
        for part in parameter.view(-1).split(len(noise)):
            part.copy_(noise[: len(part)])


def run(model: Captioner, batches: Sequence[int], repeat: int) -> dict[int, list[Cost]]:
    """Caption noise, every batch size once per round."""
    noise = np.random.default_rng(0).integers(256, size=(max(batches), 375, 500, 3), dtype=np.uint8)
    images = [Image.fromarray(values) for values in noise]
    costs: dict[int, list[Cost]] = {batch: [] for batch in batches}
    for _ in range(repeat):
        for batch in batches:
            costs[batch].append(measure(partial(model, images[:batch]), model.model.device))
    return costs


def table(costs: dict[int, list[Cost]]) -> str:
    """Markdown: captions per second, memory, and the gain over the first batch size in the same round."""
    lines = []
    first, base = next(iter(costs.items()))
    for batch, rounds in costs.items():
        rate = batch / statistics.median(cost.seconds for cost in rounds)
        extra = statistics.median(cost.extra_bytes for cost in rounds) / MIB
        gains = [(batch / c.seconds) / (first / one.seconds) for one, c in zip(base, rounds, strict=True)]
        lines.append([str(batch), f"{rate:.3g}", f"{extra:.0f}", f"{statistics.median(gains):.2f}"])
    return grid(["batch", "captions/s", "MiB above the weights", "gain"], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options_of("benchmarks.profiling.caption_speed", "Captions per second of BLIP-2, by batch size.")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=16, help="of every caption")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--layers", type=int, help="most layers of each of the three parts; all if not given")
    parser.add_argument("--tiny", action="store_true", help="next to no width: only to see that it works")
    options = parser.parse_args(arguments)
    dtype, limits = DTYPES[options.dtype], {"layers": options.layers, "tiny": options.tiny}
    model = captioner(options.tokens, dtype, options.device, **limits)
    size = sum(p.numel() for p in model.model.parameters())
    depths = ", ".join(str(getattr(model.model.config, name).num_hidden_layers) for name in PARTS)
    print(table(run(model, options.batch, options.repeat)))
    print(
        f"\n{size / 1e9:.2f} billion parameters in {options.dtype}, layers of vision model, Q-Former and language "
        f"model {depths}; {options.tokens} tokens per caption, {options.repeat} rounds, {machine(options.device)}"
    )


if __name__ == "__main__":
    main()
