"""Prompts that say nothing of the domain: the baselines."""

from __future__ import annotations

from tadp_da.captions.strategies import CaptionStrategy, PromptContext, strategies


def no_text(caption: str, context: PromptContext) -> str:
    """The empty prompt: what the network does without being told anything."""
    return ""


def null(caption: str, context: PromptContext) -> str:
    """The caption as it is (the row "null" of the paper, the bar to beat)."""
    return caption


strategies.add("no-text")(CaptionStrategy(rewrite=no_text, summary="the empty prompt"))
strategies.add("null")(CaptionStrategy(rewrite=null, summary="the caption as it is"))
