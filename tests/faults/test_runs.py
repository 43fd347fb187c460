"""Runs that are stopped, killed, out of room, or two at a time: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapt.training_data import SourceDataset
from benchmarks.evaluate import evaluate
from tadp_da.captions.captioner import Captioner, CaptionerSettings, caption_images
from tadp_da.captions.files import CaptionFile
from tadp_da.errors import InterruptedRunError, UsageError
from tadp_da.images import OUTPUT
from tadp_da.run import Run
from tadp_da.storage.artifacts import MANIFEST, UNFINISHED, get_or_create, verify
from tadp_da.training.checkpoint import Checkpoints
from tadp_da.training.monitor import TrainingMonitor
from tadp_da.training.signals import Stop, attended, check, held
from tadp_da.types import Boxes, Detections, Labeled, LabelSpace, Unlabeled
from tests.benchmarks.scored import Predicts
from tests.faults.victims import Line, begin, read, share, stuck, train, until, weights
from tests.tadp_da.captions.conftest import write_blip2
from tests.toy import NAMES, draw_pair

BOXES = LabelSpace("detection", ("dark", "bright"))
COUNT = 4


def stop() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def pictures(tmp_path: Path) -> Unlabeled:
    (tmp_path / "pictures").mkdir()
    paths = tuple(tmp_path / f"pictures/{i}.png" for i in range(COUNT))
    for i, path in enumerate(paths):
        Image.new("RGB", (48, 32), (60 * i, 90, 120)).save(path)
    return Unlabeled("drawn", tmp_path / "pictures", paths)


# -- signals


def test_a_signal_waits_where_it_is_held_and_is_not_forgotten() -> None:
    done = []

    def step() -> None:
        stop()
        done.append("the step")
        check()

    with attended(), pytest.raises(InterruptedRunError, match="is saved") as caught, held():
        step()
    assert done == ["the step"]
    assert caught.value.exit_code == 75
    with attended(), pytest.raises(InterruptedRunError), held():
        stop()
    with attended(), pytest.raises(Stop):
        stop()


def test_during_a_save_the_save_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = Checkpoints._write, itertools.count(1)

    def interrupted(self: Any, *given: Any) -> None:
        if next(calls) == 2:
            stop()
        write(self, *given)

    monkeypatch.setattr(Checkpoints, "_write", interrupted)
    with attended(), pytest.raises(InterruptedRunError, match="step 3 of 7"):
        train(tmp_path)
    (kept,) = (tmp_path / "unfinished/line").iterdir()
    assert kept.name == "step-00000003"
    verify(kept)


def test_after_the_last_step_nothing_of_a_training_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, whole, again = TrainingMonitor.check, Line(), Line()

    def interrupted(
        self: TrainingMonitor, loss: float, norm: float, index: int, *given: Any, **more: Any
    ) -> None:
        if index == 6:
            stop()  # when it is settled already that the training goes on
        look(self, loss, norm, index, *given, **more)

    monkeypatch.setattr(TrainingMonitor, "check", interrupted)
    with attended(), pytest.raises(InterruptedRunError, match="is saved"):
        train(tmp_path, whole, checkpoint_every=0)
    monkeypatch.undo()
    assert train(tmp_path, again, checkpoint_every=0) == [], "nothing is left to do"
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(again).items())


def test_captioning_saves_the_batch_and_goes_on(
    tmp_path: Path, pictures: Unlabeled, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = write_blip2(tmp_path / "blip2"), CaptionerSettings(batch=1, max_new_tokens=4)
    captioner, run = Captioner.from_pretrained(folder, settings), Run(folder=tmp_path, quiet=True)
    caption_images(pictures, captioner, tmp_path / "whole.json", run)
    describe, calls = Captioner.__call__, itertools.count(1)

    def interrupted(self: Captioner, images: Any) -> list[str]:
        if next(calls) == 2:
            stop()
        return describe(self, images)

    monkeypatch.setattr(Captioner, "__call__", interrupted)
    out = tmp_path / "captions.json"
    with attended(), pytest.raises(InterruptedRunError):
        caption_images(pictures, captioner, out, run)
    assert len(CaptionFile.read(out).entries) == 2
    assert caption_images(pictures, captioner, out, run).made == 2
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()
    again = caption_images(pictures, captioner, out, run)
    assert again.lines()[0] == "4 images: already complete"


def interruptible(labels: LabelSpace, rule: Callable[[int], Any], *, stops: bool) -> Predicts:
    """A model that predicts by rule and is stopped at its third prediction."""

    def predict(call: int, image: Image.Image, prompt: str) -> Any:
        if stops and call == 2:
            stop()
        return rule(image.getpixel((0, 0))[0] // 60)

    return Predicts(predict, labels)


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_scoring_goes_on_and_ends_at_the_same_report(task: str, pictures: Unlabeled, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (COUNT, 32, 48), np.uint8)
    boxes = np.array([[2, 3, 20, 20], [5, 5, 30, 31]], np.float32)
    found = Detections(boxes + 1, np.array([0, 1]), np.array([0.9, 0.5], np.float32))
    truth = Boxes(boxes, np.array([0, 1]), np.zeros(2, bool))
    labels = LabelSpace("segmentation", ("dark", "bright")) if task == "segmentation" else BOXES
    data = Labeled(
        domain="drawn",
        labels=labels,
        images=pictures,
        label=lambda i: masks[i] if task == "segmentation" else truth,
        captions={pictures.key(i): "a car" for i in range(COUNT)},
    )

    def model(stops: bool = False) -> Predicts:
        return interruptible(labels, lambda i: masks[-i] if task == "segmentation" else found, stops=stops)

    run = Run(folder=tmp_path / "run", quiet=True, device="cpu")
    whole = evaluate(model(), data, str, run, images=tmp_path / "whole")
    places = {"images": tmp_path / "cut", "predictions": tmp_path / "predictions"}
    with attended(), pytest.raises(Stop):
        evaluate(model(stops=True), data, str, run, **places)
    (torn,) = (tmp_path / "predictions").glob("000001-*")
    torn.write_bytes(torn.read_bytes()[:40])  # as a power failure leaves it
    rest = model()
    assert evaluate(rest, data, str, run, **places) == whole
    assert len(rest.prompts) == COUNT - 1


def test_a_second_signal_ends_at_once_and_the_checkpoint_stands(tmp_path: Path) -> None:
    victim = begin(stuck, str(tmp_path))
    until((tmp_path / "stuck").exists)
    os.kill(victim.pid, signal.SIGTERM)
    time.sleep(0.2)
    os.kill(victim.pid, signal.SIGTERM)  # a launcher passes the same signal on: not a second one
    time.sleep(1.2)
    assert victim.is_alive(), "the first signal waits for the step"
    os.kill(victim.pid, signal.SIGTERM)
    victim.join(30)
    assert victim.exitcode == -signal.SIGTERM
    (kept,) = (tmp_path / "unfinished/line").iterdir()
    verify(kept)
    assert train(tmp_path)[0].index == 3


# -- the same folder again


def test_a_run_that_was_begun_otherwise_is_refused_with_what_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, settings = tmp_path / "out", {"steps": 5, "lr": 0.1}

    def half(folder: Path) -> None:
        (folder / UNFINISHED / "state").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        get_or_create(place, {"settings": settings}, half, read)
    other = {"settings": settings | {"lr": 0.2, "rank": 3}}
    told = r"settings.lr: 0.1 there, 0.2 now; settings.rank: None there, 3 now"
    with pytest.raises(UsageError, match=told) as caught:
        get_or_create(place, other, half, read)
    assert caught.value.exit_code == 2
    assert "choose another --out, or delete that folder" in caught.value.fix

    def rest(folder: Path) -> None:
        (folder / "text").write_text((folder / UNFINISHED / "state").read_text())

    safe = {"settings": settings | {"steps": 8}}
    with pytest.raises(UsageError, match=r"settings\.steps: 5 there, 8 now"):
        get_or_create(place, safe, rest, read)
    assert get_or_create(place, safe, rest, read, may_change=("settings.steps",)) == "half"
    assert "continuing with other settings.steps" in caplog.text
    with pytest.raises(UsageError, match="was created with different settings"):
        get_or_create(place, {"settings": settings}, rest, read, may_change=("settings.steps",))


def test_a_command_into_its_finished_folder(
    command: Callable[..., int],
    pictures: Unlabeled,
    tiny_pipeline: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "concept"
    words = ["personalize", pictures.root, "--out", out, "--word", "<dusk>", "--like", "night"]
    words += ["--model", tiny_pipeline, "--device", "cpu", "--set", "previews.images=0", "--set", "batch=2"]
    words += ["--set", "resolution=32", "--set", "accumulate=1", "--set", "steps=2"]
    assert command(*words) == 0
    assert not (out / UNFINISHED).exists()
    stood = (out / MANIFEST).stat().st_mtime_ns
    capsys.readouterr()
    assert command(*words, "--set", "checkpoint_every=7") == 0
    assert "already complete" in capsys.readouterr().out
    assert command(*words, "--set", "learning_rate=0.1") == 2
    told = capsys.readouterr()
    assert "settings.learning_rate: 0.0005 there, 0.1 now" in told.err
    assert "already complete" not in told.out
    assert (out / MANIFEST).stat().st_mtime_ns == stood


def test_the_whole_figure_is_stopped_in_training_and_run_again(
    command: Callable[..., int], tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys, out = draw_pair(tmp_path / "toys"), tmp_path / "out"
    words = [
        "run",
        "--source-images",
        toys / "day/images",
        "--source-masks",
        toys / "day/masks",
        "--classes",
        NAMES,
    ]
    words += [
        "--target-images",
        toys / "night/images",
        "--target-style",
        "dark night",
        "--strategies",
        "null",
    ]
    words += ["--preset", toys / "preset.yaml", "--out", out, "--model", tiny_pipeline, "--device", "cpu"]
    words += ["--captioner", write_blip2(tmp_path / "blip2")]
    fetch = SourceDataset.fetch
    monkeypatch.setattr(SourceDataset, "fetch", lambda *given: (stop(), fetch(*given))[1])
    assert command(*words) == 75
    (kept,) = out.glob(".model-*.draft/unfinished/fine-tuning-*/step-*")
    assert kept.name == "step-00000001", "after the step that was under way, of two"
    monkeypatch.undo()
    assert command(*words) == 0
    (model,) = out.glob("model-*")
    steps = [json.loads(line)["step"] for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    assert not list(out.rglob("unfinished"))
    assert {path.name for path in out.rglob(".*")} == {OUTPUT}, "folders of images are marked as output"


def test_two_runs_never_make_the_same_twice_nor_write_into_each_others_folder(tmp_path: Path) -> None:
    place, log = str(tmp_path / "out"), tmp_path / "log"
    first = begin(share, place, {"lr": 0.1}, str(log))
    until(lambda: log.exists() and log.read_text().strip())
    second = begin(share, place, {"lr": 0.1}, str(log))
    other = begin(share, place, {"lr": 0.2}, str(log))
    other.join(120)
    assert other.exitcode == UsageError.exit_code, "refused at once, without waiting"
    assert second.is_alive()
    (tmp_path / "log.go").touch()
    for process in (first, second):
        process.join(120)
        assert process.exitcode == 0
    assert len(log.read_text().splitlines()) == 1
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["inputs"] == {"lr": 0.1}
    assert not list(tmp_path.glob(".out.*"))


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    place, log = str(tmp_path / "out"), tmp_path / "log"
    first = begin(share, place, {}, str(log))
    until(lambda: log.exists() and log.read_text().strip())
    first.kill()
    first.join()
    (tmp_path / "log.go").touch()
    second = begin(share, place, {}, str(log))
    second.join(120)
    assert second.exitcode == 0
    assert len(log.read_text().splitlines()) == 2
