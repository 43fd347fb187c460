"""Results that cannot be trusted are refused, and those that are shown say neither too much nor too little."""

from __future__ import annotations

import dataclasses
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.publishing import publish
from benchmarks.recipe import read_benchmark
from benchmarks.reports.statistics import compare
from benchmarks.reports.tables import markdown
from benchmarks.results import Evaluation, Report, SavedImage
from benchmarks.submit.mask_zips import MASK_ZIPS
from tadp_da.domains import domains
from tadp_da.domains.formats.folder import folder_domain
from tadp_da.domains.shared.driving import LABELS
from tadp_da.errors import DataError, UsageError
from tadp_da.run import Run
from tadp_da.tasks import Measure, tasks
from tadp_da.tasks.metrics.average_precision import AveragePrecision
from tadp_da.tasks.metrics.confusion import MeanIoU
from tadp_da.types import Boxes, Detections, LabelSpace, Unlabeled
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
    "a void": (lambda f: first(f, png(np.full((30, 40), 255))), "255.* not (label|train) ids"),
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
def test_our_submission_passes_its_check(
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
def test_a_corrupted_submission_is_refused_with_its_own_message(
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
def test_the_other_numbering_is_recognized(
    servers: dict[str, tuple[Unlabeled, Path]], form: str, other: str, tmp_path: Path
) -> None:
    images, place = servers[form]
    ids = np.array(MASK_ZIPS["dark-zurich" if form == "cityscapes" else "cityscapes"].ids, np.uint8)
    files = first(files_of(place), png(np.resize(ids, (30, 40))))
    with pytest.raises(DataError, match=f"look like {other}"):
        MASK_ZIPS[form].check(zipped(files, tmp_path / "x.zip"), images)


def test_a_damaged_zip_is_refused(servers: dict[str, tuple[Unlabeled, Path]], tmp_path: Path) -> None:
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


SPACE = LabelSpace("segmentation", ("road", "car", "tree", "sky"))
THINGS = LabelSpace("detection", ("car", "person", "dog"))
KITS = ("VOC07", "VOC10", "COCO")


def test_masks_are_scored_on_shared_classes_and_the_others_named(tmp_path: Path) -> None:
    image, mask = trees.picture(tmp_path / "i/a.png"), np.full((30, 40), 3, np.uint8)
    mask[:10], mask[10:20] = 0, 1  # fence, Car, sky
    trees.mask(tmp_path / "m/a.png", mask)
    theirs = folder_domain(
        "t",
        images={"test": image.parent},
        masks={"test": tmp_path / "m"},
        classes=("fence", "Car", "pole", "sky"),
    )
    assert theirs.labels is not None
    shared = tasks["segmentation"].shared(theirs.labels, SPACE)
    assert shared.left_out == (
        "scored on 2 classes that labels and model share; only the labels have fence, pole; only the model has "
        "road, tree"
    )
    assert shared.labels.classes == ("car", "sky")
    truth = shared.convert(theirs.labeled(image.parent, "test", {"a.png": ""})[0].target)
    assert [int((truth == i).sum()) for i in (0, 1, 255)] == [400, 400, 400]
    score = MeanIoU(shared.labels, SPACE)
    score.update(np.where(mask == 1, 1, 3), truth)
    main = score.compute()[0]
    assert (main.value, main.per_class) == (100.0, {"car": 100.0, "sky": 100.0})
    with pytest.raises(UsageError, match=r"share no class(.|\n)*in common"):
        tasks["segmentation"].shared(theirs.labels, LabelSpace("segmentation", ("moon", "sun")))


def test_equal_lists_are_left_alone() -> None:
    night = domains["mini-night"].labels
    assert night is not None
    shared = tasks["segmentation"].shared(night, night)
    assert (shared.labels, shared.left_out) == (night, "")
    turned = tasks["segmentation"].shared(night, dataclasses.replace(night, classes=night.classes[::-1]))
    assert (turned.labels, turned.left_out) == (night, "")


def test_a_class_that_is_nowhere_is_a_dash_and_not_in_the_mean() -> None:
    score = MeanIoU(SPACE)
    score.update(np.array([[0, 0], [1, 1]]), np.array([[0, 0], [1, 0]]))
    main = score.compute()[0]
    assert (main.per_class["tree"], main.per_class["sky"]) == (None, None)
    assert main.value == pytest.approx((200 / 3 + 50) / 2)
    evaluation = Evaluation(domain="d", labels=SPACE, images=1, main=main)
    text = markdown(compare({"null": {0: Report(evaluations={"target": evaluation})}}))
    assert "| null | 66.7 | 50.0 | - | - |" in text
    boxes = AveragePrecision(THINGS)
    boxes.update(*two_cars())
    main = boxes.compute()[0]
    assert (main.per_class, main.value) == ({"car": 100.0, "person": None, "dog": None}, 100.0)


def two_cars() -> tuple[Detections, Boxes]:
    truth = Boxes(
        np.array([[0, 0, 9, 9], [20, 0, 29, 9]], np.float32), np.zeros(2, np.int64), np.zeros(2, bool)
    )
    return Detections(truth.xyxy, truth.labels, np.array([0.9, 0.8], np.float32)), truth


def test_perfect_masks_score_a_hundred_wrong_ones_nothing_shuffled_ones_chance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (200, 200))
    for decision, expected, close in (
        (truth, 100, 1e-9),
        ((truth + 1) % 4, 0, 1e-9),
        (rng.permutation(truth.ravel()).reshape(truth.shape), 100 / 7, 1),  # a quarter right: 1 / (4 + 4 - 1)
    ):
        score = MeanIoU(SPACE)
        score.update(decision, truth)
        assert score.compute()[0].value == pytest.approx(expected, abs=close)


def scattered(count: int, seed: int) -> list[Boxes]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        corner = rng.uniform(0, 400, (6, 2))
        box = np.concatenate([corner, corner + rng.uniform(20, 60, (6, 2))], axis=1).astype(np.float32)
        made.append(Boxes(box, rng.integers(0, 3, 6), np.zeros(6, bool)))
    return made


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("perfect", 100, 100), ("empty", 0, 0), ("shuffled", 0, 3)]
)
def test_perfect_empty_and_shuffled_boxes_by_all_three_kits(kind: str, low: float, high: float) -> None:
    truths, strange = scattered(20, 0), scattered(20, 1)
    score = AveragePrecision(THINGS)
    for truth, other in zip(truths, strange, strict=True):
        seen = {
            "perfect": truth,
            "shuffled": other,
            "empty": Boxes(truth.xyxy[:0], truth.labels[:0], truth.difficult[:0]),
        }
        boxes = seen[kind]
        score.update(Detections(boxes.xyxy, boxes.labels, np.full(len(boxes), 0.5, np.float32)), truth)
    measures = score.compute()
    assert len(measures) == 2 * len(KITS)
    for measure in measures:
        assert measure.value is not None
        assert low - 1e-6 <= measure.value <= high + 1e-6, measure.name


