"""The doctor finds what is broken by trying it, survives it, advises, and gives nothing away."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tadp_da import mini
from tadp_da.doctor.environment import environment_probes, folder_probe
from tadp_da.doctor.finding import Finding, Probe, clean
from tadp_da.doctor.isolated import run_apart
from tadp_da.doctor.kernels import KERNELS
from tadp_da.doctor.report import DoctorReport, examine
from tadp_da.errors import EnvironmentSetupError, UsageError

TOKEN, API_KEY = "hf_NotARealTokenButInItsForm", "0123456789abcdef-not-a-key"
PROBES = {probe.name: probe for probe in KERNELS}


def stand_in(folder: Path, name: str, code: str, **modules: str) -> Path:
    """A package of this name in ``folder``, to be found before the real one."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    for module, text in modules.items():
        (package / f"{module}.py").write_text(text)
    return folder


def broken_xformers(folder: Path) -> Path:
    """What PyPI's xformers is beside PyPI's torch: it imports, warns, and has no kernel."""
    loader = (
        "class Invalid(Exception): build_info = None\n"
        "_cpp_library_load_exception = Invalid('xFormers cannot load C++/CUDA extensions.')\n"
        "_cpp_library_load_exception.__cause__ = OSError('libcudart.so.12: cannot open shared object file')\n"
    )
    kernels = "def memory_efficient_attention(*a, **k): raise NotImplementedError('No operator found')\n"
    stand_in(folder, "xformers", "__version__ = '0.0.35'\n", _cpp_lib=loader, ops=kernels)
    (folder / "xformers-0.0.35.dist-info").mkdir()
    (folder / "xformers-0.0.35.dist-info" / "METADATA").write_text("Name: xformers\nVersion: 0.0.35\n")
    return folder


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the real command in a home of its own, beside a broken xformers and with secrets about."""
    home = tmp_path_factory.mktemp("alice")
    env = os.environ | {"HOME": str(home), "HF_TOKEN": TOKEN, "WANDB_API_KEY": API_KEY}
    env["PYTHONPATH"] = str(broken_xformers(home / "packages"))
    words = ["--out", home / f"runs-{API_KEY}", "--data", home / f"data-{TOKEN}"]
    words += ["--json", "--bundle", home / "bug.zip"]
    code = "from tadp_da.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", *map(str, words)], env=env, cwd=home, capture_output=True, text=True
    )  # fmt: skip
    report = json.loads(done.stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    return {"home": home, "code": done.returncode, "report": report, "found": found, "stderr": done.stderr}


def test_here_the_core_works_and_the_exit_code_says_so(visit: dict[str, Any]) -> None:
    assert visit["code"] == 0, visit
    assert visit["report"]["ok"] is True
    for name in (
        "packages",
        "torch",
        "torchvision",
        "attention: sdpa auto",
        "attention: sdpa math",
        "training",
    ):
        assert visit["found"][name]["state"] == "ok", visit["found"][name]
    assert visit["found"]["packages"]["facts"]["tadp-da"] == "0.1.0"
    assert visit["found"]["torch"]["facts"]["devices"][0]["name"] == "cpu"
    assert set(visit["found"]) >= set(PROBES), "every probe leaves a finding"


def test_an_unusable_xformers_is_red_and_training_goes_on(visit: dict[str, Any]) -> None:
    found = visit["found"]["attention: xformers"]
    assert found["state"] == "red"
    assert not found["core"]
    assert "0.0.35 is installed, but its extension does not load" in found["says"]
    assert "libcudart.so.12" in found["says"]
    assert "pip uninstall xformers" in found["fix"]
    assert "attention: xformers" in visit["report"]["verdict"]
    assert visit["found"]["training"]["state"] == "ok"


@pytest.mark.parametrize("name", ["8-bit AdamW", "8-bit linear", "4-bit linear"])
def test_eight_bits_are_tried_where_they_are_installed(visit: dict[str, Any], name: str) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    assert visit["found"][name]["state"] == "ok", visit["found"][name]


def test_without_bitsandbytes_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("8-bit AdamW", "8-bit linear", "4-bit linear"):
        found = PROBES[name]()
        assert found.state == "off"
        assert "pip install 'tadp-da[gpu]'" in found.fix
    assert PROBES["attention: xformers"]().state == "off"


def test_the_bundle_holds_no_secret_and_no_home(visit: dict[str, Any]) -> None:
    with zipfile.ZipFile(visit["home"] / "bug.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(texts) == {"report.txt", "report.json", "packages.txt"}
    assert "~/runs-***" in texts["report.txt"]
    assert "~/data-***" in texts["report.json"]
    assert "torch==" in texts["packages.txt"]
    for text in (*texts.values(), json.dumps(visit["report"])):
        for secret in (TOKEN, API_KEY, str(visit["home"]), "WANDB_API_KEY"):
            assert secret not in text
    assert [path.name for path in visit["home"].glob(".bug*")] == [], "nothing half is left behind"


def test_a_visit_leaves_nothing_behind(visit: dict[str, Any]) -> None:
    assert {path.name for path in visit["home"].iterdir()} <= {"packages", "bug.zip", ".cache", ".config"}


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("in /lair/alice/data.", "in ~/data."),
        ("it is /lair/alice.", "it is ~."),
        ("/lair/alicette/x", "/lair/alicette/x"),
        ("/home/bob/x and /Users/carol/y", "~/x and ~/y"),
        (r"C:\Users\dave\x", r"~\x"),
        ("https://me:pw123@host/simple", "https://***@host/simple"),
        ("key hf_abcdefghij", "key ***"),
        ("token correct-horse", "token ***"),
        ("login battery-staple", "login ***"),
        ("parallelism offlines", "parallelism offlines"),
        ("/where/i/am/x", "/where/i/am/x"),
    ],
)
def test_cleaning(monkeypatch: pytest.MonkeyPatch, text: str, cleaned: str) -> None:
    monkeypatch.setenv("HOME", "/lair/alice")
    monkeypatch.setenv("PWD", "/where/i/am")
    monkeypatch.setenv("DB_PASS", "battery-staple")
    monkeypatch.setenv("MY_TOKEN", "correct-horse")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "offlines")
    assert clean({text: [text, 1, None]}) == {cleaned: [cleaned, 1, None]}


def test_a_crash_is_a_red_line_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Torch takes the first process down; the next one goes on with the probes after it."""
    crash = (
        "import os, pathlib, sys\n"
        "once = pathlib.Path(__file__).with_name('crashed')\n"
        "if once.exists(): raise ImportError('the second time')\n"
        "once.touch(); sys.stderr.write('undefined symbol: x\\n'); sys.stderr.flush(); os.abort()\n"
    )
    monkeypatch.syspath_prepend(stand_in(tmp_path, "torch", crash))
    first, second = run_apart([PROBES["torch"], PROBES["torchvision"]], 60)
    assert (first.name, first.state) == ("torch", "red")
    assert first.says == "crashed the process with SIGABRT: undefined symbol: x"
    assert "https://pytorch.org" in first.fix
    assert (second.name, second.says) == ("torchvision", "ImportError: the second time")


