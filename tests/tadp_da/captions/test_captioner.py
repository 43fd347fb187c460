"""Captioning with a real, tiny BLIP-2: batches, going on after a stop, and who made a file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from tadp_da.captions.captioner import Captioner, CaptionerSettings, CaptionReport, caption_images
from tadp_da.captions.files import CaptionEntry, CaptionFile
from tadp_da.captions.flags import notes
from tadp_da.errors import ArtifactError, DataError, EnvironmentSetupError, UsageError
from tadp_da.run import Run
from tadp_da.types import Unlabeled
from tests.conftest import DEVICES

SETTINGS = CaptionerSettings(batch=4, min_new_tokens=2, max_new_tokens=8)


@pytest.fixture
def captioner(blip2: Path) -> Captioner:
    return Captioner.from_pretrained(blip2, SETTINGS)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "run", quiet=True)


def written(path: Path) -> dict[str, str]:
    return {key: entry.caption for key, entry in CaptionFile.read(path).entries.items()}


@pytest.mark.parametrize("device", DEVICES)
def test_captions_do_not_depend_on_the_batch(captioner: Captioner, pictures: Unlabeled, device: str) -> None:
    captioner.model.to(device)
    together = captioner(list(pictures))
    alone = [captioner([image])[0] for image in pictures]
    assert together == alone
    assert len(set(together)) > 1  # the images are looked at
    assert all(caption == caption.strip() and "<" not in caption for caption in together)


def test_captions_keep_to_the_lengths_asked_for(blip2: Path, pictures: Unlabeled) -> None:
    short = Captioner.from_pretrained(blip2, CaptionerSettings(min_new_tokens=3, max_new_tokens=3))(
        list(pictures)
    )
    long = Captioner.from_pretrained(blip2, CaptionerSettings(min_new_tokens=9, max_new_tokens=9))(
        list(pictures)
    )
    assert all(b.startswith(a) and len(b) > len(a) for a, b in zip(short, long, strict=True))


def test_a_folder_becomes_a_file_keyed_by_relative_path(
    captioner: Captioner, pictures: Unlabeled, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "captions.json"
    report = caption_images(pictures, captioner, out, run)
    assert (report.total, report.made) == (10, 10)
    assert report.lines()[0] == "10 images: 10 captions generated, 0 existed"
    assert CaptionFile.read(out).lookup(pictures) == dict(
        zip((pictures.key(i) for i in range(10)), captioner(list(pictures)), strict=True)
    )
    assert json.loads((out.parent / "captions.meta.json").read_text(encoding="utf-8")) == captioner.facts
    assert sorted(p.name for p in out.parent.iterdir()) == ["captions.json", "captions.meta.json"]


def test_a_stopped_call_is_gone_on_with(
    captioner: Captioner, pictures: Unlabeled, run: Run, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.json"
    caption_images(pictures, captioner, whole, run)
    bad = pictures.paths[7]
    good = bad.read_bytes()
    bad.write_bytes(good[:100])
    out = tmp_path / "captions.json"
    with pytest.raises(DataError, match="re-encode"):
        caption_images(pictures, captioner, out, run)
    assert len(written(out)) == 4  # the first batch was kept
    bad.write_bytes(good)
    report = caption_images(pictures, captioner, out, run)
    assert report.made == 6
    assert out.read_bytes() == whole.read_bytes()
    assert caption_images(pictures, captioner, out, run).made == 0


def test_the_file_is_written_while_it_grows(
    blip2: Path, pictures: Unlabeled, run: Run, tmp_path: Path
) -> None:
    captioner = Captioner.from_pretrained(blip2, dataclasses.replace(SETTINGS, batch=2))
    out, grown = tmp_path / "captions.json", []

    class Watched(Unlabeled):
        def __getitem__(self, index: object) -> object:
            grown.append(len(written(out)) if out.exists() else 0)
            return super().__getitem__(index)

    caption_images(Watched(pictures.domain, pictures.root, pictures.paths), captioner, out, run, save_every=2)
    assert grown == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


def test_captions_that_are_there_are_kept(
    captioner: Captioner, pictures: Unlabeled, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "captions.json"
    caption_images(pictures[:2], captioner, out, run)
    file = CaptionFile.read(out)
    key = pictures.key(0)
    CaptionFile(
        out, {**file.entries, key: CaptionEntry(("mended by hand",)), "other.png": CaptionEntry(("other",))}
    ).write()
    report = caption_images(pictures[:3], captioner, out, run)
    assert (report.total, report.made) == (3, 1)
    assert written(out)[key] == "mended by hand"
    assert written(out)["other.png"] == "other"


@pytest.mark.parametrize("change", [{"max_new_tokens": 9}, {"min_new_tokens": 0}, {"dtype": "bf16"}])
def test_a_file_of_other_settings_is_refused(
    blip2: Path,
    captioner: Captioner,
    pictures: Unlabeled,
    run: Run,
    tmp_path: Path,
    change: dict[str, object],
) -> None:
    out = tmp_path / "captions.json"
    caption_images(pictures[:1], captioner, out, run)
    other = Captioner.from_pretrained(blip2, dataclasses.replace(SETTINGS, **change))  # type: ignore[arg-type]
    with pytest.raises(
        UsageError, match=f"generated by another captioner \\({next(iter(change))}: "
    ) as caught:
        caption_images(pictures, other, out, run)
    assert "choose another --out, or delete captions.json and captions.meta.json" in caught.value.fix


def test_a_file_of_another_model_is_refused_and_a_moved_model_is_not(
    blip2: Path, captioner: Captioner, pictures: Unlabeled, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "captions.json"
    caption_images(pictures[:1], captioner, out, run)
    moved = Captioner.from_pretrained(
        shutil.copytree(blip2, tmp_path / "moved"), dataclasses.replace(SETTINGS, batch=1)
    )
    assert caption_images(pictures, moved, out, run).made == 9
    other = Captioner.from_pretrained(blip2, SETTINGS)
    other.model.query_tokens.data += 1
    with pytest.raises(UsageError, match="fingerprint"):
        caption_images(pictures, other, out, run)


def test_a_file_that_nobody_signed_is_refused(
    captioner: Captioner, pictures: Unlabeled, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "captions.json"
    CaptionFile(out, {"x.png": CaptionEntry(("a car",))}).write()
    with pytest.raises(ArtifactError, match=r"without captions\.meta\.json") as caught:
        caption_images(pictures, captioner, out, run)
    assert "choose another --out" in caught.value.fix
    (tmp_path / "captions.meta.json").write_text("[1", encoding="utf-8")
    with pytest.raises(ArtifactError, match="cannot read the captioner's record"):
        caption_images(pictures, captioner, out, run)


def test_empty_and_looping_captions_are_counted() -> None:
    captions = {"a": "", "b": "a car", "c": "a car and a car and a car", "d": " "}
    report = CaptionReport(4, 3, 0, tuple(notes(captions)))
    assert report.lines() == [
        "4 images: 3 captions generated, 1 existed",
        "2 of 4 captions are empty, e.g. a",
        "1 of 4 captions are looping, e.g. c",
    ]


def test_a_caption_longer_than_the_model_is_refused_with_the_longest(
    blip2: Path, pictures: Unlabeled
) -> None:
    with pytest.raises(UsageError, match="set max_new_tokens to 59 or less"):
        Captioner.from_pretrained(blip2, CaptionerSettings(max_new_tokens=60))
    longest = Captioner.from_pretrained(blip2, CaptionerSettings(min_new_tokens=59, max_new_tokens=59))
    assert longest(list(pictures[:1]))[0]


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"max_new_tokens": 0}, {"dtype": "int8"}, {"beams": 2}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CaptionerSettings(**wrong)  # type: ignore[arg-type]


def test_more_least_than_most_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match="raise max_new_tokens or lower min_new_tokens"):
        CaptionerSettings(min_new_tokens=9, max_new_tokens=8)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("no/such-model", "hf download no/such-model --local-dir FOLDER"),
        ("/nowhere/at/all", "Salesforce/blip2-opt-2.7b"),
    ],
)
def test_a_model_that_is_not_there_is_an_error_with_advice(name: str, advice: str) -> None:
    with pytest.raises(EnvironmentSetupError) as caught:
        Captioner.from_pretrained(name)
    assert advice in caught.value.fix


def test_pickled_weights_are_refused(blip2: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = shutil.copytree(blip2, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(EnvironmentSetupError, match="safetensors"):
        Captioner.from_pretrained(folder)


def test_the_embedded_captioner_is_called_mini() -> None:
    captioner = Captioner.from_pretrained("mini")
    assert captioner.model.config.model_type == "blip-2"
    assert captioner([Image.new("RGB", (128, 128), "skyblue")])[0]


def test_a_text_model_is_no_captioner(blip2: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(blip2, tmp_path / "text")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config["text_config"]), encoding="utf-8")
    with pytest.raises(EnvironmentSetupError, match="cannot load the captioner"):
        Captioner.from_pretrained(folder)


def test_captioning_writes_nothing_to_the_terminal(
    blip2: Path, pictures: Unlabeled, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    caption_images(pictures, Captioner.from_pretrained(blip2, SETTINGS), tmp_path / "c.json", run)
    assert capfd.readouterr() == ("", "")


def test_a_caption_with_brackets_does_not_break_the_progress_line(
    captioner: Captioner, pictures: Unlabeled, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bracketed = [i for i, caption in enumerate(captioner(list(pictures))) if "[/car]" in caption]
    assert bracketed
    images = dataclasses.replace(pictures, paths=tuple(pictures.paths[i] for i in bracketed))
    caption_images(images, captioner, tmp_path / "c.json", Run(folder=tmp_path))
    assert "[/car]" in capfd.readouterr().err


def test_grey_and_transparent_pictures_are_captioned(captioner: Captioner, run: Run, tmp_path: Path) -> None:
    paths = []
    for mode in ("L", "RGBA", "P"):
        Image.new(mode, (50, 30)).save(tmp_path / f"{mode}.png")
        paths.append(tmp_path / f"{mode}.png")
    images = Unlabeled(domain="d", root=tmp_path, paths=tuple(paths))
    assert caption_images(images, captioner, tmp_path / "c.json", run).made == 3


def test_captions_from_the_cache_are_not_called_generated(
    captioner: Captioner, pictures: Unlabeled, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TADP_DA_CACHE", str(tmp_path / "cache"))
    caption_images(pictures[:4], captioner, tmp_path / "first.json", run)
    again = caption_images(pictures, captioner, tmp_path / "again.json", run)
    assert (again.made, again.cached) == (6, 4)
    assert again.lines()[0] == "10 images: 6 captions generated, 4 from the cache, 0 existed"