def ap50(found: Detections, truth: Boxes) -> dict[str, float | None]:
    score = AveragePrecision(THINGS)
    score.update(found, truth)
    values = {m.name: m.value for m in score.compute()}
    return {kit: values[f"AP50 ({kit})"] for kit in KITS}


def test_a_second_find_is_false_and_difficult_objects_count_nowhere() -> None:
    found, truth = two_cars()
    twice = Detections(found.xyxy[[0, 0, 1]], found.labels[[0, 0, 1]], np.array([0.9, 0.8, 0.7], np.float32))
    # recall 0.5 at precision 1, recall 1 at precision 2/3
    assert ap50(twice, truth)["VOC07"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)
    assert ap50(twice, truth)["VOC10"] == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 3))
    hard = Boxes(truth.xyxy, truth.labels, np.array([True, False]))
    for seen in (found, Detections(found.xyxy[1:], found.labels[1:], found.scores[1:])):
        assert ap50(seen, hard) == pytest.approx(dict.fromkeys(KITS, 100)), (
            "found or missed, it changes nothing"
        )


def test_ties_keep_the_order_of_the_file() -> None:
    _, truth = two_cars()
    strange = np.array([[50, 50, 60, 60]], np.float32)
    right_first = Detections(
        np.concatenate([truth.xyxy, strange]), np.zeros(3, np.int64), np.full(3, 0.5, np.float32)
    )
    wrong_first = Detections(
        np.concatenate([strange, truth.xyxy]), np.zeros(3, np.int64), np.full(3, 0.5, np.float32)
    )
    assert ap50(right_first, truth)["VOC10"] == pytest.approx(100)
    assert ap50(wrong_first, truth)["VOC10"] == pytest.approx(100 * 2 / 3)


def test_secrets_of_the_environment_are_in_no_file_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_" + "s3cr3t" * 5
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, secret)
    made = Run(folder=tmp_path / "run", quiet=True, device="cpu")
    recipe = read_benchmark("mini-night").rows["null"]
    main = Measure(name="mIoU", value=1.0, per_class={"road": 1.0})
    evaluation = Evaluation(domain="d", labels=SPACE, images=1, main=main, per_image={"a": 1.0})
    report = Report(evaluations={"target": evaluation})
    made.get_or_create("report", recipe.as_json(), report.save, Report.load)
    reports = {"null": {0: report}}
    publish("t", reports, made.folder / "tables")
    files = [path for path in made.folder.rglob("*") if path.is_file()]
    assert {"manifest.json", "report.json", "table.md"} <= {path.name for path in files}
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    with pytest.raises(UsageError) as refused:
        read_benchmark("mini-night", (f"token={secret}",))
    assert secret not in str(refused.value), "there is no setting for one, and it is not repeated"


def test_hostile_names_and_captions_are_shown_as_text(tmp_path: Path) -> None:
    hostile = "<img src=http://x onerror=alert(1)> [a](http://x) ![b](http://y) `c` | $d$ =1+1"
    labels = LabelSpace("segmentation", (hostile, "car"))
    saved = SavedImage(stem="00", key=f"{hostile}.png", prompt=hostile, score=1.0, classes=(hostile,))
    evaluation = Evaluation(
        domain=hostile,
        labels=labels,
        images=1,
        main=Measure(name="mIoU", value=1.0, per_class={hostile: 1.0, "car": None}),
        per_image={f"{hostile}.png": 1.0},
        notes=(hostile,),
        saved=(saved,),
    )
    (tmp_path / "r/target").mkdir(parents=True)
    for what in ("image", "truth", "prediction"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"r/target/00-{what}.png")
    Report(evaluations={"target": evaluation}).save(tmp_path / "r")
    reports = {hostile: {0: Report.load(tmp_path / "r")}, "null": {0: Report.load(tmp_path / "r")}}
    _, written, _ = publish(hostile, reports, tmp_path / "table")
    text = written.markdown.read_text()
    for trap in ("<img", "](http", "`c`", "| $"):
        assert not re.search(rf"(?<!\\){re.escape(trap)}", text), trap
    assert written.panels is not None
    assert written.csv.read_text().count("\n=") == 0
