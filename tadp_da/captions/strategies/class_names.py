"""Prompts that list all classes of the task instead of a caption; TADP compares the two in table 1."""

from __future__ import annotations

from tadp_da.captions.strategies import strategies, templated

strategies.add("class-names")(
    templated("class-names", "{classes}", summary="the names of all classes, no caption", holds=("classes",))
)
