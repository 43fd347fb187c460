"""The cache by itself, and its commands."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from tadp_da import cli
from tadp_da.errors import UsageError
from tadp_da.fingerprints import code_of, content_of, libraries
from tadp_da.storage.cache import Cache, location, open_cache, size_of
from tadp_da.storage.cache_file import differences, read, read_metadata, why
from tadp_da.storage.files import file_digest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TADP_DA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> Cache:
    return open_cache()


def fill(cache: Cache, count: int, size: int = 1000) -> list[Path]:
    """Entries that were last asked for one second after the other, oldest first."""
    for i in range(count):
        cache.put("latents", {"image": str(i)}, {"mean": torch.full((size,), float(i))})
    entries = sorted(cache.entries(), key=lambda e: float(read(e.path)["mean"][0]))
    for i, entry in enumerate(entries):
        os.utime(entry.path, (1000 + i, 1000 + i))
    return [entry.path for entry in entries]


def test_an_entry_is_made_once_and_comes_back_bit_for_bit(cache: Cache) -> None:
    values = {"mean": torch.randn(2, 3), "std": torch.randn(4).to(torch.bfloat16), "none": torch.zeros(0)}
    calls = []

    def make() -> dict[str, torch.Tensor]:
        calls.append(1)
        return values

    for _ in range(3):
        found = cache.get_or_create("latents", {"image": "a", "size": [8, 8]}, make)
        assert found.keys() == values.keys()
        assert all(torch.equal(found[k], values[k]) and found[k].dtype == values[k].dtype for k in values)
    assert len(calls) == 1
    assert (cache.counts.found, cache.counts.made, cache.counts.damaged) == (2, 1, 0)


def test_of_several_only_the_missing_are_made_and_all_come_in_their_order(cache: Cache) -> None:
    cache.put("text", {"prompt": "1"}, {"text": torch.tensor([1.0])})
    asked = [{"prompt": name} for name in ("0", "1", "2", "2")]
    wanted = []

    def make(missing: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        wanted.extend(missing)
        return [{"text": torch.tensor([float(asked[i]["prompt"])])} for i in missing]

    for _ in range(2):
        found = cache.get_or_create_many("text", asked, make, sources=[None] * 4)
        assert [float(tensors["text"]) for tensors in found] == [0, 1, 2, 2]
    assert wanted == [0, 2, 3]


def test_any_fact_and_the_kind_make_another_entry(cache: Cache) -> None:
    facts = {"image": "a", "size": [8, 8], "scaling": 0.18215, "place": None}
    cache.put("latents", facts, {"mean": torch.zeros(1)})
    assert cache.get("latents", dict(reversed(facts.items()))) is not None
    for change in ({"image": "b"}, {"size": [8, 9]}, {"scaling": 0.18216}, {"place": [0, 1]}, {"new": 1}):
        assert cache.get("latents", facts | change) is None
    assert cache.get("text", facts) is None


def test_an_entry_under_another_name_is_not_believed(cache: Cache) -> None:
    one, two = fill(cache, 2)
    two.write_bytes(one.read_bytes())
    assert cache.get("latents", {"image": "1"}) is None
    assert cache.counts.damaged == 1


def test_a_file_that_changed_meanwhile_is_not_kept(cache: Cache, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"old")
    facts = {"image": content_of(source)}

    def make() -> dict[str, torch.Tensor]:
        source.write_bytes(b"new")
        return {"mean": torch.zeros(1)}

    cache.get_or_create("latents", facts, make, source=source)
    source.unlink()
    cache.get_or_create("latents", facts, lambda: {"mean": torch.zeros(1)}, source=source)
    assert list(cache.entries()) == []


def test_what_was_not_asked_for_the_longest_goes_first(cache: Cache) -> None:
    paths = fill(cache, 5)
    assert cache.get("latents", {"image": "0"}) is not None  # now the newest
    size = paths[0].stat().st_size
    assert cache.prune(3 * size) == (2, 2 * size)
    assert [path.exists() for path in paths] == [True, False, False, True, True]
    assert cache.prune(0) == (3, 3 * size)


def test_a_cache_keeps_to_its_limit_by_itself(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=100_000)
    for i in range(100):
        cache.put("latents", {"image": str(i)}, {"mean": torch.zeros(1000)})
        assert sum(entry.size for entry in cache.entries()) < 100_000 * 17 / 16 + 5000
    assert cache.get("latents", {"image": "99"}) is not None
    assert cache.get("latents", {"image": "0"}) is None


def test_files_that_are_not_its_own_are_left_alone(cache: Cache, folder: Path) -> None:
    fill(cache, 1)
    (folder / "models").mkdir()
    (folder / "models" / "unet.safetensors").write_bytes(b"a model that somebody keeps there")
    assert cache.prune(0)[0] == 1
    assert [path.name for path in folder.rglob("*.safetensors")] == ["unet.safetensors"]


def test_a_full_disk_costs_the_entry_and_nothing_else(
    cache: Cache, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        for _ in range(2):
            made = cache.get_or_create("latents", {"image": "a"}, lambda: {"mean": torch.ones(100_000)})
            assert float(made["mean"].sum()) == 100_000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    (said,) = [record.getMessage() for record in caplog.records]
    assert "cannot be written (File too large)" in said
    assert "tadp-da cache prune --to" in said


def test_off_keeps_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TADP_DA_CACHE", "off")
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = open_cache()
    for _ in range(2):
        cache.get_or_create("latents", {"image": "a"}, lambda: {"mean": torch.zeros(1)})
    assert cache.folder is None
    assert cache.prune(0) == (0, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("told", "base", "expected"),
    [
        ("/a/b", "/x", "/a/b"),
        ("~/b", "", "/home/me/b"),
        ("", "/x", "/x/tadp_da"),
        ("", "", "/home/me/.cache/tadp_da"),
        ("", "relative", "/home/me/.cache/tadp_da"),  # the XDG specification: to be ignored
    ],
)
def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, told: str, base: str, expected: str) -> None:
    for name, value in (("TADP_DA_CACHE", told), ("XDG_CACHE_HOME", base), ("HOME", "/home/me")):
        monkeypatch.setenv(name, value)
    assert location() == Path(expected)


def test_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [size_of(text, "") for text in ("10GB", "1.5 GiB", "0", "7")] == [10**10, 3 * 2**29, 0, 7]
    monkeypatch.setenv("TADP_DA_CACHE_LIMIT", "plenty")
    with pytest.raises(UsageError, match=r"'plenty' is not a size(?s:.)*TADP_DA_CACHE_LIMIT(?s:.)*10GB"):
        open_cache()


def test_code_has_a_version() -> None:
    assert code_of(fill) == code_of(fill)
    assert code_of(fill) != code_of(test_sizes)
    assert code_of(fill, test_sizes) != code_of(fill)
    assert code_of(cli) != code_of(sys.modules[__name__])
    assert {part.split("-")[0] for part in libraries().replace("tadp-da", "tadp").split()} >= {
        "torch",
        "Pillow",
    }


def test_why_names_what_differs_from_the_nearest_older_entry(cache: Cache, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"one")
    first = {"image": file_digest(source), "size": [8, 8], "vae": "x", "code": "1"}
    cache.put("latents", first, {"mean": torch.zeros(1)}, source=source)
    cache.put("latents", first | {"size": [4, 4], "code": "2"}, {"mean": torch.zeros(1)}, source=source)
    cache.put("latents", first | {"size": [4, 4], "code": "2", "vae": "y"}, {"mean": torch.zeros(1)})
    cache.put("text", {"prompt": "a car", "code": "1"}, {"text": torch.zeros(1)})
    cache.put("latents", {"image": "another"}, {"mean": torch.zeros(1)})
    a, b, c = why(cache.entries(), source=source)
    assert (a.instead, a.changed) == (None, {})
    assert (b.instead, b.changed) == (a.made, {"code": ("1", "2"), "size": ([8, 8], [4, 4])})
    assert (c.instead, c.changed) == (b.made, {"vae": ("x", "y")})
    source.write_bytes(b"two")  # the entries that were made under this name
    assert [answer.entry for answer in why(cache.entries(), source=source)] == [a.entry, b.entry]
    (text,) = why(cache.entries(), prompt="a car")
    assert read_metadata(text.entry).facts == {"prompt": "a car", "code": "1"}
    assert differences({"a": 1}, {"b": 2}) == {"a": (1, None), "b": (None, 2)}


Command = Callable[..., int]


@pytest.fixture
def command(command: Command, folder: Path) -> Command:
    """Runs ``tadp-da cache`` in this process; its exit code."""
    return partial(command, "cache")


def test_listing(command: Command, cache: Cache, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("ls") == 0
    assert f"0B of at most 20.0GB in {folder}" in capsys.readouterr().out
    fill(cache, 2)
    assert command("ls") == 0
    assert "latents" in capsys.readouterr().out
    assert command("ls", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["kinds"]["latents"]["entries"] == 2
    assert listed["limit"] == 20 * 10**9


def test_verifying(command: Command, cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    paths = fill(cache, 3)
    assert command("verify") == 0
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    assert command("verify") == 6
    said = capsys.readouterr().out
    assert str(paths[1]) in said
    assert "tadp-da cache verify --remove" in said
    assert command("verify", "--remove") == 0
    assert [path.exists() for path in paths] == [True, False, True]
    assert command("verify") == 0


def test_pruning(command: Command, cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    paths = fill(cache, 3)
    assert command("prune") == 0  # far below the limit
    assert all(path.exists() for path in paths)
    assert command("prune", "--to", "10KB") == 0
    assert "1 entries removed" in capsys.readouterr().out
    assert not paths[0].exists()
    assert command("prune", "--to", "all") == 2
    assert "'all' is not a size" in capsys.readouterr().err


def test_asking_why(
    command: Command, cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.png"
    assert command("why", source) == 3
    assert "for a prompt add --text" in capsys.readouterr().err
    source.write_bytes(b"one")
    assert command("why", source) == 0
    assert "it has no entry" in capsys.readouterr().out
    facts = {"image": file_digest(source), "size": [8, 16], "vae": "x"}
    for vae in "xy":
        cache.put("latents", facts | {"vae": vae}, {"mean": torch.zeros(1)}, source=source)
    assert command("why", source) == 0
    said = capsys.readouterr().out
    assert "latents, 8x16" in said
    assert "vae: x there, y here" in said
    source.write_bytes(b"two")
    assert command("why", source) == 0
    assert "the file has changed since" in capsys.readouterr().out
    assert command("why", source, "--json") == 0
    assert json.loads(capsys.readouterr().out)["entries"][1]["changed"] == {"vae": ["x", "y"]}
    assert command("why", "--text", "a car") == 0


def test_a_cache_that_is_off_or_unusable_is_told(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_text("")
    assert command("ls") == 4
    assert "set TADP_DA_CACHE to a folder of your own" in capsys.readouterr().err
    monkeypatch.setenv("TADP_DA_CACHE", "off")
    assert command("ls") == 2
    assert "unset it" in capsys.readouterr().err
