"""Rows on a cluster: all of them, once; a lost machine's work is done again; what goes wrong comes back as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.clusters import run_on
from tadp_da.errors import DataError, EnvironmentSetupError, TadpError, UsageError
from tadp_da.run import Run

ROOT = Path(__file__).parents[2]


def note(name: str, run: Run) -> str:
    (run.folder / f"{name}-{os.getpid()}").write_text(" ".join(sys.argv))
    if name == "bad":
        raise DataError("no such picture", where=run.folder / name, fix="give another one")
    return name


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Run(folder=tmp_path, device="cpu", quiet=True)


@pytest.mark.parametrize(
    ("where", "error", "advice"),
    [
        ("mesos", UsageError, "ray:ADDRESS"),
        ("slurm:gpu", UsageError, "slurm_partition=gpu"),
        ("slurm:cluster=local,colour=red", UsageError, "AutoExecutor"),
    ],
)
def test_what_is_no_cluster_is_refused(run: Run, where: str, error: type[TadpError], advice: str) -> None:
    if where.startswith("slurm:"):
        pytest.importorskip("submitit", reason="pip install 'tadp-da[slurm]'")
    with pytest.raises(error) as caught:
        run_on(where, note, ["one"], run, "rows")
    assert advice in caught.value.fix


@pytest.mark.parametrize(("where", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named_with_its_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch, where: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentSetupError, match=package) as caught:
        run_on(where, note, ["one"], run, "rows")
    assert f"tadp-da[{where}]" in caught.value.fix


def test_jobs_of_submitit_do_all_work_in_processes_of_their_own(run: Run) -> None:
    pytest.importorskip("submitit", reason="pip install 'tadp-da[slurm]'")
    run_on("slurm:cluster=local", note, ["one", "two"], run, "rows")
    written = sorted(run.folder.glob("*-*"))
    assert [path.name.partition("-")[0] for path in written] == ["one", "two"]
    assert len({path.name.partition("-")[2] for path in written} | {str(os.getpid())}) == 3
    assert written[0].read_text() == " ".join(sys.argv), "records name the command that was given"
    with pytest.raises(DataError, match="no such picture"):
        run_on("slurm:cluster=local", note, ["bad"], run, "rows")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ray on a head that works on nothing; tests add nodes."""
    pytest.importorskip("ray", reason="pip install 'tadp-da[ray]'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


def fill(folder: Path, data: Path, *more: str) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-c",
        "from tadp_da.cli import main; main()",
        "benchmark",
        "run",
        "mini-night",
        "--rows",
        "no-text,null",
        "--seeds",
        "0",
    ]
    words += ["--limit", "3", "--data", str(data), "--device", "cpu", "--out", str(folder), *more]
    for setting in ("adapt.steps=24", "adapt.checkpoint_every=2", "adapt.batch=2"):
        words += ["--set", setting]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_the_work_of_a_killed_node_is_done_again_and_the_table_is_the_same(
    tmp_path: Path, cluster: Any
) -> None:
    here = fill(tmp_path / "here", tmp_path / "data")
    assert here.wait() == 0, here.stdout and here.stdout.read()
    first = cluster.add_node(num_cpus=1)
    there = fill(tmp_path / "there", tmp_path / "data", "--on", f"ray:{cluster.address}")
    while not any(
        len(file.read_text().splitlines()) > 4 for file in (tmp_path / "there").rglob("metrics.jsonl")
    ):
        assert there.poll() is None, there.stdout and there.stdout.read()
        time.sleep(0.1)
    cluster.remove_node(first, allow_graceful=False)
    assert not list((tmp_path / "there").glob("report-*")), "the node was killed in the middle"
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    assert there.wait() == 0, there.stdout and there.stdout.read()
    name = "tables/mini-night-first-3/table.csv"
    assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@pytest.mark.slow
def test_an_error_on_a_node_of_ray_comes_back_as_it_was(run: Run, cluster: Any) -> None:
    cluster.add_node(num_cpus=1)
    with pytest.raises(DataError, match="no such picture"):
        run_on(f"ray:{cluster.address}", note, ["bad"], run, "rows")
