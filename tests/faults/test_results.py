"""Results that cannot be trusted are refused, and those that are shown say neither too much nor too little."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.submissions import MASK_ZIPS
from tadp_da.domains import domains
from tadp_da.domains._driving import LABELS
from tadp_da.errors import DataError
from tadp_da.types import Unlabeled
from tests.tadp_da.domains import trees

Files = dict[str, bytes]


def png(values: object, kind: type = np.uint8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values, kind)).save(buffer, "PNG")
    return buffer.getvalue()


def first(files: Files, content: bytes) -> Files:
    """The same with another first file."""
    return files | {next(iter(files)): content}


WRONG: dict[str, tuple[Callable[[Files], Files], str]] = {
    "a top folder": (lambda f: {f"results/{n}": c for n, c in f.items()}, "not the folder"),
    "one too few": (
        lambda f: dict(list(f.items())[1:]),
        "1 of .* are missing(.|\n)*every image of the split",
    ),
    "another name": (
        lambda f: {n.replace("000019", "000020").replace("000375", "000376"): c for n, c in f.items()},
        "of no image(.|\n)*name a prediction as its image",
    ),
    "another size": (lambda f: first(f, png(np.full((15, 20), 8))), "20x15 pixels, its image 40x30"),
    "colours": (lambda f: first(f, png(np.full((30, 40, 3), 8))), "mode RGB(.|\n)*ids, not colours"),
    "a void": (lambda f: first(f, png(np.full((30, 40), 255))), "255.* no (label|train) ids"),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Unlabeled, Path]]:
    """By form: the images of a server's split, and our zip of their predictions."""
    root = tmp_path_factory.mktemp("servers")
    trees.dark_zurich(trees.cityscapes(root))
    made = {}
    for form, split in (("cityscapes", "server"), ("dark-zurich", "test")):
        images = domains[form].unlabeled(root, split)
        rng = np.random.default_rng(0)
        decisions = [rng.integers(0, 19, (30, 40), np.uint8) for _ in images.paths]
        MASK_ZIPS[form].write(LABELS, images, decisions, root / f"{form}.zip")
        made[form] = (images, root / f"{form}.zip")
    return made


def files_of(place: Path) -> Files:
    with zipfile.ZipFile(place) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: Files, place: Path) -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place


@pytest.mark.parametrize("form", MASK_ZIPS)
def test_row_70_our_submission_passes_its_check(
    servers: dict[str, tuple[Unlabeled, Path]], form: str, tmp_path: Path
) -> None:
    images, place = servers[form]
    MASK_ZIPS[form].check(place, images)
    names = list(files_of(place))
    assert {n.partition("/")[0] for n in names} == (
        {"labelTrainIds", "labelTrainIds_invalid", "confidence"}
        if form == "dark-zurich"
        else {f"{path.stem}.png" for path in images.paths}
    )


@pytest.mark.parametrize("form", MASK_ZIPS)
@pytest.mark.parametrize("what", WRONG)
def test_row_70_a_corrupted_submission_is_refused_with_its_own_message(
    servers: dict[str, tuple[Unlabeled, Path]], form: str, what: str, tmp_path: Path
) -> None:
    images, place = servers[form]
    spoil, advice = WRONG[what]
    with pytest.raises(DataError, match=advice) as refused:
        MASK_ZIPS[form].check(zipped(spoil(files_of(place)), tmp_path / "x.zip"), images)
    others = [
        name for name, (_, text) in WRONG.items() if name != what and re.search(text, str(refused.value))
    ]
    assert not others, "each fault has its own message"


@pytest.mark.parametrize(("form", "other"), [("cityscapes", "train ids"), ("dark-zurich", "label ids")])
def test_row_70_the_other_numbering_is_recognized(
    servers: dict[str, tuple[Unlabeled, Path]], form: str, other: str, tmp_path: Path
) -> None:
    images, place = servers[form]
    ids = np.array(MASK_ZIPS["dark-zurich" if form == "cityscapes" else "cityscapes"].ids, np.uint8)
    files = first(files_of(place), png(np.resize(ids, (30, 40))))
    with pytest.raises(DataError, match=f"look like {other}"):
        MASK_ZIPS[form].check(zipped(files, tmp_path / "x.zip"), images)


def test_row_70_a_damaged_zip_is_refused(servers: dict[str, tuple[Unlabeled, Path]], tmp_path: Path) -> None:
    images, place = servers["cityscapes"]
    content = bytearray(place.read_bytes())
    for name, spoil, advice in (
        ("cut", content[: len(content) // 2], "not a whole zip"),
        ("flipped", content[:200] + bytes([content[200] ^ 255]) + content[201:], "damaged"),
    ):
        (tmp_path / name).write_bytes(spoil)
        with pytest.raises(DataError, match=advice):
            MASK_ZIPS["cityscapes"].check(tmp_path / name, images)
    twice, files = tmp_path / "twice.zip", list(files_of(place).items())
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr(*files[0])
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(*files[0])
    with pytest.raises(DataError, match="keep one prediction per image"):
        MASK_ZIPS["cityscapes"].check(twice, images)
