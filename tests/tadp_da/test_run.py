"""Laws of the artifact store: made once per inputs, whole or absent, never silently changed."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tadp_da.api import open_run
from tadp_da.errors import ArtifactError, EnvironmentSetupError, TadpError, UsageError
from tadp_da.run import Run
from tadp_da.storage import artifacts
from tadp_da.storage.artifacts import MANIFEST, UNFINISHED, get_or_create
from tadp_da.storage.files import write_json


def read(folder: Path) -> str:
    return (folder / "text").read_text()


def test_made_once_per_inputs(tmp_path: Path) -> None:
    run, calls = Run(folder=tmp_path / "runs"), []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "text").write_text(f"made {len(calls)}")

    assert run.get_or_create("thing", {"a": 1}, make, read) == "made 1"
    assert run.get_or_create("thing", {"a": 1}, make, read) == "made 1"
    assert run.get_or_create("thing", {"a": 2}, make, read) == "made 2"
    assert len(calls) == 2
    manifest = json.loads((run.artifact_path("thing", {"a": 1}) / MANIFEST).read_text())
    assert manifest["inputs"] == {"a": 1}
    assert set(manifest["files"]) == {"text"}
    assert "torch" in manifest["versions"]
    assert 0 <= manifest["seconds"] < 60


def test_a_draft_outlives_an_error_and_is_gone_on_from(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)

    def half(folder: Path) -> None:
        (folder / "text").write_text("half")
        (folder / UNFINISHED / "state").write_text("7")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        run.get_or_create("thing", {}, half, read)
    assert not run.artifact_path("thing", {}).exists()

    def rest(folder: Path) -> None:
        assert run.inside(folder).unfinished == folder / UNFINISHED
        assert (folder / UNFINISHED / "state").read_text() == "7"
        (folder / "text").write_text(read(folder) + " and half")

    assert run.get_or_create("thing", {}, rest, read) == "half and half"
    assert list(tmp_path.iterdir()) == [run.artifact_path("thing", {})]
    assert {p.name for p in run.artifact_path("thing", {}).iterdir()} == {"text", MANIFEST}


def test_an_error_before_anything_was_made_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise RuntimeError("no such model")

    with pytest.raises(RuntimeError):
        Run(folder=tmp_path).get_or_create("thing", {}, fail, read)
    assert list(tmp_path.iterdir()) == []


def test_an_explicit_place_that_is_taken_is_never_cleared(tmp_path: Path) -> None:
    place = tmp_path / "home"
    place.mkdir()
    (place / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="choose a new folder"):
        get_or_create(place, {}, lambda f: None, read)
    assert (place / "thesis.tex").read_text() == "years of work"
    (place / "thesis.tex").unlink()
    assert (
        get_or_create(place, {}, lambda f: (f / "text").write_text("in an empty one"), read)
        == "in an empty one"
    )


def test_leftovers_of_dead_processes_go(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    place = run.artifact_path("thing", {})
    dead = subprocess.Popen(["true"])
    dead.wait()
    old, living = (tmp_path / f".{place.name}.{pid}" for pid in (dead.pid, 1))
    for folder in (old, living):
        (folder / "deep").mkdir(parents=True)
    run.get_or_create("thing", {}, lambda f: (f / "text").write_text("new"), read)
    assert not old.exists()
    assert living.exists()


def test_what_a_killed_namesake_was_writing_is_no_part_of_the_artefact(tmp_path: Path) -> None:
    # in a container every start has the same numbers of processes
    def make(folder: Path) -> None:
        (folder / "text").write_text("whole")
        (folder / f".text.{os.getpid()}").write_text("ha")

    run = Run(folder=tmp_path)
    run.get_or_create("thing", {}, make, read)
    assert {p.name for p in run.artifact_path("thing", {}).iterdir()} == {"text", MANIFEST}


def test_the_workspace_of_a_killed_namesake_is_cleared_and_the_scratch_folder_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, unfinished = tmp_path / "out", tmp_path / ".out.draft" / UNFINISHED
    unfinished.mkdir(parents=True)
    (unfinished / "state").write_text("7")
    monkeypatch.setattr(artifacts, "is_main", lambda: False)
    with artifacts._workspace(place) as workspace:
        left = workspace
    left.mkdir()
    (left / "old").touch()
    (left / UNFINISHED).symlink_to(unfinished, target_is_directory=True)
    with artifacts._workspace(place) as workspace:
        assert [p.name for p in workspace.iterdir()] == [UNFINISHED]
        assert (workspace / UNFINISHED / "state").read_text() == "7"
    assert [p.name for p in tmp_path.iterdir()] == [".out.draft"]
    assert (unfinished / "state").exists()


@pytest.mark.parametrize("moment", range(6))
@pytest.mark.parametrize("asked", [1, 2])
def test_another_process_may_complete_it_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, asked: int
) -> None:
    place, draft, looks = tmp_path / "out", tmp_path / ".out.draft", itertools.count()
    get_or_create(place, {"a": 1}, lambda f: (f / "text").write_text("true"), read)
    place.rename(draft)
    (draft / UNFINISHED).mkdir()
    write_json(draft / UNFINISHED / "inputs.json", {"a": 1})

    def after(look: Callable[..., Any], moment: int) -> Callable[..., Any]:
        def hooked(*given: Any, **more: Any) -> Any:
            if next(looks) >= moment and draft.is_dir():
                draft.rename(place)
            return look(*given, **more)

        return hooked

    for name in ("exists", "read_text", "iterdir"):
        monkeypatch.setattr(Path, name, after(getattr(Path, name), moment))
    # at the latest while one waits for its lock
    monkeypatch.setattr(artifacts, "locked", after(lambda *_: nullcontext(), 0))
    if asked == 1:
        assert get_or_create(place, {"a": 1}, lambda _: pytest.fail("made again"), read) == "true"
    else:
        with pytest.raises(UsageError, match="with different settings"):
            get_or_create(place, {"a": 2}, lambda _: pytest.fail("made again"), read)


def test_a_folder_without_manifest_is_made_again(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    place = run.artifact_path("thing", {})
    place.mkdir()
    (place / "text").write_text("stale")
    assert run.get_or_create("thing", {}, lambda f: (f / "text").write_text("fresh"), read) == "fresh"


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    run.get_or_create("thing", {}, lambda f: (f / "text").write_text("true"), read)
    (run.artifact_path("thing", {}) / "text").write_text("forged")
    with pytest.raises(ArtifactError, match="delete the folder"):
        run.get_or_create("thing", {}, lambda f: None, read)


def test_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bf16"):
        Run(folder=tmp_path, precision="int3")  # type: ignore[arg-type]


def test_what_was_complete_but_not_yet_in_place_is_not_made_again(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    place = run.artifact_path("thing", {})
    run.get_or_create("thing", {}, lambda f: (f / "text").write_text("true"), read)
    place.rename(tmp_path / f".{place.name}.draft")
    assert run.get_or_create("thing", {}, lambda f: pytest.fail("made again"), read) == "true"


def test_automatic_precision_is_that_of_the_device_and_is_recorded_as_such(tmp_path: Path) -> None:
    assert Run(folder=tmp_path, device="cpu", precision="auto").precision == "no"  # type: ignore[arg-type]
    assert open_run(tmp_path, {"device": "cpu"}).precision == "no"
    assert open_run(tmp_path, {"device": "cpu", "precision": "bf16"}).precision == "bf16"


@pytest.mark.parametrize(("name", "kind"), [("gpu", UsageError), ("cuda:63", EnvironmentSetupError)])
def test_a_device_that_is_none_or_not_here_is_told_at_once(
    tmp_path: Path, name: str, kind: type[TadpError]
) -> None:
    with pytest.raises(kind, match=name) as caught:
        _ = Run(folder=tmp_path, device=name).torch_device
    assert "auto" in caught.value.fix


def test_a_damaged_artifact_is_not_copied_to_where_it_would_pass_for_whole(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)

    def make(folder: Path) -> None:
        (folder / "text").write_text("whole")

    run.get_or_create("thing", {}, make, read, folder=tmp_path / "first")
    (tmp_path / "first/text").write_text("changed")
    with pytest.raises(ArtifactError, match="text is not what the manifest says") as caught:
        run.get_or_create("thing", {}, make, read, folder=tmp_path / "second")
    assert str(caught.value.where) == str(tmp_path / "first")
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("content", [{"name": "app"}, [1]])
def test_a_manifest_of_something_else_is_left_alone(tmp_path: Path, content: object) -> None:
    (tmp_path / "web").mkdir()
    write_json(tmp_path / "web" / MANIFEST, content)
    run = Run(folder=tmp_path)

    def make(folder: Path) -> None:
        (folder / "text").write_text("made")

    assert run.get_or_create("thing", {}, make, read) == "made"
    with pytest.raises(UsageError, match="not that of a finished run"):
        run.get_or_create("thing", {}, make, read, folder=tmp_path / "web")
    assert json.loads((tmp_path / "web" / MANIFEST).read_text()) == content


def test_a_link_to_a_folder_elsewhere_is_filled_there(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "disk", target_is_directory=True)

    def make(folder: Path) -> None:
        (folder / "text").write_text("made")

    run = Run(folder=tmp_path)
    assert run.get_or_create("thing", {}, make, read, folder=tmp_path / "here") == "made"
    assert (tmp_path / "here").is_symlink()
    assert read(tmp_path / "disk") == "made"
