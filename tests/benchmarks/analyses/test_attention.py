"""Attention of words on the embedded mini model, before and after adaptation, and on pasted objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.analyses.shared.images import Seen
from benchmarks.analyses.shared.pasting import paste_objects
from tadp_da.domains.mini import LABELS
from tadp_da.errors import UsageError


def seen(drawn: Path) -> list[Seen]:
    return [
        Seen(
            key=path.name,
            image=Image.open(path),
            caption="",
            truth=np.asarray(Image.open(drawn / "masks" / path.name)),
            labels=LABELS,
        )
        for path in sorted((drawn / "images").glob("*.png"))
    ]


@pytest.fixture(scope="module")
def pasted_class(drawn: Path) -> str:
    """A class that some of the images show and some lack."""
    images = seen(drawn)
    return next(n for n in LABELS.classes if 0 < sum(n in each.present for each in images) < len(images))


def test_maps_of_words_before_and_after_adaptation_and_of_a_pasted_object(
    command: Callable[..., int], given_words: list[object], pasted_class: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sets = (f"paste={pasted_class}", "pictures=1")
    assert command("analyze", "attention", *given_words, "--out", out, *(f"--set={s}" for s in sets)) == 0
    tables = json.loads((out / "findings.json").read_text())["tables"]
    assert {row["word"] for row in tables["images"]} == {*LABELS.classes, "end of text"}
    measured: dict[tuple[str, str], dict[str, float]] = {}
    for row in tables["images"]:
        assert 0 <= row["lowest"] < row["highest"] <= 1
        measured.setdefault((row["image"], row["word"]), {})[row["state"]] = row["AUROC"]
    assert all(states["before adaptation"] == states["after adaptation"] for states in measured.values()), (
        "nothing was adapted"
    )
    assert len(tables["copy-paste"]) % 2 == 0
    for row in tables["copy-paste"]:
        assert row["image"] != row["from"]
        assert row["AUROC before pasting"] != row["AUROC after pasting"]
    names = sorted(path.stem.split()[0] for path in out.glob("*.png"))
    assert names == ["copy-paste", "layers", "words"]


def test_words_of_a_caption_on_one_image_without_labels(
    command: Callable[..., int], model_folder: Path, drawn: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = (model_folder, "--images", drawn / "images/0.png", "--captions", drawn / "captions.json")
    sets = ("--set=strategy=a {caption}", "--set=before=false", "--set=end=false", "--set=words=[street]")
    image = drawn / "street.json"
    image.write_text(json.dumps({"0.png": {"captions": ["a street"]}}))
    assert command("analyze", "attention", *words[:-1], image, *sets, "--out", out, "--device", "cpu") == 0
    (row,) = json.loads((out / "findings.json").read_text())["tables"]["images"]
    assert (row["word"], row["state"], row["AUROC"]) == ("street", "after adaptation", None)


def test_an_object_is_pasted_at_its_own_place(drawn: Path, pasted_class: str) -> None:
    images = {each.key: each for each in seen(drawn)}
    for pasted in paste_objects(list(images.values()), pasted_class):
        assert pasted_class not in pasted.seen.present
        donor = images[pasted.donor]
        assert pasted.region.any()
        assert (donor.mask(pasted_class) | ~pasted.region).all()
        inside = np.asarray(pasted.image) == np.asarray(donor.image)
        outside = np.asarray(pasted.image) == np.asarray(pasted.seen.image)
        assert inside[pasted.region].all()
        assert outside[~pasted.region].all()
    with pytest.raises(UsageError, match="choose another class"):
        paste_objects(list(images.values()), "sky")
    with pytest.raises(UsageError, match="one of their classes"):
        paste_objects(list(images.values()), "cow")
