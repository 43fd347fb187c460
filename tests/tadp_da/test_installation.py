"""Another project's ``adapt`` beside this one, as pip leaves them: real wheels, real installations, no network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from tadp_da.installation import PACKAGES, foreign_packages, require_own_packages

ROOT = Path(__file__).parent.parent.parent
OWN = ("tadp_da", *PACKAGES)
IMPORT = "import tadp_da; print(tadp_da.__version__)"
FINDING = (
    "from pathlib import Path; from tadp_da.doctor.environment import environment_probes; here = Path(); "
    "probe = next(p for p in environment_probes(here, here) if p.name == 'own packages'); found = probe(); "
    "print(found.state, probe.core, found.says, found.fix)"
)
DOOR = "from tadp_da.cli import main; main()"


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """A wheel of these files."""
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
            digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(text.encode())}")
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``ours`` and ``editable`` as setuptools builds them (without the weights), and a ``stranger`` called adapt."""
    folder = tmp_path_factory.mktemp("wheels")
    tree = folder / "tree"
    for package in OWN:
        shutil.copytree(
            ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "weights")
        )
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree)
    code = (
        "import sys; from setuptools import build_meta as build; folder = sys.argv[1]; "
        "build.build_wheel(folder); build.build_editable(f'{folder}/editable')"
    )
    (folder / "editable").mkdir()
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # importing it is not needed to notice it, and would fail: it wants tensorflow
    toolbox = {
        "adapt/__init__.py": "import tensorflow_that_is_not_here\n",
        "adapt/base.py": "class BaseAdaptEstimator: ...\n",
    }
    (ours,) = folder.glob("tadp_da*.whl")
    (editable,) = folder.glob("editable/tadp_da*.whl")
    return {"ours": ours, "editable": editable, "stranger": write_wheel(folder, "adapt", "0.4.5", toolbox)}


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a new environment that has the dependencies of this one."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    interpreter = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    return interpreter


def pip(python: Path, *words: object) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def install(python: Path, *wheels: Path) -> None:
    for wheel in wheels:  # one after the other, as people do
        pip(python, "install", "--no-deps", "--no-index", "--no-compile", "--ignore-installed", wheel)


def run(python: Path, *words: object) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python), *map(str, words)]
    return subprocess.run(command, cwd=python.parent, env=env, capture_output=True, text=True)


def assert_noticed(python: Path, what: str) -> None:
    """Import warns and goes on, the front door refuses with exit code 4, the doctor has a red finding of the core."""
    imported = run(python, "-c", f"{IMPORT}; {FINDING}")
    assert imported.returncode == 0, imported.stderr
    version, finding = imported.stdout.splitlines()
    assert version == "0.1.0"
    assert "RuntimeWarning" in imported.stderr
    assert what in imported.stderr
    assert finding.startswith("red True")
    assert what in finding
    assert "environment of its own" in finding
    door = run(python, "-c", DOOR, "benchmark", "list")
    assert door.returncode == 4, door.stderr
    assert what in door.stderr
    assert "installed by adapt 0.4.5" in door.stderr
    assert "environment of its own" in door.stderr


def test_a_wheel_by_itself_works_also_with_files_that_a_user_adds(
    wheels: dict[str, Path], python: Path
) -> None:
    install(python, wheels["ours"])
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    assert (site / "benchmarks/recipes/mini-night.yaml").exists()
    (site / "personalize/methods/mine.py").touch()
    (site / "adapt/helper_of_mine.py").touch()
    done = run(python, "-W", "error", "-c", f"{IMPORT}; {FINDING}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.1.0\nok True")
    door = run(python, python.parent / "tadp-da", "concept", "export", "--help")
    assert door.returncode == 0, door.stderr


def test_another_adapt_installed_after_ours(wheels: dict[str, Path], python: Path) -> None:
    install(python, wheels["ours"], wheels["stranger"])
    assert_noticed(python, "adapt/__init__.py is not the file that tadp_da installed")
    pip(python, "uninstall", "--yes", "adapt")  # takes our __init__.py with it
    assert "'adapt' has no __init__.py" in run(python, "-c", IMPORT).stderr


def test_another_adapt_installed_before_ours(wheels: dict[str, Path], python: Path) -> None:
    install(python, wheels["stranger"], wheels["ours"])
    assert_noticed(python, "'adapt' is mixed with another project's files (base.py)")


def test_another_adapt_beside_an_editable_installation(wheels: dict[str, Path], python: Path) -> None:
    install(python, wheels["editable"])
    assert run(python, "-W", "error", "-c", IMPORT).stdout == "0.1.0\n"
    install(python, wheels["stranger"])
    assert_noticed(python, "which is not part of tadp_da")


def test_a_folder_of_that_name_in_front_of_ours(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/__init__.py").touch()
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.append({str(ROOT)!r})\n{IMPORT}\n")
    done = run(Path(sys.executable), script)
    assert done.stdout == "0.1.0\n"
    assert f"'benchmarks' is {tmp_path / 'benchmarks/__init__.py'}" in done.stderr


def test_here_all_is_ours() -> None:
    assert foreign_packages() == ()
    require_own_packages()


def test_the_check_imports_no_third_party_and_takes_no_time() -> None:
    code = (
        "import sys, time; known = set(sys.modules); import importlib.util, warnings, tadp_da\n"
        "from tadp_da.installation import foreign_packages\n"
        "start = time.perf_counter(); foreign_packages(); spent = time.perf_counter() - start\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - known} - set(sys.stdlib_module_names)\n"
        "print(sorted(new), spent < 0.1)\n"
    )
    assert (
        run(Path(sys.executable), "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}").stdout
        == "['tadp_da'] True\n"
    )
