"""Small tokenizers in the file formats of CLIP and of OPT (GPT-2), learned from a list of words.

Byte-pair encoding is trained until every given word is a single token. Merges are learned, because merges
written by hand interact: one word's merge may split another word.
Any other text is still encodable, in pieces down to single bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer, GPT2Tokenizer

CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
OPT_END, OPT_PAD, IMAGE = "</s>", "<pad>", "<image>"
CLIP_LENGTH = 77
_WORD = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")
_SPACE = "Ġ"  # how byte-level BPE writes the space in front of a word


def words_of(texts: Iterable[str]) -> list[str]:
    """The distinct lower-case words, digits and punctuation runs of `texts`, sorted."""
    found: set[str] = set()
    for text in texts:
        found.update(_WORD.findall(text.lower()))
    return sorted(found)


def _merges(words: list[str], suffix: str) -> list[tuple[str, str]]:
    """Byte-pair encoding of `words` (in byte-level letters): the merges, in order, that make one token of each.

    The trainer of the `tokenizers` library breaks ties in hash order, differently in each process; here the first pair
    of the alphabet wins, so that the same words always get the same ids.
    """
    split = [[*word[:-1], word[-1] + suffix] for word in words]
    merges = []
    while pairs := Counter(pair for parts in split for pair in pairwise(parts)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        split = [_merged(parts, best) for parts in split]
        merges.append(best)
    return merges


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """`parts` with every occurrence of `pair` joined, from the left."""
    joined: list[str] = []
    rest = iter(range(len(parts)))
    for place in rest:
        if tuple(parts[place : place + 2]) == pair:
            joined.append("".join(pair))
            next(rest)
        else:
            joined.append(parts[place])
    return joined


def _alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _vocabulary(pieces: Iterable[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def clip_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """A `CLIPTokenizer` (77 positions) in which each of `words` is one token.

    The vocabulary has the layout of CLIP's: bytes, bytes that end a word, merges, start and end of text.
    """
    merges = _merges(sorted(set(words)), "</w>")
    letters = _alphabet()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    return CLIPTokenizer(
        vocab=_vocabulary([*pieces, CLIP_START, CLIP_END]), merges=merges, model_max_length=CLIP_LENGTH
    )


def opt_tokenizer(words: Iterable[str], length: int) -> GPT2Tokenizer:
    """A `GPT2Tokenizer` with OPT's special tokens in which each of `words`, with or without a space before it, is one
    token. A text starts with `</s>`, as OPT's do; `<image>` marks the positions of BLIP-2's queries."""
    plain = sorted(set(words))
    merges = _merges([*plain, *(_SPACE + word for word in plain)], "")
    pieces = ["<s>", OPT_PAD, OPT_END, *_alphabet(), *("".join(pair) for pair in merges), IMAGE]
    tokenizer = GPT2Tokenizer(
        vocab=_vocabulary(pieces),
        merges=merges,
        bos_token=OPT_END,
        eos_token=OPT_END,
        unk_token=OPT_END,
        pad_token=OPT_PAD,
        add_bos_token=True,
        model_max_length=length,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    return tokenizer
