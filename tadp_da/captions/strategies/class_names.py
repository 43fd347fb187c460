"""Prompts that list what the task asks for instead of what an image shows.

TADP compares them with captions in its table 1: class names as one string.
"""

from __future__ import annotations

from tadp_da.captions.strategies import strategies, templated

strategies.add("class-names")(
    templated("class-names", "{classes}", summary="the names of all classes, no caption", holds=("classes",))
)
