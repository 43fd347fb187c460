"""Prompts that name the classes in the image's own label: what perfect captions would bring (TADP, table 1 and S2)."""

from __future__ import annotations

from tadp_da.captions.strategies import CaptionStrategy, PromptContext, strategies


def present_classes(caption: str, context: PromptContext) -> str:
    """The caption, which is the list of the classes in the label."""
    return caption


strategies.add("oracle")(
    CaptionStrategy(
        rewrite=present_classes,
        reads_labels=True,
        summary="the classes in each image's label, of test images too: an upper bound, no method",
    )
)
