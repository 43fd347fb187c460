"""tadp_da: labels in one visual domain, only images in another.

A **Concept** learned from the unlabelled images of a target **Domain** colours the captions; a diffusion
**Backbone** turns image and caption into features; a **Head** reads them; a **Recipe** says which of each.

Importing this package imports no deep-learning library: everything heavy is imported on first use.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tadp_da.installation import warn_about_foreign_packages

if TYPE_CHECKING:
    from tadp_da.concept import Concept
    from tadp_da.perception_model import PerceptionModel

__version__ = "0.1.0"
__all__ = ["Concept", "PerceptionModel", "load_concept", "load_model"]

#: Public classes and the modules that define them, imported when first asked for (PEP 562).
_LAZY = {"Concept": "tadp_da.concept", "PerceptionModel": "tadp_da.perception_model"}

warn_about_foreign_packages()


def load_model(folder: str | Path, *, device: str = "cpu") -> PerceptionModel:
    """Load a perception model that ``tadp-da adapt``, ``run`` or ``benchmark`` wrote.

    Args:
        folder: folder of the model.
        device: torch device, e.g. ``"cuda"``.

    Returns:
        The model in evaluation mode; ``model.predict(image, caption="...")`` applies it to a PIL image.

    Raises:
        ArtifactError: when the folder does not hold a model, or a file was changed since it was written.
    """
    from tadp_da.perception_model import PerceptionModel

    return PerceptionModel.load(Path(folder), device=device)


def load_concept(folder: str | Path) -> Concept:
    """Load a concept that ``tadp-da personalize``, ``run`` or ``benchmark`` wrote.

    Args:
        folder: folder of the concept.

    Raises:
        ArtifactError: when the folder does not hold a concept, or a tensor was changed since it was written.
    """
    from tadp_da.concept import Concept

    return Concept.load(Path(folder))


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
