"""No prompt but averaged embeddings, as VPD has it (Zhao et al., ICCV 2023); TADP compares in tables 1 to 3.

``class-embeddings`` has one embedding for each class; ``class-tokens`` the tokens of every class name, each name
encoded by itself, as the authors' code has it; ``caption-embedding`` one embedding of the caption, which VPD uses for
depth with the name of the scene as the caption (``caption_source: scene``).

The templates are those of CLIP for ImageNet (Radford et al., 2021), of which VPD averages the embeddings.
"""

from __future__ import annotations

from tadp_da.captions.strategies import CaptionStrategy, PromptContext, strategies
from tadp_da.captions.template import parse

IMAGENET_TEMPLATES = (
    "a bad photo of a {}.", "a photo of many {}.", "a sculpture of a {}.", "a photo of the hard to see {}.",
    "a low resolution photo of the {}.", "a rendering of a {}.", "graffiti of a {}.", "a bad photo of the {}.",
    "a cropped photo of the {}.", "a tattoo of a {}.", "the embroidered {}.", "a photo of a hard to see {}.",
    "a bright photo of a {}.", "a photo of a clean {}.", "a photo of a dirty {}.", "a dark photo of the {}.",
    "a drawing of a {}.", "a photo of my {}.", "the plastic {}.", "a photo of the cool {}.",
    "a close-up photo of a {}.", "a black and white photo of the {}.", "a painting of the {}.", "a painting of a {}.",
    "a pixelated photo of the {}.", "a sculpture of the {}.", "a bright photo of the {}.", "a cropped photo of a {}.",
    "a plastic {}.", "a photo of the dirty {}.", "a jpeg corrupted photo of a {}.", "a blurry photo of the {}.",
    "a photo of the {}.", "a good photo of the {}.", "a rendering of the {}.", "a {} in a video game.",
    "a photo of one {}.", "a doodle of a {}.", "a close-up photo of the {}.", "a photo of a {}.", "the origami {}.",
    "the {} in a video game.", "a sketch of a {}.", "a doodle of the {}.", "a origami {}.",
    "a low resolution photo of a {}.", "the toy {}.", "a rendition of the {}.", "a photo of the clean {}.",
    "a photo of a large {}.", "a rendition of a {}.", "a photo of a nice {}.", "a photo of a weird {}.",
    "a blurry photo of a {}.", "a cartoon {}.", "art of a {}.", "a sketch of the {}.", "a embroidered {}.",
    "a pixelated photo of a {}.", "itap of the {}.", "a jpeg corrupted photo of the {}.", "a good photo of a {}.",
    "a plushie {}.", "a photo of the nice {}.", "a photo of the small {}.", "a photo of the weird {}.",
    "the cartoon {}.", "art of the {}.", "a drawing of the {}.", "a photo of the large {}.",
    "a black and white photo of a {}.", "the plushie {}.", "a dark photo of a {}.", "itap of a {}.",
    "graffiti of the {}.", "a toy {}.", "itap of my {}.", "a photo of a cool {}.", "a photo of a small {}.",
    "a tattoo of the {}.",
)  # fmt: skip


def announced(caption: str, context: PromptContext) -> str:
    """What stands in place of a prompt, for people: the network does not read it."""
    return f"one embedding for each of {len(context.classes)} classes"


def announced_tokens(caption: str, context: PromptContext) -> str:
    """The same."""
    return f"the tokens of the names of {len(context.classes)} classes"


strategies.add("class-tokens")(
    CaptionStrategy(
        rewrite=announced_tokens,
        needs_classes=True,
        class_templates=("{}",),
        class_tokens=True,
        summary="the embeddings of the tokens of every class name, no caption",
    )
)
strategies.add("class-embeddings")(
    CaptionStrategy(
        rewrite=announced,
        needs_classes=True,
        class_templates=IMAGENET_TEMPLATES,
        summary="the mean embedding of each class over 80 templates, no caption",
    )
)
strategies.add("caption-embedding")(
    CaptionStrategy(
        rewrite=parse("{caption}").fill,
        prompt_templates=IMAGENET_TEMPLATES,
        summary="the mean embedding of the caption over 80 templates, for captions that name a scene",
    )
)
