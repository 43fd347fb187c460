"""Doctor: tests what works on this machine, and explains how to fix what does not."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tadp_da.doctor.environment import environment_probes, installed
from tadp_da.doctor.finding import Finding, clean
from tadp_da.doctor.isolated import run_apart
from tadp_da.doctor.kernels import KERNELS
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.storage.files import replacing


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """Result of all probes.

    Attributes:
        findings: one per probe, in order.
        core: names of the probes that everything depends on.
    """

    findings: tuple[Finding, ...]
    core: frozenset[str]

    def _red(self, core: bool) -> tuple[str, ...]:
        return tuple(f.name for f in self.findings if f.state == "red" and (f.name in self.core) is core)

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the core probes that are red."""
        return self._red(core=True)

    @property
    def ok(self) -> bool:
        """Whether training can run here, whatever else is missing."""
        return not self.broken

    @property
    def verdict(self) -> str:
        """One line: whether the core works, and what else is broken."""
        core = "the core works" if self.ok else f"the core does not work: {', '.join(self.broken)}"
        other = self._red(core=False)
        return core + (f"; also broken: {', '.join(other)}" if other else "")

    def lines(self) -> list[str]:
        """For a terminal, without secrets and home paths."""
        wide = max(len(finding.name) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"{finding.state:<4}  {finding.name:<{wide}}  {finding.says}")
            if finding.fix:
                lines.append(f"{'':<6}{'':<{wide}}  fix: {finding.fix}")
        return [*clean(lines), "", self.verdict]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values, without secrets and home paths."""
        findings = [finding.as_json() | {"core": finding.name in self.core} for finding in self.findings]
        return {"ok": self.ok, "verdict": self.verdict, "findings": findings}

    def bundle(self, path: Path) -> None:
        """Write the report and the versions of all packages as a zip to attach to a bug report.

        It contains no environment variable, no secret and no home path.

        Raises:
            UsageError: if the name does not end in ``.zip``.
            EnvironmentSetupError: if it cannot be written.
        """
        if path.suffix != ".zip":
            raise UsageError(f"--bundle {path.name!r} is not a zip", fix="give a name that ends in .zip")
        made = datetime.now(UTC).isoformat(timespec="seconds")
        files = {
            "report.txt": "\n".join(self.lines()) + "\n",
            "report.json": json.dumps({"made": made} | self.as_json(), indent=1, ensure_ascii=False) + "\n",
            "packages.txt": "\n".join(clean(installed())) + "\n",
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as fresh, zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, text in files.items():
                    archive.writestr(name, text)
        except OSError as error:
            raise EnvironmentSetupError(
                f"cannot write the bundle: {error.strerror or type(error).__name__}",
                where=path,
                fix="give --bundle a file in a writable folder",
            ) from error


def examine(*, out: Path = Path("runs"), data: Path = Path("data"), seconds: float = 60) -> DoctorReport:
    """Run all probes, most basic first.

    Nothing is downloaded, and no file is left behind. Native code runs in another process, so that a crash or a hang
    becomes a red finding.

    Args:
        out: folder that runs would write to.
        data: folder of the data sets.
        seconds: time limit of one probe.
    """
    light = environment_probes(out, data)
    findings = [probe() for probe in light]
    for finding in run_apart(KERNELS, seconds):
        findings.append(finding)
        if finding.name == KERNELS[0].name and finding.state == "red":
            break  # all others depend on it
    skipped = f"skipped, because {KERNELS[0].name} does not work"
    left = KERNELS[len(findings) - len(light) :]
    findings += [Finding(name=probe.name, state="off", says=skipped) for probe in left]
    core = frozenset(probe.name for probe in (*light, *KERNELS) if probe.core)
    return DoctorReport(findings=tuple(findings), core=core)
