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
from tadp_da.errors import ArtifactError, UsageError
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


def test_what_no_stage_has_is_refused_and_not_ignored(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no option 'sede', did you mean 'seed'"):
        tadp_da.adapt(tmp_path, out=tmp_path / "out", sede=5)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"no option 'devcie', did you mean 'device'"):
        tadp_da.predict("model", tmp_path, out=tmp_path / "out", devcie="cpu")  # type: ignore[call-arg]
    assert not (tmp_path / "out").exists()


def test_names_may_come_as_the_commands_take_them(tmp_path: Path) -> None:
    from tadp_da.api_options import load_data, names_of, overrides
    from tadp_da.run import Run

    for folder, mode in (("i", "RGB"), ("m", "L")):
        (tmp_path / folder).mkdir()
        Image.new(mode, (8, 8)).save(tmp_path / folder / "a.png")
    run = Run(folder=tmp_path / "run", quiet=True)
    data, _ = load_data(tmp_path / "i", tmp_path / "m", "train", run, {"classes": "sky, road"})
    assert data.domain.labels is not None
    assert data.domain.labels.classes == names_of(["sky", "road"]) == ("sky", "road")
    assert overrides("steps=3") == overrides(["steps=3"]) == ("steps=3",)


def test_a_word_is_learned_by_its_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from personalize import stage

    (tmp_path / "i").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "i/a.png")
    asked: list[Any] = []
    monkeypatch.setattr(stage.Personalization, "__call__", lambda self: asked.append(self.method))
    tadp_da.personalize(tmp_path / "i", out=tmp_path / "c")
    tadp_da.personalize(tmp_path / "i", out=tmp_path / "c", word="<dusk>", like="dark")
    tadp_da.personalize(tmp_path / "i", out=tmp_path / "c", method="dreambooth", word="zwx")
    assert [(each.settings["word"], each.settings.get("like")) for each in asked] == [
        ("<target>", "photo"), ("<dusk>", "dark"), ("zwx", None),
    ]  # fmt: skip


def test_settings_that_only_a_table_reads_are_refused_and_not_ignored(tmp_path: Path) -> None:
    for folder, mode in (("i", "RGB"), ("m", "L")):
        (tmp_path / folder).mkdir()
        Image.new(mode, (8, 8)).save(tmp_path / folder / "a.png")
    with pytest.raises(UsageError, match="adapt does not read the setting 'caption_source'"):
        tadp_da.adapt(
            tmp_path / "i",
            tmp_path / "m",
            classes="sky,road",
            out=tmp_path / "model",
            sets="caption_source=shuffled",
            device="cpu",
            quiet=True,
        )
