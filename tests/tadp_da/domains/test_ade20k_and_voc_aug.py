"""ADE20K and VOC with SBD's masks on trees of their true form, and the usual mistakes with both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tadp_da.custom_dataset import CustomDataset, custom_domain
from tadp_da.domains import Domain, domains
from tadp_da.domains.checks.report import DataFinding
from tadp_da.domains.checks.validate import check_data
from tadp_da.domains.formats.masks import StoredMask
from tadp_da.errors import DataError
from tests.tadp_da.domains import trees

ADE, VOC = domains["ade20k"], domains["voc-segmentation-aug"]
SHARES = np.array([0.06, 0.158, 0.107, 0.088, 0.062, 0.048, 0.045, 0.040])
"""Of the pixels of ADE20K, of the values 0 to 7 as published."""


def masks(domain: Domain, root: Path, split: str) -> list[np.ndarray]:
    assert domain.label is not None
    return [domain.label(path) for path in domain.unlabeled(root, split).paths]


def findings(domain: Domain, root: Path, level: str) -> list[DataFinding]:
    report = check_data(domain, root, partial=True, splits=("train",))
    return [f for f in report.all_findings if f.level == level and "results are not comparable" not in f.what]


def test_ade20k_is_read_as_published_with_its_zero_label_reduced(tmp_path: Path) -> None:
    trees.ade20k(tmp_path)
    assert [len(masks(ADE, tmp_path, split)) for split in ("train", "test")] == [2, 2]
    assert masks(ADE, tmp_path, "test")[0].ravel()[:5].tolist() == [255, 0, 149, 12, 255]
    assert (
        ADE.unlabeled(tmp_path, "train").key(0)
        == "ADEChallengeData2016/images/training/ADE_train_00000001.jpg"
    )
    labels = ADE.labels
    assert labels is not None
    assert [labels.classes[i] for i in (0, 12, 149)] == ["wall", "person", "flag"]
    assert len(labels.classes) == 150
    assert findings(ADE, tmp_path, "warning") == findings(ADE, tmp_path, "error") == []


@pytest.mark.parametrize("values", [(0, 149, 255), (254, 255, 0)], ids=["reduced", "reduced twice"])
def test_reduced_annotations_of_ade20k_are_refused(tmp_path: Path, values: tuple[int, ...]) -> None:
    trees.ade20k(tmp_path, values)
    (found,) = findings(ADE, tmp_path, "error")
    assert "the zero label looks reduced before" in found.what
    assert "read as they were published" in found.fix


@pytest.mark.parametrize("lower", [0, 1])
def test_shares_of_classes_tell_that_ade20k_was_reduced_without_a_trace(lower: int) -> None:
    rng, others = np.random.default_rng(0), np.full(143, (1 - SHARES.sum()) / 143)
    shares = np.concatenate([SHARES, others])
    stored = []
    for index in range(200):
        counts = rng.multinomial(4000, rng.dirichlet(4 * shares))
        stored.append(StoredMask(Path(f"{index}.png"), counts[lower:], None, direct=False))
    assert ADE.doubts is not None
    found = ADE.doubts(stored)
    told = [
        what for what, _, _ in found if "'wall' is stored as 0: the zero label looks reduced before" in what
    ]
    assert len(told) == len(found) == lower
    assert all(len(files) == 200 for _, files, _ in found)
    assert ADE.doubts(stored[:100]) == [], "too few to conclude anything"


def test_your_own_folders_of_ade20k_with_published_ids_are_refused(tmp_path: Path) -> None:
    trees.ade20k(tmp_path)
    assert ADE.labels is not None
    place = tmp_path / "ADEChallengeData2016"
    own = CustomDataset(
        name="own",
        images=place / "images/training",
        masks=place / "annotations/training",
        classes=ADE.labels.classes,
    )
    with pytest.raises(DataError, match="value 150") as caught:
        masks(custom_domain(own), own.root, "train")
    assert "ADE20K as it was published" in caught.value.fix


def test_trainaug_has_vocs_own_masks_and_those_of_sbd(tmp_path: Path) -> None:
    trees.voc_masks(tmp_path)
    train = [path.stem for path in VOC.unlabeled(tmp_path, "train").paths]
    assert train == ["2008_000000", "2009_000000", "2008_000001", "2009_000001"]
    assert [path.stem for path in VOC.unlabeled(tmp_path, "test").paths] == ["2007_000000", "2007_000001"]
    for split in ("train", "test"):
        assert all(m.ravel()[:4].tolist() == [0, 7, 20, 255] for m in masks(VOC, tmp_path, split))
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt").unlink()
    assert {path.stem for path in VOC.unlabeled(tmp_path, "train").paths} == {"2009_000000", "2009_000001"}


def coloured(path: Path) -> None:
    with Image.open(path) as image:
        image.putpalette([c for colour in voc_palette() for c in colour])
        image.convert("RGB").save(path)


def grey(path: Path) -> None:
    with Image.open(path) as image:
        image.putpalette([c for colour in voc_palette() for c in colour])
        image.convert("L").save(path)


def twenty_first(path: Path) -> None:
    with Image.open(path) as image:
        values = np.array(image)
    Image.fromarray(np.where(values == 255, 21, values).astype(np.uint8)).save(path)


def voc_palette() -> list[tuple[int, int, int]]:
    assert VOC.labels is not None
    return [*VOC.labels.palette, *[(0, 0, 0)] * 234, (224, 224, 192)]


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        (coloured, "a mask is a RGB image", "palette PNGs whose indices are the class ids"),
        (grey, "colours of VOC's palette turned to grey", "palette PNGs whose indices are the class ids"),
        (twenty_first, "value 21", "--ignore-index 21"),
    ],
)
def test_what_libraries_do_to_vocs_palette_files_is_told(
    tmp_path: Path, change: Callable[[Path], None], what: str, fix: str
) -> None:
    trees.voc_masks(tmp_path)
    for path in (tmp_path / "VOCdevkit/VOC2012/SegmentationClass").iterdir():
        change(path)
    (found,) = findings(VOC, tmp_path, "error")
    assert what in found.what
    assert fix in found.fix


def test_a_boundary_that_became_a_class_is_warned_of_by_its_absence(tmp_path: Path) -> None:
    trees.voc_masks(tmp_path, (0, 7, 20), count=20)
    (found,) = findings(VOC, tmp_path, "warning")
    assert "none of 20 masks holds 255" in found.what
    trees.mask(tmp_path / "VOCdevkit/VOC2012/SegmentationClass/2008_000003.png", (0, 255))
    assert findings(VOC, tmp_path, "warning") == []
