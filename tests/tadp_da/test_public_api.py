"""``import tadp_da``: the names that README promises, lazily."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tadp_da
from tadp_da.errors import ArtifactError
from tests.tadp_da.captions.conftest import write_blip2

README = Path(__file__).parent.parent.parent / "README.md"


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


def python_of_the_readme() -> str:
    (block,) = README.read_text(encoding="utf-8").split("```python\n")[1:]
    return block.partition("```")[0]


def test_the_python_of_the_readme_runs_as_it_is(
    tmp_path: Path, tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On small images, a small model and few steps; the text is that of the README."""
    write_blip2(tmp_path / "blip2")
    rng = np.random.default_rng(0)
    for side in ("day", "dusk", "dusk_test"):
        for folder, shape, high in (("images", (64, 64, 3), 256), ("masks", (64, 64), 3)):
            for index in range(2):
                path = tmp_path / side / folder / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, high, shape, dtype=np.uint8)).save(path)
    Image.new("RGB", (70, 50), "gray").save(tmp_path / "dusk.png")
    small = {"quiet": True, "device": "cpu", "captioner": str(tmp_path / "blip2")}
    steps = {
        "personalize": ("steps=1", "batch=1", "resolution=64", "warmup=0", "previews.images=0"),
        "adapt": ("adapt.steps=1", "adapt.batch=1", "head.settings.width=16", "inference.long=64"),
    }
    for name, sets in steps.items():
        reduced = partial(getattr(tadp_da, name), model=str(tiny_pipeline), preset="mini", sets=sets, **small)
        if name == "personalize":
            del reduced.keywords["preset"]
        monkeypatch.setattr(tadp_da, name, reduced)
    monkeypatch.setattr(tadp_da, "evaluate", partial(tadp_da.evaluate, **small))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(python_of_the_readme(), names)
    assert names["mask"].shape == (50, 70)
    assert names["mask"].max() < 3
    assert 0 <= names["report"].evaluations["test"].main.value <= 100
    assert tadp_da.load_concept("runs/dusk").word == "sks"
