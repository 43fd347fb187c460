"""Runs that are killed, and disks that are full or closed: what was complete stays so."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tadp_da import cli
from tadp_da.errors import EnvironmentSetupError
from tadp_da.run import Run
from tadp_da.storage.artifacts import MANIFEST, verify
from tadp_da.storage.cache import Cache, folder_problem
from tests.faults.victims import Line, begin, learn, limited, read, train, until


def complete(folder: Path) -> list[int]:
    """Steps of the complete checkpoints below a folder, each looked at whole."""
    found = sorted(folder.glob(f".line-*.draft/unfinished/line/step-*/{MANIFEST}"))
    for manifest in found:
        verify(manifest.parent)
        for file in manifest.parent.glob("*.safetensors"):
            load_file(file)
    return [int(manifest.parent.name[5:]) for manifest in found]


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_at_most_a_step(tmp_path: Path, kills: int) -> None:
    steps = 3 * kills
    learn(str(tmp_path / "whole"), steps, 0.0)
    begun = time.monotonic()
    random.seed(kills)
    folder, newest, killed = tmp_path / "cut", 0, 0
    while killed < kills:
        victim = begin(learn, str(folder), steps, 0.0)
        until(lambda now=newest, v=victim: not v.is_alive() or max(complete_names(folder), default=0) > now)
        time.sleep(random.uniform(0, 0.05))
        victim.kill()
        victim.join()
        killed += 1
        kept = complete(folder)
        if list(folder.glob(f"line-*/{MANIFEST}")):
            break  # it was quicker than the kill
        assert kept, "a checkpoint was there, and is lost"
        assert kept[-1] >= newest
        newest = kept[-1]
    victim = begin(learn, str(folder), steps, 0.0)
    victim.join(120)
    assert victim.exitcode == 0
    (whole,), (cut,) = ((tmp_path / name).glob("line-*") for name in ("whole", "cut"))
    assert {p.name for p in cut.iterdir()} == {"line.safetensors", "metrics.jsonl", MANIFEST}
    for name in ("line.safetensors", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    assert [p.name for p in folder.iterdir()] == [cut.name], "what was partial is removed"
    print(f"{killed} kills, {time.monotonic() - begun:.0f} s")


def complete_names(folder: Path) -> list[int]:
    return [int(p.parent.name[5:]) for p in folder.glob(f".line-*.draft/unfinished/line/step-*/{MANIFEST}")]


def nothing_partial(folder: Path) -> None:
    names = [path.name for path in folder.rglob("*")]
    assert not [name for name in names if name.startswith((".step-", ".metrics"))]


def test_no_room_for_a_larger_file_ends_with_advice_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    begin(learn, str(tmp_path), 2, 0.0).join(120)  # this width fits
    (done,) = tmp_path.glob("line-*")
    victim = begin(limited, str(tmp_path / "small"), 2000)
    victim.join(120)
    assert victim.exitcode == EnvironmentSetupError.exit_code
    nothing_partial(tmp_path / "small")
    verify(done)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on(small_disk: Path) -> None:
    filler = small_disk / "filler"

    def fill(step: int) -> None:
        if step == 3:
            filler.write_bytes(
                b"0" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize - 4096)
            )

    calls = itertools.count()
    folder = small_disk / "run"
    with pytest.raises(EnvironmentSetupError, match="no space to write") as caught:
        train(folder, Line(lambda: fill(next(calls) / 2)))
    assert str(folder) in str(caught.value.where)
    assert "free some space" in caught.value.fix
    (kept,) = (folder / "unfinished/line").iterdir()
    verify(kept)
    assert kept.name == "step-00000003"
    nothing_partial(folder)
    filler.unlink()
    whole = small_disk.parent / "whole"
    train(whole)
    assert [step.index for step in train(folder)] == [4, 5, 6, 7]
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_an_artefact_that_finds_no_room_leaves_the_old_ones(small_disk: Path) -> None:
    run = Run(folder=small_disk)
    run.get_or_create("thing", {"a": 1}, lambda f: (f / "text").write_text("old"), read)
    with pytest.raises(EnvironmentSetupError, match="no space to write"):
        run.get_or_create("thing", {"a": 2}, lambda f: (f / "text").write_text("x" * 2**20), read)
    assert run.get_or_create("thing", {"a": 1}, lambda f: pytest.fail("made again"), read) == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentSetupError, match="no permission to write") as caught:
        Run(folder=tmp_path / "x").get_or_create("thing", {}, lambda f: None, read)
    tmp_path.chmod(0o700)
    assert "choose a writable folder" in caught.value.fix


def test_a_read_only_disk_is_told(small_disk: Path) -> None:
    run = Run(folder=small_disk)
    run.get_or_create("thing", {}, lambda f: (f / "text").write_text("old"), read)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(EnvironmentSetupError, match="no permission to write") as caught:
        run.get_or_create("other", {}, lambda f: None, read)
    assert "choose a writable folder" in caught.value.fix
    assert str(small_disk) in str(caught.value.where)
    assert run.get_or_create("thing", {}, lambda f: None, read) == "old"


def cached(folder: Path, image: str) -> int:
    """Ask a cache that is opened anew; how often the entry was made."""
    assert not folder_problem(folder)
    cache = Cache(folder, 10**9)
    made = cache.get_or_create("latents", {"image": image}, lambda: {"mean": torch.ones(20_000)})
    assert bool((made["mean"] == 1).all())
    assert not cache.counts.damaged
    return cache.counts.made


def test_what_is_cached_is_found_on_a_full_disk_and_can_be_pruned(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = small_disk / "cache"
    assert [cached(folder, "old"), cached(folder, "old")] == [1, 0]
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"0" * 4096)
    assert [cached(folder, "old"), cached(folder, "new"), cached(folder, "new")] == [0, 1, 1]
    (said,) = {record.getMessage() for record in caplog.records}
    assert "tadp-da cache prune" in said
    assert not [*folder.glob("*/*/*.draft"), *folder.glob("*/*/*.lock")]
    monkeypatch.setenv("TADP_DA_CACHE", str(folder))
    monkeypatch.setattr(sys, "argv", ["tadp-da", "cache", "prune", "--to", "1KB"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    assert not list(Cache(folder, 10**9).entries())


def test_what_is_cached_is_found_on_a_disk_that_became_read_only(small_disk: Path) -> None:
    folder = small_disk / "cache"
    cached(folder, "old")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert [cached(folder, "old"), cached(folder, "new")] == [0, 1]
