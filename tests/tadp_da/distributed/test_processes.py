"""Two processes do what one does: the same curve, weights, captions and report; and they stop and fail together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DeepSpeedPlugin
from safetensors.torch import load_file

from tadp_da.cli.stages import refuse_alone
from tadp_da.distributed import deepspeed as _deepspeed
from tadp_da.distributed.processes import (
    all_gather_object,
    broadcast,
    count,
    is_main,
    launch,
    rank,
    relaunch,
    wait,
)
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.training.data import share
from tests.faults.victims import until
from tests.tadp_da.distributed import crew

ROOT = Path(__file__).parents[3]
#: Gradients are summed in another order: float32 rounding, carried through AdamW's division by their size.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def program(*words: object) -> list[str]:
    return [sys.executable, "-m", "tests.tadp_da.distributed.crew", *map(str, words)]


def curve(folder: Path) -> list[float]:
    return [json.loads(text)["loss"] for text in (folder / "metrics.jsonl").read_text().splitlines()]


def two(name: str, *words: object) -> int:
    """Run a program in two processes."""
    before = os.getcwd()
    os.chdir(ROOT)
    try:
        return launch(program(name, *words), 2)
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a line and captions by one process, and by two."""
    alone, shared = (tmp_path_factory.mktemp(name) for name in ("alone", "shared"))
    crew.pictures(shared / "images")
    crew.light(alone)
    assert two("light", shared) == 0
    return alone, shared


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory, tiny_pipeline: Path) -> tuple[Path, Path]:
    """Folders of concept, model and report by one process, and by two."""
    alone, shared = (tmp_path_factory.mktemp(name) for name in ("alone", "shared"))
    crew.pictures(shared / "images")
    crew.heavy(alone, str(tiny_pipeline))
    assert two("heavy", shared, tiny_pipeline) == 0
    return alone, shared


def assert_same_training(alone: Path, shared: Path) -> None:
    curves = curve(alone), curve(shared)
    assert len(set(curves[0])) == len(curves[0]) > 2, "a curve, not a constant"
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    weights = [sorted(place.rglob("*.safetensors")) for place in (alone, shared)]
    assert [p.name for p in weights[0]] == [p.name for p in weights[1]] != []
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(load_file(other), load_file(one), **CLOSE)


def test_curve_and_weights_are_those_of_one_process(light: tuple[Path, Path]) -> None:
    assert_same_training(*(place / "line" for place in light))


def test_a_teachers_state_is_that_of_one_process(light: tuple[Path, Path]) -> None:
    assert_same_training(*(place / "taught" for place in light))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["word", "adapted", "self-trained"])
def test_a_stage_learns_what_it_learns_in_one_process(heavy: tuple[Path, Path], stage: str) -> None:
    assert_same_training(*(place / stage for place in heavy))


def test_an_artefact_is_made_once_and_read_by_all(light: tuple[Path, Path]) -> None:
    _, shared = light
    first, second = ((shared / f"rank-{i}.json").read_text() for i in (0, 1))
    assert first == second
    assert not [p.name for p in shared.rglob(".*")], "no draft, lock or desk stays"
    assert not (shared / "line/unfinished").exists()


def test_captions_are_shared_and_none_is_lost(light: tuple[Path, Path]) -> None:
    alone, shared = ((place / "captions.json").read_bytes() for place in light)
    assert alone == shared
    assert len(json.loads(shared)) == crew.IMAGES


@pytest.mark.slow
def test_the_report_is_that_of_one_process_to_the_last_digit(
    heavy: tuple[Path, Path], tmp_path: Path
) -> None:
    _, shared = heavy
    (tmp_path / "adapted").symlink_to(shared / "adapted")  # the same weights
    crew.score(tmp_path, crew.pictures(tmp_path / "images"))
    one, other = (json.loads((place / "scored/report.json").read_text()) for place in (tmp_path, shared))
    assert one == other
    assert other["evaluations"]["target"]["images"] == crew.IMAGES
    names = [sorted(p.name for p in (place / "scored/target").iterdir()) for place in (tmp_path, shared)]
    assert names[0] == names[1] != []


