"""The mini world: deterministic scenes, exact labels, truthful captions, looks that leave labels alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from tadp_da.mini.contact_sheet import contact_sheet, main
from tadp_da.mini.styles import LOOKS, corpus, render
from tadp_da.mini.world import CLASSES, SKY_DEPTH, WOOD, Scene, draw_scene, parse_counts

SEEN = {"day", "night", "fog", "rain", "snow", "sunset", "comic", "watercolor", "sketch"}
HELD_OUT = {"city-night", "aquarelle", "manga", "thermal", "misty-night"}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(7, index) for index in range(40)]


def test_a_scene_is_a_function_of_seed_index_and_size() -> None:
    a, b = draw_scene(1, 2), draw_scene(1, 2)
    assert a.caption == b.caption
    assert a.boxes == b.boxes
    for name in ("image", "mask", "depth", "ident", "part"):
        assert np.array_equal(getattr(a, name), getattr(b, name))
    assert not np.array_equal(a.image, draw_scene(1, 3).image)
    assert not np.array_equal(a.image, draw_scene(2, 2).image)


@pytest.mark.parametrize("size", [(64, 64), (96, 192), (200, 90), (127, 129), (256, 256)])
def test_any_size_and_aspect_ratio(size: tuple[int, int]) -> None:
    scene = draw_scene(0, 5, size)
    assert scene.image.shape == (*size, 3)
    assert scene.image.dtype == scene.mask.dtype == np.uint8
    assert scene.mask.shape == scene.depth.shape == scene.ident.shape == scene.part.shape == size
    assert scene.depth.dtype == np.float32
    for look in LOOKS:
        picture = render(scene, look, 0, 5)
        assert picture.shape == (*size, 3)
        assert picture.dtype == np.uint8


def test_too_small_a_size_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="at least 64 on both sides: draw it larger"):
        draw_scene(0, 0, (32, 128))


def test_every_class_occurs_and_no_other_id(scenes: list[Scene]) -> None:
    pixels = np.bincount(np.concatenate([s.mask.ravel() for s in scenes]), minlength=len(CLASSES))
    assert len(pixels) == len(CLASSES)
    assert (pixels > 0.005 * pixels.sum()).all(), dict(zip(CLASSES, pixels / pixels.sum(), strict=True))


def test_scenes_vary_in_their_counts(scenes: list[Scene]) -> None:
    for noun in ("car", "person", "tree"):
        assert len({s.counts[noun] for s in scenes}) >= 4


def test_depth_is_positive_and_only_the_sky_is_infinitely_far(scenes: list[Scene]) -> None:
    for s in scenes:
        assert (s.depth > 1).all()
        assert ((s.depth == SKY_DEPTH) == (s.mask == CLASSES.index("sky"))).all()
        road = s.depth[s.mask == CLASSES.index("road")]
        assert road.max() > 2 * road.min()


def test_hedges_are_no_further_than_the_ground_that_they_stand_on(scenes: list[Scene]) -> None:
    near = 0
    for s in scenes:
        rows = np.arange(s.mask.shape[0]) + 0.5 - s.camera.horizon
        ground = np.where(rows > 0, s.camera.focal * s.camera.height / np.maximum(rows, 1e-3), 80.0)
        wood = s.ident == WOOD
        assert (s.depth[wood] <= np.broadcast_to(ground[:, None], wood.shape)[wood] + 1e-3).all()
        assert (s.air == s.depth)[~wood].all()
        near += int(((s.depth < 40) & (s.air > 60) & wood).sum())
    assert near > 500


def test_boxes_lie_inside_and_hold_their_class_up_to_the_rim(scenes: list[Scene]) -> None:
    for s in scenes:
        height, width = s.mask.shape
        for box in s.boxes:
            left, top, right, bottom = (int(v) for v in box.xyxy)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            inside = s.mask[top:bottom, left:right] == box.label
            assert inside.sum() >= 20
            assert all(rim.any() for rim in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_people_and_poles_are_large_enough_to_see(scenes: list[Scene]) -> None:
    for label, least in (("person", 18), ("pole", 20), ("car", 15)):
        tall = [b.xyxy[3] - b.xyxy[1] for s in scenes for b in s.boxes if b.label == CLASSES.index(label)]
        assert np.median(tall) >= least


def test_counts_boxes_and_caption_agree() -> None:
    for index in range(120):
        s = draw_scene(3, index, (64, 64))
        labels = [CLASSES[b.label] for b in s.boxes]
        boxed = {
            "car": labels.count("car"),
            "person": labels.count("person"),
            "tree": labels.count("vegetation"),
        }
        assert s.counts == boxed
        assert s.caption.startswith(("a ", "an ", "two ", "three ", "four "))
        for look in LOOKS.values():
            for template in look.templates:
                assert parse_counts(template.format(caption=s.caption)) == s.counts, s.caption


def test_nothing_that_can_be_seen_is_left_out_of_the_boxes(scenes: list[Scene]) -> None:
    for s in scenes:
        things = {int(i) for i in np.unique(s.ident[s.mask >= CLASSES.index("pole")])}
        assert len(things) == sum(b.label >= CLASSES.index("pole") for b in s.boxes)


def test_parse_counts_reads_numbers_and_absences() -> None:
    assert parse_counts("a night photo of a street with two cars, a person and no trees") == {
        "car": 2, "person": 1, "tree": 0,
    }  # fmt: skip
    assert parse_counts("an empty road with three trees under a cloudy sky") == {
        "car": 0,
        "person": 0,
        "tree": 3,
    }


def test_the_corpus_knows_every_word_of_every_caption() -> None:
    words = {word for text in corpus() for word in text.replace(",", " ").split()}
    for index in range(60):
        caption = draw_scene(4, index, (64, 64)).caption
        for look in LOOKS.values():
            for template in look.templates:
                assert set(template.format(caption=caption).replace(",", " ").split()) <= words


def test_held_out_looks_are_marked_and_share_words_only_where_meant() -> None:
    assert {name for name, look in LOOKS.items() if not look.held_out} == SEEN
    assert {name for name, look in LOOKS.items() if look.held_out} == HELD_OUT
    assert all("{caption}" in t for look in LOOKS.values() for t in look.templates)
    known = {word for name in SEEN for t in LOOKS[name].templates for word in t.split()}
    assert {"night", "watercolor", "comic"} <= known
    assert "thermal" not in known


def test_no_look_touches_the_labels_and_each_is_deterministic() -> None:
    scene = draw_scene(0, 1)
    before = [getattr(scene, name).copy() for name in ("image", "mask", "depth", "ident", "part")]
    for look in LOOKS:
        assert np.array_equal(render(scene, look, 0, 1), render(scene, look, 0, 1))
        assert not np.array_equal(render(scene, look, 0, 1), render(scene, look, 0, 2))
    for old, name in zip(before, ("image", "mask", "depth", "ident", "part"), strict=True):
        assert np.array_equal(old, getattr(scene, name))


def _pictures(scenes: list[Scene], look: str) -> np.ndarray:
    return np.stack([render(s, look, 7, i) for i, s in enumerate(scenes)]).astype(float)


def _residual(source: np.ndarray, target: np.ndarray) -> float:
    """Error in 0..255 that is left when ``source`` is turned into ``target`` by the best affine map of colours."""
    x = np.concatenate([source.reshape(-1, 3), np.ones((source.size // 3, 1))], 1)
    y = target.reshape(-1, 3).astype(float)
    return float(np.abs(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]).mean())


def test_looks_differ_by_more_than_a_tint(scenes: list[Scene]) -> None:
    pictures = {look: _pictures(scenes[:3], look) for look in LOOKS}
    for a, b in itertools.permutations(LOOKS, 2):
        if b != "day":
            assert _residual(pictures[a], pictures[b]) > 5, (a, b)


def test_a_known_word_and_its_held_out_look_are_far_apart(scenes: list[Scene]) -> None:
    nights = (("night", "city-night"), ("night", "misty-night"), ("city-night", "misty-night"))
    for known, new in (*nights, ("watercolor", "aquarelle"), ("comic", "manga")):
        assert _residual(_pictures(scenes[:4], known), _pictures(scenes[:4], new)) > 8


@pytest.mark.parametrize("look", ["city-night", "misty-night"])
def test_every_class_leaves_some_evidence_in_the_held_out_night(scenes: list[Scene], look: str) -> None:
    """Nothing may sink into plain black, or no adaptation could find it again."""
    dark = _pictures(scenes[:12], look)
    mask = np.stack([s.mask for s in scenes[:12]])
    for name in ("building", "vegetation", "person", "pole", "sidewalk"):
        assert dark[mask == CLASSES.index(name)].mean() > 16, name


def test_an_unknown_look_is_refused_with_the_list_of_looks() -> None:
    with pytest.raises(KeyError, match=r"no look named 'dusk'; the looks are day, night"):
        render(draw_scene(0, 0, (64, 64)), "dusk", 0, 0)


def test_the_contact_sheet_shows_masks_and_all_looks(tmp_path: object) -> None:
    sheet = contact_sheet(size=(64, 64), columns=2, gap=2)
    assert sheet.shape == ((len(LOOKS) + 1) * 66 + 2, 2 * 66 + 2, 3)
    out = f"{tmp_path}/world.png"
    main(["--out", out, "--size", "64", "64"])
    with Image.open(out) as picture:
        assert picture.size == (8 * 68 + 4, (len(LOOKS) + 1) * 68 + 4)
