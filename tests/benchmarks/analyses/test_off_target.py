"""Off-target classes on the embedded mini model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.analyses.shared.images import Seen, picture_names
from benchmarks.analyses.shared.off_target_mass import ALL, PRESENT, Measured, text_distance
from tadp_da.perception_model import PerceptionModel
from tadp_da.types import LabelSpace

LABELS = LabelSpace("segmentation", ("sky", "road", "car"))


def test_off_target_classes_of_drawn_images(
    command: Callable[..., int], given_words: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert command("analyze", "off-target", *given_words, "--out", out, "--set", "pictures=1") == 0
    found = json.loads((out / "findings.json").read_text())
    (row,) = found["tables"]["models"]
    assert row["images"] == 4
    assert row["rise of the off-target mass (points)"].count("to") == 1
    for line in found["tables"]["matrix mini, all names"]:
        assert sum(v for v in list(line.values())[1:] if v is not None) == pytest.approx(1, abs=1e-3)
    for name in ("matrix mini", "pictures mini", "rise"):
        assert Image.open(out / f"{name}.png").width > 300
    assert "](matrix%20mini.png)" in (out / "findings.md").read_text()


def measured(*pairs: tuple[str, np.ndarray]) -> Measured:
    truth = np.zeros((2, 4), np.uint8)
    truth[1] = 1
    truth[0, 0] = LABELS.ignore
    seen = Seen(key="0", image=Image.new("RGB", (4, 2)), caption="", truth=truth, labels=LABELS)
    found = Measured(name="", classes=LABELS.classes, distance=np.zeros((3, 3)))
    for prompt, p in pairs:
        found.count(prompt, seen, p)
    return found


def test_the_mass_is_that_of_absent_classes_at_labelled_pixels() -> None:
    p = np.zeros((3, 2, 4))
    p[0, 0], p[1, 1] = 0.9, 0.7
    p[2, 0], p[2, 1] = 0.1, 0.3
    p[:, 0, 0] = (0, 0, 1)  # ignored
    found = measured((PRESENT, p), (ALL, p))
    assert found.totals(PRESENT)[0] == pytest.approx((3 * 0.1 + 4 * 0.3) / 7)
    np.testing.assert_allclose(found.matrix(PRESENT)[:2], [[0.9, 0, 0.1], [0, 0.7, 0.3]])
    assert np.isnan(found.matrix(PRESENT)[2]).all()
    assert found.lacked == ["car"]
    assert found.accuracy[PRESENT] == [1]


def test_identical_prompts_have_no_rise() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), (2, 4)).transpose(2, 0, 1)
    found = measured((PRESENT, p), (ALL, p))
    rise, accuracy = found.rise(), found.change_of_accuracy()
    assert (rise and rise.mean) == (accuracy and accuracy.mean) == 0
    assert found.rise(ALL, "sky") is None, "every image shows it"
    whole = Seen(
        key="1",
        image=Image.new("RGB", (3, 1)),
        caption="",
        truth=np.array([[0, 1, 2]], np.uint8),
        labels=LABELS,
    )
    for prompt in (PRESENT, ALL):
        found.count(prompt, whole, np.full((3, 1, 3), 1 / 3))
    assert found.images == 1, "an image that shows every class has no off-target mass"


def test_names_are_as_far_apart_as_prompts_say_them(model_folder: Path) -> None:
    model = PerceptionModel.load(model_folder)
    written = text_distance(model, ("traffic_light", "car"))
    np.testing.assert_allclose(written, text_distance(model, ("traffic light", "car")))


def test_a_name_is_at_no_distance_from_itself(model_folder: Path) -> None:
    distance = text_distance(PerceptionModel.load(model_folder), ("car", "road", "car"))
    assert distance[0, 2] == pytest.approx(0, abs=1e-6)
    assert distance[0, 1] == pytest.approx(distance[1, 0])
    assert distance[0, 1] > 0.01


def test_images_without_labels_are_refused(
    command: Callable[..., int],
    model_folder: Path,
    drawn: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("analyze", "off-target", model_folder, "--out", tmp_path / "out", "--device", "cpu")
    assert command(*words) == 2
    assert "give --images FOLDER" in capsys.readouterr().err
    assert command(*words, "--images", drawn / "images") == 2
    assert "give --labels FOLDER" in capsys.readouterr().err


def test_pictures_of_two_folders_keep_names_of_their_own() -> None:
    keys = ("a/1.png", "b/1.png", "b/2.png")
    image, truth = Image.new("RGB", (4, 2)), np.zeros((2, 4), np.uint8)
    seen = [Seen(key=key, image=image, caption="", truth=truth, labels=LABELS) for key in keys]
    assert picture_names(seen) == dict(zip(keys, ("a__1.png", "b__1.png", "2"), strict=True))