@pytest.mark.slow
def test_sharded_parameters_learn_the_same_and_their_checkpoints_are_whole(tmp_path: Path) -> None:
    crew.line(tmp_path / "alone")
    crew.taught(tmp_path)
    assert two("sharded", tmp_path / "shared") == 0
    assert_same_training(tmp_path / "alone", tmp_path / "shared/line")
    assert_same_training(tmp_path / "taught", tmp_path / "shared/taught")
    cut, whole = (
        load_file(tmp_path / "shared" / name) for name in ("cut.safetensors", "line/line.safetensors")
    )
    torch.testing.assert_close(cut, whole, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed_learns_the_same_and_its_checkpoints_are_whole(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("deepspeed", reason="pip install deepspeed")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    crew.line(alone / "line")
    with monkeypatch.context() as asked:
        asked.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        asked.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", str(stage))
        assert two("cut", shared) == 0
    assert_same_training(alone / "line", shared / "line")
    cut, whole = (load_file(shared / name) for name in ("cut.safetensors", "line/line.safetensors"))
    torch.testing.assert_close(cut, whole, **CLOSE)
    # and one process without DeepSpeed goes on from its checkpoint
    torch.testing.assert_close(crew.train(shared / "cut", steps=8), crew.train(alone, steps=8), **CLOSE)


@pytest.mark.parametrize(
    ("settings", "precision", "words"),
    [
        ({"zero_stage": 3}, "no", "zero_stage: 3"),
        ({"zero_stage": 2, "offload_optimizer_device": "cpu"}, "no", "offloading"),
        ({"zero_stage": 2}, "fp16", "precision fp16"),
        ({"hf_ds_config": {"zero_optimization": {"stage": 2}, "optimizer": {"type": "Lamb"}}}, "no", "of its own"),
    ],
)  # fmt: skip
def test_what_deepspeed_cannot_do_here_is_refused(
    settings: dict[str, Any], precision: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        _deepspeed.configure(DeepSpeedPlugin(**settings), share=1, clip=1.0, precision=precision)


def test_deepspeed_gets_the_settings_of_the_training() -> None:
    plugin = DeepSpeedPlugin(zero_stage=1)
    _deepspeed.configure(plugin, share=3, clip=0.5, precision="bf16")
    told = plugin.deepspeed_config
    assert (told["train_micro_batch_size_per_gpu"], told["gradient_clipping"]) == (3, 0.5)
    assert told["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert not told.get("bf16", {}).get("enabled")


def test_deepspeed_needs_others_and_to_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UsageError, match="there is one"):
        crew.train(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(_deepspeed, "is_deepspeed_available", lambda: False)
    with pytest.raises(EnvironmentSetupError, match="not installed") as refused:
        _deepspeed.wanted()
    assert "pip install deepspeed" in refused.value.fix


@pytest.mark.slow
def test_a_signal_to_the_launcher_stops_all_at_one_step(tmp_path: Path) -> None:
    called = f"launch({program('interrupted', tmp_path)}, 2)"
    code = f"import sys; from tadp_da.distributed.processes import launch; sys.exit({called})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        steps = tmp_path / ".line.draft/metrics.jsonl"
        until(lambda: steps.exists() and len(steps.read_text().splitlines()) > 2)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 75, told
    assert "Traceback" not in told
    done = len(steps.read_text().splitlines())
    (saved,) = (tmp_path / ".line.draft/unfinished/line").glob("step-*")
    assert saved.name == f"step-{done:08d}"
    # one process goes on where two stopped: how many there are is no part of a training
    crew.line(tmp_path / "line", steps=done + 2, batch=2, accumulate=1, checkpoint_every=0)
    assert len(curve(tmp_path / "line")) == done + 2


def test_the_first_failure_ends_all_and_gives_the_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys, time; os.environ['RANK'] == '0' and time.sleep(60); sys.exit('why')"
    assert launch([sys.executable, "-c", code], 2) == 1
    assert capfd.readouterr().err == "why\n", "the other one's words are shown, for the main one had none"
    killed = "import os, time; os.environ['RANK'] == '1' and os.kill(os.getpid(), 9); time.sleep(60)"
    with pytest.raises(EnvironmentSetupError, match="process 1 of 2 was ended by signal 9") as failed:
        launch([sys.executable, "-c", killed], 2)
    assert "memory" in failed.value.fix


#: Arguments: a folder, a signal, and by rank how to answer it when it comes first: an exit code, or a word. The first
#: process signals the launcher when both are ready.
ANSWERING = """
import os, pathlib, signal, sys, time
rank = int(os.environ["RANK"])
place, sent, answer = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3 + rank]
def all_are(word):
    (place / f"{word}-{rank}").touch()
    while not ((place / f"{word}-0").exists() and (place / f"{word}-1").exists()):
        time.sleep(0.005)
def answered(number, frame):
    if answer == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if answer.isdigit():
        sys.exit(int(answer))
    signal.signal(number, signal.SIG_DFL)
    all_are("warned")
    if rank == 0:
        time.sleep(0.1)
        os.kill(os.getppid(), number)
if answer != "deaf":
    signal.signal(sent, answered)
all_are("ready")
if rank == 0:
    os.kill(os.getppid(), sent)
time.sleep(60)
"""


def answering(folder: Path, number: signal.Signals, *answers: object) -> list[str]:
    return [sys.executable, "-c", ANSWERING, str(folder), str(int(number)), *map(str, answers)]


@pytest.mark.parametrize(
    ("answers", "number", "code"),
    [
        ((75, 75), signal.SIGTERM, 75),
        ((0, 75), signal.SIGUSR1, 75),
        ((0, 0), signal.SIGTERM, 0),
        ((75, 3), signal.SIGTERM, 3),
        ((4, 75), signal.SIGHUP, 4),
        (("deaf", 75), signal.SIGTERM, 75),
        (("deaf", "deaf"), signal.SIGUSR1, 75),
        ((75, 1), signal.SIGTERM, 1),
        (("hurried", "hurried"), signal.SIGTERM, 128 + signal.SIGTERM),
    ],
)
def test_only_what_was_interrupted_is_told_as_such(
    tmp_path: Path, answers: tuple[object, object], number: signal.Signals, code: int
) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP
    assert launch(answering(tmp_path, number, *answers), 2) == code
    signal.signal(number, before)


def test_one_that_the_system_killed_after_a_signal_was_not_interrupted(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentSetupError, match="process 1 of 2 was ended by signal 9"):
        launch(answering(tmp_path, signal.SIGTERM, 75, "killed"), 2)


def test_a_signal_between_two_starts_reaches_both(monkeypatch: pytest.MonkeyPatch) -> None:
    class Signalled(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            if more["env"]["RANK"] == "1":
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Signalled)
    assert launch([sys.executable, "-c", "import sys, time; time.sleep(20); sys.exit(3)"], 2) == 75


@pytest.mark.parametrize("begun_with_m", [False, True])
def test_the_current_folder_is_searched_for_modules_only_where_it_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun_with_m: bool
) -> None:
    (tmp_path / "psutil.py").write_text("import os; os._exit(99)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as from a checkout that is not installed
    monkeypatch.setattr(sys, "path", [str(tmp_path if begun_with_m else tmp_path / "bin"), *sys.path])
    monkeypatch.setattr(sys, "argv", ["tadp-da", "predict", "--processes", "2"])
    with pytest.raises(SystemExit) as ended:
        relaunch(2)
    assert ended.value.code == (99 if begun_with_m else UsageError.exit_code), "what predict says to two"


def test_a_batch_that_cannot_be_shared_is_refused_with_the_same_step() -> None:
    with pytest.raises(UsageError, match="batch=1 cannot be shared evenly by 2") as refused:
        share(1, 4, 2)
    assert "batch=2 accumulate=2" in refused.value.fix
    assert share(6, 1, 3) == 2


def test_alone_nothing_is_asked_of_others() -> None:
    assert (count(), rank(), is_main()) == (1, 0, True)
    assert all_gather_object(lambda a: a + 1, 2) == [3]
    assert broadcast(lambda: "so") == "so"
    wait()


def test_other_commands_are_refused_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_alone(["predict"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    refuse_alone(["adapt", "images"])
    with pytest.raises(UsageError, match="predict cannot share") as refused:
        refuse_alone(["predict"])
    assert "personalize, caption, adapt, evaluate" in refused.value.fix


def test_fsdp_that_would_not_shard_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(EnvironmentSetupError, match="accelerate shards on GPUs only") as refused:
        crew.train(tmp_path)
    assert "--processes" in refused.value.fix
