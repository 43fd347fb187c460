"""Which pretrained model a stage starts from. Each stage loads its own, so that nothing trained crosses a stage except
through its artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tadp_da.backbones import load_backbone, portable_settings
from tadp_da.run import Run
from tadp_da.settings import Choice
from tadp_da.storage.files import stamps

_KNOWN: dict[Any, tuple[str, str]] = {}


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A backbone, and where its weights are.

    Attributes:
        backbone: its name in the registry, and its settings.
        model: weights: an alias such as ``"mini"``, a folder, a file or a hub id.
    """

    backbone: Choice
    model: str

    def load(self) -> Any:
        """A fresh backbone."""
        return load_backbone(self.backbone.name, self.model, self.backbone.settings)

    @property
    def _identity(self) -> tuple[str, str]:
        """Fingerprint and sampler of the model as it is now: loaded again when one of its files has changed."""
        key = (str(self), stamps(Path(self.model).expanduser()))
        if key not in _KNOWN:
            backbone = self.load()
            _KNOWN[key] = str(backbone.fingerprint), str(backbone.sampler)
        return _KNOWN[key]

    @property
    def fingerprint(self) -> str:
        """That of the backbone: weights, vocabulary and noise, wherever they are."""
        return self._identity[0]

    def facts(self, run: Run, *, features: bool) -> dict[str, Any]:
        """What an artifact that is learned on it depends on, as JSON values.

        Args:
            run: its seed and precision count.
            features: whether the artifact depends on how images become features.
        """
        base, sampler = self._identity
        found: dict[str, Any] = {"base": base, "sampler": sampler, "backbone": self.backbone.name}
        if features:
            found["features"] = portable_settings(self.backbone.name, self.backbone.settings)
        return found | {"seed": run.seed, "precision": run.precision}
