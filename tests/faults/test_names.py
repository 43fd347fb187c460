"""Names of files and arguments that are not UTF-8, or as long as a file system allows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest.mock import ANY

import pytest

from tadp_da.captions.captioner import Captioner
from tadp_da.datasets import find
from tadp_da.run import Run
from tests.tadp_da.domains.checks.checked import command, four_pictures


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return four_pictures(tmp_path)


@pytest.fixture
def latin(own: Path) -> Path:
    """A folder of images, one of which has a name in Latin-1, as old archives bring it."""
    os.rename(own / "i/3.png", os.fsencode(own / "i") + b"/stra\xdfe.png")
    return own / "i"


def test_a_name_that_is_not_utf_8_is_a_bad_image_with_advice(
    latin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    assert command("data", "check", latin) == 3
    told = capsys.readouterr().out
    assert command("caption", latin, "--out", out / "captions.json") == 3
    for shown in (told, capsys.readouterr().err):
        assert "not valid UTF-8" in shown
        assert "stra\\udcdfe.png" in shown
        assert "convmv" in shown
    assert command("data", "check", latin, "--json") == 3
    assert json.loads(capsys.readouterr().out)["splits"][0]["bad"] == {"stra\udcdfe.png": ANY}
    run = Run(folder=out, quiet=True, skip_bad=True)
    source, _ = find(latin, tmp_path)
    assert len(source.checked(["unlabeled"], run).images("unlabeled")) == 3
    assert len(source.subsample(4, 0).images("unlabeled")) == 4, "a drawn part is checked afterwards"
    assert "stra\\udcdfe.png" in caplog.text
    assert caplog.text.encode(), "logs are written in UTF-8"
    assert len(json.loads((out / "skipped-i.json").read_text())["unlabeled"]) == 1


@pytest.mark.parametrize("option", ["--caption", "--out", "--attention"])
def test_an_argument_that_is_not_utf_8_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("predict", "model", "images", option, os.fsdecode(b"stra\xdfe")) == 2
    shown = capsys.readouterr().err
    assert "not valid UTF-8" in shown
    assert "where: stra\\udcdfe" in shown


@pytest.mark.parametrize("length", [250, 255, 300])
def test_a_name_at_the_limit_of_the_file_system_is_answered(
    own: Path,
    tmp_path: Path,
    length: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Captioner, "from_pretrained", lambda *_: None)  # it is not asked
    name = "n" * (length - 5) + ".json"
    assert command("caption", own / "i", "--out", tmp_path / name, "--device", "cpu") == 2
    assert command("predict", "m" * length, own / "i" / name, "--out", tmp_path / "x") in (2, 6)
    shown = capsys.readouterr().err
    assert "too long for the file system" in shown
    assert name in shown
    assert "choose a shorter one" in shown
    assert not list(tmp_path.glob("n*"))