def test_a_hang_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(stand_in(tmp_path, "torch", "import time; time.sleep(600)"))
    (found,) = run_apart([PROBES["torch"]], 1.5)
    assert (found.state, found.says) == ("red", "did not answer within 1.5 s")


def test_without_torch_nothing_else_is_tried_and_the_core_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "raise ImportError('libcudnn.so.9: cannot open shared object file')"
    monkeypatch.syspath_prepend(stand_in(tmp_path, "torch", code))
    report = examine(out=tmp_path, data=tmp_path)
    assert not report.ok
    assert report.broken == ("torch",)
    states = {finding.name: finding for finding in report.findings}
    assert "libcudnn.so.9" in states["torch"].says
    assert {states[name].state for name in PROBES if name != "torch"} == {"off"}
    assert report.verdict.startswith("the core does not work: torch")


def test_a_folder_that_cannot_be_written_breaks_the_core(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = {
        probe.name: probe() for probe in environment_probes(tmp_path / "file", tmp_path / "file" / "data")
    }
    assert found["runs"].state == "red"
    assert "--out" in found["runs"].fix
    assert found["data"].state == "warn"
    assert "--data" in found["data"].fix


def test_the_exit_code_of_a_broken_core_is_4(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = os.environ | {"PYTHONPATH": str(stand_in(tmp_path, "torch", "raise ImportError('no')"))}
    code = "from tadp_da.cli import main; main()"
    words = ["doctor", "--out", str(tmp_path / "file")]
    done = subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert "the core does not work: runs, torch" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    found = folder_probe("runs", lambda: tmp_path / "new", core=True, room=1e9, fix="free space")()
    assert found.state == "warn"
    assert "GiB free; expected" in found.says
    assert found.fix == "free space"
    assert not (tmp_path / "new").exists()


def test_a_folder_that_nobody_can_name_is_a_finding() -> None:
    def nowhere() -> Path:
        raise FileNotFoundError(2, "No usable temporary directory")

    found = folder_probe("temporary files", nowhere, core=False, room=1, fix="set TMPDIR")()
    assert (found.state, found.fix) == ("red", "set TMPDIR")


def test_compiled_code_from_the_hub_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probe = next(probe for probe in environment_probes(tmp_path, tmp_path) if probe.name == "hub kernels")
    monkeypatch.syspath_prepend(stand_in(tmp_path, "kernels", ""))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = probe()
    assert found.state == "warn"
    assert "HF_HUB_OFFLINE=1" in found.fix
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert probe().state == "ok"


def test_embedded_weights_are_loaded_for_real(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_pipeline: Path
) -> None:
    monkeypatch.setattr(mini, "WEIGHTS", tmp_path)
    probe = PROBES["embedded stable-diffusion"]
    missing = probe()
    assert (missing.state, probe.core) == ("red", False)
    assert "missing from this installation" in missing.says
    assert "python -m tadp_da.mini.pretrain" in missing.fix
    shutil.copytree(tiny_pipeline, tmp_path / "stable-diffusion")
    assert probe().state == "ok"
    (weights,) = (tmp_path / "stable-diffusion" / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    damaged = probe()
    assert damaged.state == "red"
    assert damaged.fix


def test_whatever_a_probe_raises_is_a_finding() -> None:
    def fail() -> Finding:
        raise RuntimeError("first\nsecond") from OSError("the cause")

    found = Probe(name="x", run=fail, fix="mend it")()
    assert (found.state, found.says, found.fix) == (
        "red",
        "RuntimeError: first (OSError: the cause)",
        "mend it",
    )


def test_a_bundle_is_a_zip_in_a_place_that_can_be_written(tmp_path: Path) -> None:
    report = DoctorReport(findings=(Finding(name="x", state="ok", says=""),), core=frozenset())
    with pytest.raises(UsageError, match=r"ends in \.zip"):
        report.bundle(tmp_path / "bug.tar")
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentSetupError, match="in a writable folder"):
        report.bundle(tmp_path / "file" / "bug.zip")
