"""A cache that is asked for something else, damaged, shared with a process that dies, or not to be trusted."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from personalize.latents import Latents, encode
from personalize.methods.dreambooth import DreamBooth
from tadp_da.fingerprints import embeddings, image_key
from tadp_da.run import Run
from tadp_da.storage.cache import Cache, _opened, location, open_cache
from tadp_da.storage.cache_file import read
from tadp_da.types import Unlabeled
from tests.faults.sharing import KEYS, hang, take_all

NOBODY = 65534


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """The process's own, empty."""
    monkeypatch.setenv("TADP_DA_CACHE", str(tmp_path / "cache"))
    return open_cache()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "run", device="cpu", quiet=True)


@pytest.fixture
def images(tmp_path: Path) -> Unlabeled:
    """Three pictures in a format whose size in bytes does not depend on what they show."""
    paths = tuple(paint(tmp_path / f"{i}.bmp", i) for i in range(3))
    return Unlabeled("noise", tmp_path, paths)


def paint(path: Path, seed: int) -> Path:
    values = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


@contextmanager
def uncached() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TADP_DA_CACHE", "off")
        yield


def seen(cache: Cache, act: Callable[[], Any]) -> tuple[Any, tuple[int, int]]:
    """What ``act`` gives, and how many entries it found and made."""
    found, made = cache.counts.found, cache.counts.made
    return act(), (cache.counts.found - found, cache.counts.made - made)


def test_an_edited_picture_is_encoded_again(cache: Cache, backbone: Any, images: Unlabeled, run: Run) -> None:
    before = encode(backbone, images, DreamBooth(), run)
    again, counts = seen(cache, lambda: encode(backbone, images, DreamBooth(), run))
    assert counts == (3, 0)
    assert torch.equal(before.mean, again.mean)

    path = images.paths[1]
    old = path.stat()
    paint(path, seed=99)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    new = path.stat()
    assert (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns)
    after, counts = seen(cache, lambda: encode(backbone, images, DreamBooth(), run))
    assert counts == (2, 1)
    assert [torch.equal(a, b) for a, b in zip(before.mean, after.mean, strict=True)] == [True, False, True]
    with uncached():
        assert torch.equal(after.mean, encode(backbone, images, DreamBooth(), run).mean)


CHANGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "a weight": lambda b: b.vae.encoder.conv_in.bias.data[0].add_(0.1) is None or {},
    "the resolution": lambda b: {"resolution": 32},
    "the framing": lambda b: {"crop": "random"},
    "the posterior": lambda b: {"posterior": "sample"},
    "the scaling": lambda b: b.vae.register_to_config(scaling_factor=0.5) or {},
    "the groups of a norm": lambda b: b.vae.register_to_config(norm_num_groups=4) or {},
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_autoencoder_or_framing_is_a_miss(
    cache: Cache, backbone: Any, images: Unlabeled, run: Run, what: str
) -> None:
    encode(backbone, images, DreamBooth(), run)
    chosen = DreamBooth(**CHANGES[what](backbone))
    changed, counts = seen(cache, lambda: encode(backbone, images, chosen, run))
    assert counts == (0, 3)
    with uncached():
        assert torch.equal(changed.mean, encode(backbone, images, chosen, run).mean)


def test_another_precision_is_a_miss(backbone: Any) -> None:
    full = image_key(backbone)
    backbone.vae.to(torch.bfloat16)
    half = image_key(backbone)
    assert (full["dtype"], half["dtype"]) == ("float32", "bfloat16")
    assert full["vae"] != half["vae"]


