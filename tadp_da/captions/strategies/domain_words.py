"""Prompts that name a domain in everyday words: the target's own, one near it, and one that is wrong.

The second and third are TADP's controls: is it the right word that helps, or any word?
"""

from __future__ import annotations

from tadp_da.captions.strategies import strategies, templated

_ENTRIES = {
    "simple": ("a {style} {medium} of {caption}", "the target's style in plain words"),
    "nearby": ("{nearby} of {caption}", "a domain near the target, a control"),
    "unrelated": ("{unrelated} of {caption}", "a domain far from the target, a control"),
}
for _name, (_template, _summary) in _ENTRIES.items():
    strategies.add(_name)(templated(_name, _template, summary=_summary))
