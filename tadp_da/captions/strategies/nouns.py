"""Prompts that list the nouns of the caption; TADP compares them with whole captions in table 1."""

from __future__ import annotations

from tadp_da.captions import nouns
from tadp_da.captions.strategies import CaptionStrategy, PromptContext, strategies


def only_nouns(caption: str, context: PromptContext) -> str:
    """The nouns of the caption in their order, each once."""
    return ", ".join(nouns.nouns(caption))


strategies.add("nouns")(CaptionStrategy(rewrite=only_nouns, summary="the nouns of the caption, each once"))