def test_another_learned_row_is_a_miss(cache: Cache, backbone: Any, run: Run) -> None:
    prompts = ["a photo of a street", "a <dusk> photo of a street"]

    def ask() -> torch.Tensor:
        return embeddings(backbone, prompts, run)

    assert seen(cache, ask)[1] == (0, 2)
    assert seen(cache, ask)[1] == (2, 0)
    (token,) = backbone.add_tokens("<dusk>", like="night")
    learned, counts = seen(cache, ask)
    assert counts == (0, 2)
    row = backbone.tokenizer.convert_tokens_to_ids(token)
    with torch.no_grad():
        backbone.text_encoder.get_input_embeddings().weight[row] += 1
    moved, counts = seen(cache, ask)
    assert counts == (0, 2)
    assert torch.equal(learned[0], moved[0])
    assert not torch.equal(learned[1], moved[1])


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10**9)
    cache.put("latents", {"image": "0", "size": [8, 8]}, {"mean": torch.arange(6.0).reshape(2, 3)})
    (entry,) = cache.entries()
    whole = entry.path.read_bytes()
    for place in range(len(whole)):
        raw = bytearray(whole)
        raw[place] ^= 1 << (place % 8)
        entry.path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"cannot be read|its hash differs"):
            read(entry.path)
    for length in (0, 7, 8, len(whole) // 2, len(whole) - 1):
        entry.path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read"):
            read(entry.path)


def test_a_damaged_entry_is_counted_told_and_made_again(
    cache: Cache, backbone: Any, images: Unlabeled, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    before = encode(backbone, images, DreamBooth(), run)
    for entry in list(cache.entries())[:2]:
        raw = bytearray(entry.path.read_bytes())
        raw[-5] ^= 16
        entry.path.write_bytes(raw)
    after, counts = seen(cache, lambda: encode(backbone, images, DreamBooth(), run))
    assert counts == (1, 2)
    assert cache.counts.damaged == 2
    assert torch.equal(before.mean, after.mean)
    (said,) = [r.getMessage() for r in caplog.records if r.name == "tadp_da.storage.cache"]
    assert "tadp-da cache verify" in said
    assert all(len(read(entry.path)) == 1 for entry in cache.entries())


def test_processes_share_a_cache_and_one_dies_while_it_writes(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache", tmp_path / "made.txt"
    spawn = multiprocessing.get_context("spawn")
    meet = spawn.Barrier(2, timeout=200)
    doomed, other = (spawn.Process(target=take_all, args=(folder, log, meet, dies)) for dies in (True, False))
    doomed.start()
    other.start()
    doomed.join(250)
    other.join(250)
    assert doomed.exitcode == -signal.SIGKILL
    assert other.exitcode == 0
    # the last one was lost with the process that had made it, and its lock was free again
    assert Counter(log.read_text().split()) == {str(key): 1 + (key == KEYS) for key in range(KEYS + 1)}
    cache = Cache(folder, 10**9)
    found = sorted(float(read(entry.path)["mean"][0]) for entry in cache.entries())
    assert found == list(range(KEYS + 1))
    (left,) = folder.glob("*/*/*.draft")
    assert left.name.startswith(f"{doomed.pid}-")
    cache.prune(10**9)
    assert left.exists()  # somebody might be writing it
    os.utime(left, (0, 0))
    cache.prune(10**9)
    assert not left.exists()
    assert len(list(cache.entries())) == KEYS + 1
    assert not list(folder.glob("*/*/*.lock"))


def test_nobody_waits_for_ever_for_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tadp_da.storage.cache._PATIENCE", 0.5)
    cache, several = Cache(tmp_path, 10**9), [{"image": str(i)} for i in range(4)]
    spawn = multiprocessing.get_context("spawn")
    begun = spawn.Event()
    hanging = spawn.Process(target=hang, args=(tmp_path, several, begun))
    hanging.start()
    try:
        assert begun.wait(200)
        start = time.monotonic()
        made = cache.get_or_create_many(
            "latents", several, lambda m: [{"mean": torch.ones(3)} for _ in m], sources=[None] * 4
        )
        assert time.monotonic() - start < 1.5  # half a second for all, not for each
    finally:
        hanging.kill()
        hanging.join()
    assert all(bool((tensors["mean"] == 1).all()) for tensors in made)
    assert (cache.counts.found, cache.counts.made) == (0, 4)
    assert cache.get("latents", several[0]) is not None
    assert "Check whether it hangs" in caplog.text
    left = list(tmp_path.glob("*/*/*.lock"))
    assert len(left) == 4
    for lock in left:
        os.utime(lock, (0, 0))
    cache.prune(10**9)
    assert not list(tmp_path.glob("*/*/*.lock"))


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that anybody reaches, as pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def plain_user(*owned: Path) -> Iterator[None]:
    """Run as somebody whom permissions bind: root is made nobody, everybody else is that already."""
    if os.geteuid():
        yield
        return
    for path in owned:
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def goes_on_without(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, because: str
) -> None:
    """Assert that what is asked for is made every time, and the reason is told once."""
    monkeypatch.setenv("TADP_DA_CACHE", str(folder))
    _opened.cache_clear()
    for _ in range(2):
        made = open_cache().get_or_create("latents", {"image": "0"}, lambda: {"mean": torch.ones(3)})
        assert bool((made["mean"] == 1).all())
    assert open_cache().folder is None
    assert open_cache().counts.made == 2
    (said,) = [record.getMessage() for record in caplog.records]
    assert because in said
    assert "set TADP_DA_CACHE to a folder of your own (chmod 700), or to off" in said


def test_a_folder_that_cannot_be_written(
    outside: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = outside / "cache"
    folder.mkdir(mode=0o500)
    with plain_user(folder):
        goes_on_without(folder, caplog, monkeypatch, "it cannot be written (Permission denied)")
    assert list(folder.iterdir()) == []


def test_a_folder_of_somebody_else(
    outside: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = outside / "cache"
    if os.geteuid():
        folder = Path("/")  # whoever owns it, it is not us
    else:
        folder.mkdir()
        os.chown(folder, NOBODY, NOBODY)
    goes_on_without(folder, caplog, monkeypatch, "not to you")


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_folder_that_others_may_write_to(
    outside: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    folder = outside / "cache"
    folder.mkdir()
    folder.chmod(mode)
    goes_on_without(folder, caplog, monkeypatch, "others may write to it")


def test_a_place_that_is_no_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    goes_on_without(tmp_path / "file", caplog, monkeypatch, "it cannot be written")


def test_what_is_made_is_for_its_owner_alone(
    cache: Cache, backbone: Any, images: Unlabeled, run: Run
) -> None:
    old = os.umask(0)
    try:
        encode(backbone, images, DreamBooth(), run)
    finally:
        os.umask(old)
    folder = location()
    assert folder is not None
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert {entry.path.stat().st_mode & 0o777 for entry in cache.entries()} == {0o600}


def test_the_run_is_as_without_a_cache(
    backbone: Any,
    images: Unlabeled,
    run: Run,
    outside: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (outside / "file").write_text("")
    monkeypatch.setenv("TADP_DA_CACHE", str(outside / "file"))
    with caplog.at_level(logging.WARNING):
        latents = encode(backbone, images, DreamBooth(), run)
        encode(backbone, images, DreamBooth(), run)
    assert len([record for record in caplog.records if record.name == "tadp_da.storage.cache"]) == 1
    with uncached():
        expected: Latents = encode(backbone, images, DreamBooth(), run)
    assert torch.equal(latents.mean, expected.mean)
