"""Prompts without information about the domain: the baselines, and a caption of no image as a control."""

from __future__ import annotations

from tadp_da.captions.strategies import CaptionStrategy, PromptContext, strategies

UNRELATED_CAPTION = "a bowl of fruit on a wooden table"


def no_text(caption: str, context: PromptContext) -> str:
    """The empty prompt."""
    return ""


def null(caption: str, context: PromptContext) -> str:
    """The unchanged caption (the row "null" of the paper, the baseline to beat)."""
    return caption


def unrelated_caption(caption: str, context: PromptContext) -> str:
    """One sentence for all images that describes none of them."""
    return UNRELATED_CAPTION


strategies.add("no-text")(CaptionStrategy(rewrite=no_text, summary="the empty prompt"))
strategies.add("null")(CaptionStrategy(rewrite=null, summary="the unchanged caption"))
strategies.add("unrelated-caption")(
    CaptionStrategy(
        rewrite=unrelated_caption, summary="one caption of something else for all images, a control"
    )
)
