"""tadp_da: labels in one visual domain, only images in another.

A **Concept** learned from the unlabelled images of a target **Domain** colours the captions; a diffusion
**Backbone** turns image and caption into features; a **Head** reads them; a **Recipe** says which of each.

Importing this package imports no deep-learning library: everything heavy is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tadp_da.installation import require_own_packages, warn_about_foreign_packages

if TYPE_CHECKING:
    from tadp_da.api import adapt, evaluate, load_concept, load_model, personalize, predict
    from tadp_da.api_distillation import distill
    from tadp_da.concept import Concept
    from tadp_da.onnx_export import export
    from tadp_da.perception_model import PerceptionModel

__version__ = "0.1.0"
__all__ = [
    "Concept",
    "PerceptionModel",
    "adapt",
    "distill",
    "evaluate",
    "export",
    "load_concept",
    "load_model",
    "personalize",
    "predict",
]

_STAGES = ("personalize", "adapt", "distill", "evaluate", "predict")
#: Public names and the modules that define them, imported when first asked for (PEP 562).
_LAZY = dict.fromkeys((*_STAGES, "load_concept", "load_model"), "tadp_da.api") | {
    "Concept": "tadp_da.concept",
    "distill": "tadp_da.api_distillation",
    "export": "tadp_da.onnx_export",
    "PerceptionModel": "tadp_da.perception_model",
}

warn_about_foreign_packages()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _STAGES:
        require_own_packages()
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
