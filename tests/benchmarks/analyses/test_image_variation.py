"""Images redrawn by the embedded mini model, and what its perception model finds in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.analyses.image_variation import CAPTION, CLASSES, ORACLE


def test_a_weak_variation_is_close_to_the_original_and_prompts_are_compared(
    command: Callable[..., int], given_words: list[object], drawn: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    few = ("limit=1", "steps=4", "guidance=1", "strengths=[0.25,1.0]", "prompts={night: a dark night}")
    assert (
        command("analyze", "image-variation", *given_words, "--out", out, *(f"--set={s}" for s in few)) == 0
    )
    found = json.loads((out / "findings.json").read_text())
    change = {
        (row["prompt"], row["strength"]): row["difference from the original (grey levels)"]
        for row in found["tables"]["strengths"]
    }
    for prompt in (CLASSES, CAPTION, ORACLE, "night"):
        assert change[prompt, 0.25] < 40, "what the autoencoder and a little noise change"
        assert change[prompt, 0.25] < 0.5 * change[prompt, 1.0]
    lines = {row["prompt"]: row["text"] for row in found["tables"]["images"]}
    captions = json.loads((drawn / "captions.json").read_text())
    (key,) = {row["image"] for row in found["tables"]["images"]}
    assert lines[CAPTION] == captions[key]["captions"][0]
    assert lines["night"] == "a dark night"
    mask = np.asarray(Image.open(drawn / "masks" / key))
    assert len(lines[ORACLE].split(", ")) == len(np.unique(mask)) < len(lines[CLASSES].split(", ")) == 8
    stem = Path(key).stem
    with Image.open(out / f"variations {stem}.webp") as moving:
        assert (moving.n_frames, moving.size) == (3, (4 * 96, 64))
    assert Image.open(out / f"variations {stem}.png").width > 300


def test_weights_that_nobody_names_are_asked_for(
    command: Callable[..., int], given_words: list[object], model_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    for path in model_folder.iterdir():
        if path.name != "provenance.json":
            (nameless / path.name).symlink_to(path)
    words = [nameless, *given_words[1:], "--out", tmp_path / "out"]
    assert command("analyze", "image-variation", *words, "--set", "limit=1") == 2
    assert "--set base=mini" in capsys.readouterr().err
