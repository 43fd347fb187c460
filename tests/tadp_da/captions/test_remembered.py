"""Captions from the cache are those that the captioner wrote, and it writes what the cache cannot know."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tadp_da.cache import open_cache
from tadp_da.captions._remembered import Remembered
from tadp_da.captions.captioner import Captioner, CaptionerSettings, caption_images
from tadp_da.captions.files import CaptionFile
from tadp_da.run import Run
from tadp_da.types import Unlabeled

SETTINGS = CaptionerSettings(batch=4, min_new_tokens=2, max_new_tokens=8)


@pytest.fixture
def captioner(blip2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Captioner:
    monkeypatch.setenv("TADP_DA_CACHE", str(tmp_path / "cache"))
    return Captioner.from_pretrained(blip2, SETTINGS)


def test_another_folder_and_a_grown_set_ask_for_the_new_pictures_only(
    captioner: Captioner, pictures: Unlabeled, tmp_path: Path
) -> None:
    run = Run(folder=tmp_path / "run", quiet=True)
    caption_images(pictures[:6], captioner, tmp_path / "few.json", run)
    counts = open_cache().counts
    assert (counts.found, counts.made) == (0, 6)
    caption_images(pictures, captioner, tmp_path / "all.json", run)
    assert (counts.found, counts.made) == (6, 10)
    entries = CaptionFile.read(tmp_path / "all.json").entries
    assert [entries[pictures.key(i)].caption for i in range(10)] == captioner(list(pictures))


def test_an_edited_picture_and_other_settings_are_captioned_anew(
    blip2: Path, captioner: Captioner, pictures: Unlabeled
) -> None:
    Remembered(captioner)(pictures, [0, 1, 2])
    counts = open_cache().counts
    Image.new("RGB", (20, 40), "red").save(pictures.paths[1])
    assert Remembered(captioner)(pictures, [2, 1, 0]) == captioner([pictures[i] for i in (2, 1, 0)])
    assert (counts.found, counts.made) == (2, 4)
    longer = Captioner.from_pretrained(blip2, CaptionerSettings(min_new_tokens=9, max_new_tokens=9))
    assert Remembered(longer)(pictures, [0]) == longer([pictures[0]])
    assert (counts.found, counts.made) == (2, 5)
