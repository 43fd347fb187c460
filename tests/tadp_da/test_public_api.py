"""``import tadp_da``: the names that README promises, lazily."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tadp_da
from tadp_da.errors import ArtifactError


def test_every_public_name_is_there_and_documented() -> None:
    assert set(tadp_da.__all__) <= set(dir(tadp_da))
    for name in tadp_da.__all__:
        assert getattr(tadp_da, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        tadp_da.load_modle  # type: ignore[attr-defined]  # noqa: B018


def test_import_loads_no_deep_learning_library_until_a_name_needs_one() -> None:
    code = (
        "import sys, tadp_da\n"
        "heavy = lambda: {'torch', 'numpy', 'diffusers', 'transformers', 'pydantic'} & set(sys.modules)\n"
        "dir(tadp_da), tadp_da.load_model, tadp_da.__all__\n"
        "assert not heavy(), heavy()\n"
        "tadp_da.Concept\n"
        "assert 'torch' in heavy()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_a_path_as_text_names_is_loaded(tmp_path: Path, backbone: Any) -> None:
    from tadp_da.types import LabelSpace

    labels = LabelSpace("segmentation", ("sky", "road"))
    model = tadp_da.PerceptionModel.assemble(backbone, "semantic-fpn", labels, width=16)
    model.save(tmp_path / "model")
    loaded = tadp_da.load_model(str(tmp_path / "model"))
    assert isinstance(loaded, tadp_da.PerceptionModel)
    image = Image.new("RGB", (64, 64), "gray")
    assert (loaded.predict(image, caption="a road") == model.predict(image, caption="a road")).all()
    with pytest.raises(ArtifactError, match="concept"):
        tadp_da.load_concept(str(tmp_path / "model"))
