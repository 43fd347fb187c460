"""A package named xformers: the real one has no kernel for a CPU, and its two ways of being here must be tested."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from tadp_da.backbones.sd import kernels as _kernels


def install(
    monkeypatch: pytest.MonkeyPatch, attend: Callable[..., Any], fault: Exception | None = None
) -> None:
    """Put it where the real one would be.

    Args:
        attend: its kernel.
        fault: why its compiled part does not load; it only warns of that.
    """
    package, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    loader = types.ModuleType("xformers._cpp_lib")
    package.__spec__ = importlib.machinery.ModuleSpec("xformers", None)
    vars(ops)["memory_efficient_attention"] = attend
    vars(loader)["_cpp_library_load_exception"] = fault
    vars(package).update(ops=ops, _cpp_lib=loader)
    for name, module in (("", package), (".ops", ops), ("._cpp_lib", loader)):
        monkeypatch.setitem(sys.modules, f"xformers{name}", module)
    monkeypatch.setattr("diffusers.models.attention_processor.xformers", package)
    monkeypatch.setattr(_kernels, "_tried", _kernels.cache(_kernels._tried.__wrapped__))
