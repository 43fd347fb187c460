"""Captions given to other images."""

from __future__ import annotations

from tadp_da.captions.provider import shuffle


def test_shuffled_captions_are_those_of_other_images_and_depend_on_names_alone() -> None:
    captions = {f"{i}.png": f"caption {i}" for i in range(20)}
    found = shuffle(captions)
    assert list(found) == list(captions)
    assert sorted(found.values()) == sorted(captions.values())
    assert all(found[key] != captions[key] for key in captions)
    other = shuffle({key: text.upper() for key, text in reversed(captions.items())})
    assert {key: text.upper() for key, text in found.items()} == other
    assert shuffle({"a.png": "alone"}) == {"a.png": "alone"}
    assert shuffle({}) == {}
