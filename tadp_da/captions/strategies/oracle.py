"""Prompts that name the classes in the image's own label: what perfect captions would bring (TADP, table 1), and what
lists with errors still bring (table S2)."""

from __future__ import annotations

from tadp_da.captions.strategies import CaptionStrategy, PromptContext, strategies

LEVELS = (0.5, 0.75, 1.0)
"""Of precision and recall, in TADP's table S2."""


def present_classes(caption: str, context: PromptContext) -> str:
    """The caption, which is the list of the classes in the label."""
    return caption


for precision in LEVELS:
    for recall in LEVELS:
        whole = precision == recall == 1
        name = "oracle" if whole else f"oracle-p{100 * precision:.0f}-r{100 * recall:.0f}"
        wrong = "" if whole else f", at precision {precision:g} and recall {recall:g}"
        strategies.add(name)(
            CaptionStrategy(
                rewrite=present_classes,
                reads_labels=True,
                label_quality=(precision, recall),
                summary=f"the classes in each image's label{wrong}, of test images too: an upper bound, no method",
            )
        )
