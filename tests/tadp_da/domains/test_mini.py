"""The drawn world as domains: drawn once, whole, with truthful labels, and with splits that share no scene."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.domains import domains, mini
from tadp_da.errors import DataError
from tadp_da.mini.styles import LOOKS
from tadp_da.mini.world import draw_scene


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits of three scenes, drawn by the same code."""
    monkeypatch.setattr(mini, "COUNTS", dict.fromkeys(mini.COUNTS, 3))


def masks(root: Path, name: str, split: str) -> list[bytes]:
    domain = domains[name]
    assert domain.label is not None
    return [domain.label(path).tobytes() for path in domain.unlabeled(root, split).paths]


def test_every_look_is_a_domain_and_the_held_out_night_is_the_night() -> None:
    names = {mini.domain_name(look) for look in LOOKS}
    assert len(names) == len(LOOKS)
    assert names <= set(domains)
    assert mini.domain_name("city-night") == "mini-night"
    assert LOOKS["city-night"].held_out
    assert mini.COUNTS == {"train": 600, "val": 100, "test": 200, "unlabeled": 300}


@pytest.mark.usefixtures("small")
def test_no_scene_is_in_two_splits_but_tests_are_the_same_scenes_in_every_look(tmp_path: Path) -> None:
    day, night = (
        {split: masks(tmp_path, name, split) for split in mini.COUNTS} for name in ("mini-day", "mini-night")
    )
    for split in ("val", "test"):
        assert day[split] == night[split]
    learned = [day["train"], day["unlabeled"], night["train"], night["unlabeled"], day["val"], day["test"]]
    everything = [scene for group in learned for scene in group]
    assert len(set(everything)) == len(everything)


@pytest.mark.usefixtures("small")
def test_development_targets_share_no_scene_with_any_other_domain(tmp_path: Path) -> None:
    """Settings are chosen on them: a scene that a result rests on must not be among theirs."""
    worlds = [*mini._SOURCE_WORLDS.values(), *mini._TARGET_WORLDS.values()]
    assert not {*mini._DEVELOPMENT_WORLDS.values()} & {*worlds}
    assert len({*mini._DEVELOPMENT_WORLDS.values()}) == len(mini.COUNTS)
    for name in mini.DEVELOPMENT:
        assert masks(tmp_path, name, "test") != masks(tmp_path, "mini-day", "test")
        boxed = domains[f"{name}-boxes"].unlabeled(tmp_path, "test").paths
        assert boxed == domains[name].unlabeled(tmp_path, "test").paths


def test_the_benchmarks_images_are_those_of_earlier_versions() -> None:
    """Another pixel is another data set: no table, model or caption made before would belong to it."""
    known = {
        "mini-day": [135, 157, 156, 133, 162, 81, 97, 207, 22],
        "mini-night": [13, 7, 7, 14, 4, 56, 30, 23, 37],
        "mini-aquarelle": [136, 107, 125, 80, 135, 59, 150, 123, 106],
        "mini-manga": [242, 238, 47, 18, 142, 18, 16, 72, 230],
        "mini-thermal": [2, 4, 2, 91, 6, 47, 10, 6, 14],
    }
    for name, values in known.items():
        green = mini._scene(Path(name) / "train", 0)[1][8::50, 8::50, 1].ravel()
        assert np.allclose(green, values, atol=2), name  # libraries may round differently


@pytest.mark.usefixtures("small")
def test_pictures_differ_by_look_and_captions_are_the_scenes_own(tmp_path: Path) -> None:
    day, night = (domains[name].unlabeled(tmp_path, "test") for name in ("mini-day", "mini-night"))
    assert np.asarray(day[0]).mean() > 1.5 * np.asarray(night[0]).mean()
    captions = json.loads((tmp_path / "mini-night/test/captions.json").read_text())
    scene = draw_scene(mini._TARGET_WORLDS["test"], 0, size=mini.SIZE)
    assert captions[night.key(0)] == {"captions": [scene.caption]}
    assert list(captions) == [night.key(i) for i in range(len(night))]
    texts = {key: entry["captions"][0] for key, entry in captions.items()}
    example = domains["mini-night"].labeled(tmp_path, "test", texts)[0]
    assert np.array_equal(example.target, scene.mask)
    assert example.image.size == (128, 128)


@pytest.mark.usefixtures("small")
def test_what_stands_is_not_drawn_again(tmp_path: Path) -> None:
    first = domains["mini-day"].unlabeled(tmp_path, "val")
    before = [path.stat().st_mtime_ns for path in first.paths]
    again = domains["mini-day"].unlabeled(tmp_path, "val")
    assert again.paths == first.paths
    assert [path.stat().st_mtime_ns for path in again.paths] == before


