"""Captions from the cache are those that the captioner wrote, and it writes what the cache cannot know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers.decoders import WordPiece

from tadp_da import fingerprints as frozen
from tadp_da.captions.cached import CachedCaptioner
from tadp_da.captions.captioner import Captioner, CaptionerSettings, caption_images
from tadp_da.captions.files import CaptionFile
from tadp_da.run import Run
from tadp_da.storage.cache import open_cache
from tadp_da.types import Unlabeled
from tests.tadp_da.captions.conftest import write_blip2

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
    CachedCaptioner(captioner)(pictures, [0, 1, 2])
    counts = open_cache().counts
    Image.new("RGB", (20, 40), "red").save(pictures.paths[1])
    assert CachedCaptioner(captioner)(pictures, [2, 1, 0]) == captioner([pictures[i] for i in (2, 1, 0)])
    assert (counts.found, counts.made) == (2, 4)
    longer = Captioner.from_pretrained(blip2, CaptionerSettings(min_new_tokens=9, max_new_tokens=9))
    assert CachedCaptioner(longer)(pictures, [0]) == longer([pictures[0]])
    assert (counts.found, counts.made) == (2, 5)


def last_weight(captioner: Captioner) -> None:
    """Change the last number of the largest tensor: all that comes before it is as it was."""
    largest = max(captioner.model.parameters(), key=torch.numel)
    assert largest.numel() > 4096
    largest.data.view(-1)[-1] += 1


def other_words(captioner: Captioner) -> None:
    """Two words of the vocabulary change places."""
    backend = captioner.processor.tokenizer.backend_tokenizer
    words = backend.get_vocab(with_added_tokens=False)
    words["street"], words["sky"] = words["sky"], words["street"]
    backend.model = type(backend.model)(words, unk_token="<unk>")


def other_decoder(captioner: Captioner) -> None:
    captioner.processor.tokenizer.backend_tokenizer.decoder = WordPiece()


def other_tidying(captioner: Captioner) -> None:
    tokenizer = captioner.processor.tokenizer
    tokenizer.clean_up_tokenization_spaces = not tokenizer.clean_up_tokenization_spaces


@pytest.mark.parametrize("change", [last_weight, other_words, other_decoder, other_tidying])
def test_captions_of_another_model_or_tokenizer_are_not_found(
    pictures: Unlabeled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Captioner], None]
) -> None:
    monkeypatch.setenv("TADP_DA_CACHE", str(tmp_path / "cache"))
    wide = write_blip2(tmp_path / "wide", width=64)
    before, after = (Captioner.from_pretrained(wide, SETTINGS) for _ in range(2))
    assert before.fingerprint == Captioner.from_pretrained(wide, SETTINGS).fingerprint
    change(after)
    CachedCaptioner(before)(pictures, [0, 1])
    assert CachedCaptioner(after)(pictures, [0, 1]) == after([pictures[0], pictures[1]])
    counts = open_cache().counts
    assert (counts.found, counts.made) == (0, 4)


def test_a_captioner_reads_its_weights_once(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = frozen.weights_of
    monkeypatch.setattr(frozen, "weights_of", lambda module: asked.append(module) or real(module))
    assert captioner.facts == captioner.facts
    assert CachedCaptioner(captioner).facts["fingerprint"] == captioner.fingerprint
    assert len(asked) == 1
    assert dataclasses.replace(captioner).fingerprint == captioner.fingerprint


def test_a_tokenizer_without_rust_is_told_by_its_vocabulary() -> None:
    class Plain:
        def __init__(self, words: dict[str, int]) -> None:
            self.get_vocab = lambda: words

    one, other = frozen.tokenizer_of(Plain({"a": 0, "b": 1})), frozen.tokenizer_of(Plain({"a": 1, "b": 0}))
    assert one != other
    assert frozen.tokenizer_of(Plain({"b": 1, "a": 0})) == one
