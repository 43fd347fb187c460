"""Laws of the artefact store: made once per inputs, whole or absent, never silently changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tadp_da.errors import ArtefactError, UsageError
from tadp_da.run import MANIFEST, Run


def read(folder: Path) -> str:
    return (folder / "text").read_text()


def test_made_once_per_inputs(tmp_path: Path) -> None:
    run, calls = Run(folder=tmp_path / "runs"), []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "text").write_text(f"made {len(calls)}")

    assert run.once("thing", {"a": 1}, make, read) == "made 1"
    assert run.once("thing", {"a": 1}, make, read) == "made 1"
    assert run.once("thing", {"a": 2}, make, read) == "made 2"
    assert len(calls) == 2
    manifest = json.loads((run.place("thing", {"a": 1}) / MANIFEST).read_text())
    assert manifest["inputs"] == {"a": 1}
    assert set(manifest["files"]) == {"text"}
    assert "torch" in manifest["versions"]


def test_a_failed_make_leaves_nothing(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)

    def fail(folder: Path) -> None:
        (folder / "text").write_text("half")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        run.once("thing", {}, fail, read)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_manifest_is_made_again(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    place = run.place("thing", {})
    place.mkdir()
    (place / "text").write_text("stale")
    assert run.once("thing", {}, lambda f: (f / "text").write_text("fresh"), read) == "fresh"


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    run.once("thing", {}, lambda f: (f / "text").write_text("true"), read)
    (run.place("thing", {}) / "text").write_text("forged")
    with pytest.raises(ArtefactError, match="delete the folder"):
        run.once("thing", {}, lambda f: None, read)


def test_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bf16"):
        Run(folder=tmp_path, precision="int3")  # type: ignore[arg-type]


def test_who_comes_second_takes_what_stands(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)

    place = run.place("thing", {})
    other = tmp_path / "elsewhere"
    Run(folder=other).once("thing", {}, lambda f: (f / "text").write_text("first"), read)

    def slow(folder: Path) -> None:
        (folder / "text").write_text("second")
        (other / place.name).rename(place)

    assert run.once("thing", {}, slow, read) == "first"