@pytest.mark.usefixtures("small")
def test_drawing_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mini._scene

    def stops(place: Path, index: int):
        if index == 2:
            raise KeyboardInterrupt
        return whole(place, index)

    with monkeypatch.context() as patch:
        patch.setattr(mini, "_scene", stops)
        with pytest.raises(KeyboardInterrupt):
            domains["mini-day"].unlabeled(tmp_path, "val")
    assert not list((tmp_path / "mini-day").iterdir())
    assert len(domains["mini-day"].unlabeled(tmp_path, "val")) == 3


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["removed", "repainted", "relabelled"])
def test_a_split_that_is_not_as_drawn_is_refused_with_advice(tmp_path: Path, damage: str) -> None:
    path = domains["mini-day"].unlabeled(tmp_path, "val").paths[0]
    label = path.parent.parent / "labels" / path.name
    if damage == "removed":
        path.unlink()
    elif damage == "repainted":
        Image.new("RGB", mini.SIZE, (255, 0, 255)).save(path)
    else:
        Image.new("L", mini.SIZE, 7).save(label)
    with pytest.raises(DataError) as caught:
        domains["mini-day"].unlabeled(tmp_path, "val")
    assert caught.value.fix.startswith(f"delete {path.parent.parent}")


@pytest.mark.usefixtures("small")
def test_two_that_draw_at_once_both_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count(1001)  # finalizers of the main thread may ask too
    own = threading.local()

    def process() -> int:
        own.number = getattr(own, "number", None) or next(numbers)
        return own.number

    monkeypatch.setattr(mini.os, "getpid", process)
    found: list[int] = []
    both = [
        threading.Thread(target=lambda: found.append(len(domains["mini-fog"].unlabeled(tmp_path, "val"))))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert found == [3, 3]
    assert [path.name for path in (tmp_path / "mini-fog").iterdir()] == ["val"]


@pytest.mark.usefixtures("small")
def test_boxes_hug_the_things_of_the_masks(tmp_path: Path) -> None:
    """Every side of every box touches pixels of its class; cars and people have as many boxes as the world counts."""
    boxed, masked = domains["mini-manga-boxes"], domains["mini-manga"]
    assert boxed.labels is not None
    assert boxed.labels.classes == ("car", "person", "tree", "pole")
    assert boxed.label is not None
    assert masked.label is not None
    seen = set()
    for index, path in enumerate(boxed.unlabeled(tmp_path, "test").paths):
        boxes, mask = boxed.label(path), masked.label(path)
        scene = draw_scene(mini._TARGET_WORLDS["test"], index, size=mini.SIZE)
        for name, label in (("car", 0), ("person", 1), ("tree", 2)):
            assert (boxes.labels == label).sum() == scene.counts[name]
        for (x1, y1, x2, y2), label in zip(boxes.xyxy.astype(int), boxes.labels, strict=True):
            inside = mask[y1:y2, x1:x2] == (6, 7, 4, 5)[label]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
            seen.add(int(label))
        assert not boxes.difficult.any()
    assert len(seen) >= 3


@pytest.mark.usefixtures("small")
def test_boxes_lie_beside_pictures_that_both_domains_share(tmp_path: Path) -> None:
    plain, boxed = domains["mini-day"], domains["mini-day-boxes"]
    images = plain.unlabeled(tmp_path, "val")
    assert boxed.unlabeled(tmp_path, "val").paths == images.paths
    file = tmp_path / "mini-day/val/boxes.json"
    assert not file.exists(), "who asks for pictures does not wait for boxes"
    assert boxed.label is not None
    first = boxed.label(images.paths[0])
    stored = json.loads(file.read_text())
    assert [thing["xyxy"] for thing in stored["00000"]] == first.xyxy.tolist()
    assert len(stored) == 3
    assert [p.name for p in (tmp_path / "mini-day/val").iterdir() if p.name.startswith(".")] == []
    file.write_text('{"00000": [{"class": "cow", "xyxy": [0, 0, 1, 1]}]}')
    mini._boxes_of.cache_clear()
    with pytest.raises(DataError, match="cannot be read") as caught:
        boxed.label(images.paths[1])
    assert "it will be written again" in caught.value.fix


@pytest.mark.usefixtures("small")
def test_threads_that_read_boxes_at_once_write_them_once(tmp_path: Path) -> None:
    domain = domains["mini-day-boxes"]
    assert domain.label is not None
    paths = domain.unlabeled(tmp_path, "val").paths
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(domain.label, [*paths] * 8))
    assert sum(len(boxes.labels) for boxes in found[:3]) > 0
    assert [len(boxes.labels) for boxes in found] == [len(boxes.labels) for boxes in found[:3]] * 8


@pytest.mark.usefixtures("small")
def test_depth_is_that_of_the_scenes_and_written_once_whoever_asks(tmp_path: Path) -> None:
    deep, plain = domains["mini-night-depth"], domains["mini-night"]
    assert deep.label is not None
    assert deep.labels is not None
    paths = deep.unlabeled(tmp_path, "test").paths
    assert paths == plain.unlabeled(tmp_path, "test").paths
    assert not (tmp_path / f"mini-night/test/{mini.METRES}").exists()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(deep.label, [*paths] * 8))
    for index, depth in enumerate(found):
        scene = draw_scene(mini._TARGET_WORLDS["test"], index % 3, size=mini.SIZE)
        assert np.abs(depth - scene.depth).max() <= 0.5 / 256 + 1e-4
        sky = scene.mask == 0
        low, high = deep.labels.range or (0, 0)
        assert (depth[sky] > high).all(), "the sky does not count"
        assert ((depth[~sky] > low) & (depth[~sky] < high)).all()
    assert sorted(p.name for p in (tmp_path / f"mini-night/test/{mini.METRES}").iterdir()) == [
        p.name for p in paths
    ]
