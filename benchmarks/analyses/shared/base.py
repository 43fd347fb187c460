"""The diffusion model that a perception model was adapted from, as it was before."""

from __future__ import annotations

import json
from typing import Any

from tadp_da.errors import UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.provenance import PROVENANCE
from tadp_da.run import Run


def base_of(model: PerceptionModel, base: str, run: Run) -> Any:
    """A fresh backbone of the model's family.

    Args:
        model: loaded from a folder, whose provenance says where its base came from.
        base: weights to use instead, as for ``--model``; empty for those.
        run: its device.

    Raises:
        UsageError: when nobody says where the base is.
        EnvironmentSetupError: when it is not there.
    """
    file = model.folder / PROVENANCE if model.folder else None
    known = json.loads(file.read_text(encoding="utf-8")).get("base") if file and file.is_file() else None
    if not (origin := base or known):
        raise UsageError(
            "the model does not say what it was adapted from",
            where=model.folder,
            fix="name the weights: --set base=mini, or a folder or hub id",
        )
    backbone = type(model.backbone).from_pretrained(str(origin), model.backbone.settings)
    return backbone.requires_grad_(False).to(run.torch_device)
