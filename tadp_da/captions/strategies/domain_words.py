"""Prompts that name a domain in plain words: the target, a nearby one, and an unrelated one.

The second and third are the controls of TADP, which show whether the right word helps or any word.
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
