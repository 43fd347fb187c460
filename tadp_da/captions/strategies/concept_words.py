"""Prompts with the word of a learned concept.

Each kind of concept has a strategy of its own because the word is used differently: a textual inversion is a learned
adjective, DreamBooth's rare token names a style.
"""

from __future__ import annotations

from tadp_da.captions.strategies import strategies, templated

_ENTRIES = {
    "textual-inversion": ("a {word} {medium} of {caption}", "the learned word in place of the style"),
    "dreambooth": ("a {word} style {medium} of {caption}", "the rare token as a style"),
}
for _name, (_template, _summary) in _ENTRIES.items():
    strategies.add(_name)(templated(_name, _template, summary=_summary, holds=("caption", "word")))
