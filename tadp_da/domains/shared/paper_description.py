"""How the TADP paper describes its four target domains (arXiv 2310.00031, appendix D and the published code).

The published code put ``a`` before captions of which nine in ten begin with ``a``, so its prompts read ``of a a car``.
``articles="keep"`` reproduces that exactly; ``articles="fix"`` corrects the English.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from tadp_da.errors import UsageError
from tadp_da.registry import nearest
from tadp_da.types import DomainDescription

Templates = Mapping[str, str]

_NIGHT = {
    "simple": "a dark night photo of a {caption!r}",
    "textual-inversion": "a dark {word} photo of a {caption!r}",
    "dreambooth": "a dashcam photo of {caption!r} at {word} night",
    "nearby": "a foggy photo of a {caption!r}",
    "unrelated": "a watercolor painting of a {caption!r}",
}
_ART = {
    "textual-inversion": "a {word} style painting of a {caption!r}",
    "dreambooth": "a {word} style painting of a {caption!r}",
    "nearby": "a constructivism painting of a {caption!r}",
    "unrelated": "a dashcam photo of a {caption!r}",
}
AS_PUBLISHED: Mapping[str, Templates] = MappingProxyType(
    {
        "dark-zurich": _NIGHT,
        "nighttime-driving": _NIGHT,
        "watercolor2k": {"simple": "a watercolor painting of a {caption!r}", **_ART},
        "comic2k": {"simple": "a comic style painting of a {caption!r}", **_ART},
    }
)


def _in_english(template: str) -> str:
    return template.replace("of a {caption!r}", "of {caption}").replace("{caption!r}", "{caption}")


PAPER_TEMPLATES: Mapping[str, Templates] = MappingProxyType(
    {
        domain: {name: _in_english(t) for name, t in published.items()}
        for domain, published in AS_PUBLISHED.items()
    }
)

_DESCRIBED = {
    "dark-zurich": ("photo", "dark night", "a foggy photo", "a watercolor painting"),
    "nighttime-driving": ("photo", "dark night", "a foggy photo", "a watercolor painting"),
    "watercolor2k": ("painting", "watercolor", "a constructivism painting", "a dashcam photo"),
    "comic2k": ("painting", "comic style", "a constructivism painting", "a dashcam photo"),
}


def paper_description(domain: str, articles: Literal["keep", "fix"] = "fix") -> DomainDescription:
    """The description of a domain in the paper.

    Raises:
        UsageError: if the paper has no such domain.
    """
    if domain not in _DESCRIBED:
        raise UsageError(
            f"the paper has no target domain {domain!r}{nearest(domain, list(_DESCRIBED))}",
            fix=f"choose one of: {', '.join(_DESCRIBED)}",
        )
    medium, style, nearby, unrelated = _DESCRIBED[domain]
    templates = AS_PUBLISHED if articles == "keep" else PAPER_TEMPLATES
    return DomainDescription(
        medium=medium, style=style, nearby=nearby, unrelated=unrelated, templates=templates[domain]
    )
