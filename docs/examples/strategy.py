"""Prompts that name a season: what one word that is not about the target's style changes."""

from tadp_da.captions.strategies import CaptionStrategy, PromptContext, strategies


def season(caption: str, context: PromptContext) -> str:
    """``"a car"`` becomes ``"a photo of a car in winter"``."""
    return f"a {context.target.medium} of {caption} in winter"


strategies.add("season")(CaptionStrategy(rewrite=season, summary="the caption, in winter"))
