"""Prompts without information about the domain: the baselines."""

from __future__ import annotations

from tadp_da.captions.strategies import CaptionStrategy, PromptContext, strategies


def no_text(caption: str, context: PromptContext) -> str:
    """The empty prompt."""
    return ""


def null(caption: str, context: PromptContext) -> str:
    """The unchanged caption (the row "null" of the paper, the baseline to beat)."""
    return caption


strategies.add("no-text")(CaptionStrategy(rewrite=no_text, summary="the empty prompt"))
strategies.add("null")(CaptionStrategy(rewrite=null, summary="the unchanged caption"))
