"""Prompts and new words: a CLIP tokenizer and its text encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tadp_da.errors import ArtifactError, DataError, UsageError


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids without begin and end marks, uncut."""
    return tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids


def encode(tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> Tensor:
    """Prompts to the last hidden state of all positions, ``(b, t, d)``: begin mark, tokens, end marks to the end.

    Raises:
        DataError: for a prompt over the limit; nothing is truncated silently.
    """
    positions = int(text_encoder.config.max_position_embeddings)
    for prompt in prompts:
        if (count := len(token_ids(tokenizer, prompt))) > positions - 2:
            raise DataError(
                f"a prompt has {count} tokens; the text encoder reads {positions - 2}",
                where=f"{prompt[:60]!r}...",
                fix="shorten the caption or the template around it",
            )
    batch = tokenizer(list(prompts), padding="max_length", max_length=positions, return_tensors="pt")
    return text_encoder(batch.input_ids.to(text_encoder.device)).last_hidden_state


@contextmanager
def trained_rows(tokenizer: Any, text_encoder: Any, tokens: Sequence[str]) -> Iterator[nn.Parameter]:
    """The tokens' embedding rows ``(n, d)`` as a parameter of its own, written back at the end."""
    from peft import TrainableTokensConfig, inject_adapter_in_model

    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    table = text_encoder.get_input_embeddings()
    place = next(name for name, module in text_encoder.named_modules() if module is table)
    inject_adapter_in_model(TrainableTokensConfig(target_modules=[place], token_indices=ids), text_encoder)
    layer: Any = text_encoder.get_submodule(place)
    rows: nn.Parameter = layer.trainable_tokens_delta["default"]
    try:
        yield rows
    finally:
        text_encoder.set_input_embeddings(table)
        text_encoder.__dict__.pop("peft_config", None)
    with torch.no_grad():
        table.weight[ids] = rows.to(table.weight)


def initial_row(tokenizer: Any, text_encoder: Any, like: str) -> Tensor:
    """Embedding row ``(d,)`` of ``like``: the mean over its tokens.

    Raises:
        UsageError: when ``like`` has no token.
    """
    ids = token_ids(tokenizer, like)
    if not ids:
        raise UsageError(
            f"the initializer {like!r} has no token",
            where="like",
            fix="give a word near the concept, such as 'night'",
        )
    return text_encoder.get_input_embeddings().weight.detach()[ids].mean(0)


def add(tokenizer: Any, text_encoder: Any, words: Sequence[str], rows: Tensor) -> None:
    """Make every word one token with its row of ``rows (n, d)``; tokenizer and embedding grow, all other rows stay.

    Raises:
        UsageError: when a word is in the vocabulary already or is not one word.
        ArtifactError: when the rows are of another width, or not finite.
    """
    from tokenizers import AddedToken

    for word in words:
        require_new(tokenizer, word)
    require_rows(text_encoder, rows)
    # Whole words only: "sks" must not be found inside "masks".
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in words])
    trainable = text_encoder.get_input_embeddings().weight.requires_grad
    size = max(len(tokenizer), text_encoder.get_input_embeddings().num_embeddings)
    text_encoder.resize_token_embeddings(size, mean_resizing=False)
    weight = text_encoder.get_input_embeddings().weight
    weight.requires_grad_(trainable)
    with torch.no_grad():
        weight[tokenizer.convert_tokens_to_ids(list(words))] = rows.to(weight)


def require_new(tokenizer: Any, word: str) -> None:
    """Check that ``word`` can become a token.

    Raises:
        UsageError: when it is empty, holds blanks, or is one token already.
    """
    if not word or word.split() != [word]:
        raise UsageError(
            f"{word!r} is not one word", where="--word", fix="choose a word without blanks, such as '<night>'"
        )
    if len(token_ids(tokenizer, word)) == 1:
        raise UsageError(
            f"the word {word!r} is in the vocabulary already; learning it would change what it means",
            where="--word",
            fix=f"choose a new word, such as '<my-{word.strip('<>')}>'",
        )


def model_of_width(width: int) -> str:
    """Which models have text of this width, as far as the width tells."""
    known = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
    known |= {1280: "Stable Diffusion XL (second text encoder)", 2048: "Stable Diffusion XL"}
    return f"{known.get(width, 'a model')} with text of width {width}"


def require_rows(text_encoder: Any, rows: Tensor) -> None:
    """Check that rows fit the text encoder.

    Raises:
        ArtifactError: when they are of another width, or not finite.
    """
    width = text_encoder.get_input_embeddings().embedding_dim
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ArtifactError(
            f"learned rows of shape {tuple(rows.shape)} are those of {model_of_width(rows.shape[-1])}; "
            f"this is {model_of_width(width)}",
            where="learned_embeds.safetensors",
            fix="use the model that it was learned on (--model sd-1.5, sd-2.1 or a folder), or learn it again on this "
            "one",
        )
    if not rows.is_meta and not bool(rows.isfinite().all()):
        raise ArtifactError(
            "learned rows hold numbers that are not finite",
            where="learned_embeds.safetensors",
            fix="learn the concept again with a lower learning rate",
        )
