"""Files of predictions: one for every image, whatever the images are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tadp_da.prediction import file_names, predict_images, predict_overlays
from tadp_da.run import Run
from tadp_da.types import LabelSpace, Unlabeled
from tests.tadp_da.domains import trees

LABELS = LabelSpace("segmentation", ("sky", "road"))


class Painter:
    """A model whose prediction is the image's first pixel, everywhere."""

    labels = LABELS

    def prompt(self, caption: str) -> str:
        return caption

    def says(self, prompt: str, word: str) -> bool:
        return word in prompt.split()

    def predict(self, image: Image.Image, prompt: str = "", **_: Any) -> Any:
        return np.full((image.height, image.width), np.asarray(image)[0, 0, 0] % 2, np.uint8)

    def attention(self, image: Image.Image, words: list[str], prompt: str) -> dict[str, Any]:
        return {word: np.ones((image.height, image.width), np.float32) for word in words}


def predicted(tmp_path: Path, names: Sequence[str], attention: Sequence[str] = (), caption: str = "") -> Path:
    paths = tuple(trees.picture(tmp_path / "i" / name) for name in names)
    images = Unlabeled(domain="d", root=tmp_path / "i", paths=paths)
    captions = {images.key(i): caption for i in range(len(names))}
    run, model = Run(folder=tmp_path / "out", quiet=True, device="cpu"), Painter()
    predict_images(model, images, captions, run, attention=attention)  # type: ignore[arg-type]
    predict_overlays(model, images, captions, tmp_path / "shown")  # type: ignore[arg-type]
    assert sorted(json.loads((run.folder / "prompts.json").read_text())) == sorted(names)
    return run.folder


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.*") if path.suffix in (".png", ".json"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["shot.jpg", "shot.png", "b.png"], {"shot.jpg", "shot.png", "b"}),
        (["shot.jpg", "Shot.jpg", "b.jpg"], {"b"}),
        (["a/b.jpg", "a__b.jpg", "c.jpg"], {"c"}),
        (["shot.jpg", "shot.png", "shot.jpg.png"], {"shot.png"}),
        (["caf\u00e9.png", "cafe\u0301.png"], set()),
        (["/".join(letter * 100 for letter in "abc") + ".jpg", f"{'d' * 250}.jpg", "c.jpg"], {"c"}),
    ],
    ids=["endings", "case", "folders", "endings in names", "two unicode forms", "long"],
)
def test_every_image_has_its_own_files(tmp_path: Path, names: list[str], expected: set[str]) -> None:
    out = predicted(tmp_path, names)
    for folder in (out / "masks", out / "overlays", tmp_path / "shown"):
        assert len(files_in(folder)) == len(names)
        assert {f"{name}.png" for name in expected} <= set(files_in(folder))


def test_names_of_one_set_are_those_of_before(tmp_path: Path) -> None:
    assert files_in(predicted(tmp_path, ["a/b.jpg", "c.d.png"]) / "masks") == ["a__b.png", "c.d.png"]


def test_attention_of_any_word_has_its_own_file(tmp_path: Path) -> None:
    words = ["car/road", "../x", "<dusk>", "dusk", "b-c", "c", "w" * 300]
    out = predicted(tmp_path, ["a.png", "a-b.png"], words, caption=" ".join(words))
    found = files_in(out / "attention")
    assert len(found) == 2 * len(words)
    assert {"a-car__road.png", "a-..__x.png", "a-<dusk>.png", "a-dusk.png"} <= set(found)


@settings(max_examples=40)
@given(st.lists(st.text(st.sampled_from("aA./_é\u0301b"), min_size=1), unique=True, max_size=8))
def test_names_are_distinct_short_and_single(keys: list[str]) -> None:
    names = file_names({key: (key.partition(".")[0], key) for key in keys})
    assert list(names) == keys
    assert len({name.casefold() for name in names.values()}) == len(keys)
    assert not any("/" in name or len(name.encode()) > 200 for name in names.values())


def test_a_word_is_found_where_there_are_several_and_missing_maps_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = predicted(tmp_path, ["a.png", "b.png"], ["car", "dog"], caption="two cars")
    assert files_in(out / "attention") == ["a-car.png", "b-car.png"]
    assert caplog.text.count("there is no attention map of") == 1
    assert "'dog' for 2 of 2 images" in caplog.text
