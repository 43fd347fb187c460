"""Probes of native code run in a process of their own: a crash or a hang becomes a red finding, and another process
continues with the rest. ``python -m tadp_da.doctor.isolated SECONDS NAME...`` is that process."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tadp_da.doctor.finding import Finding, Probe

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Nothing that a probe imports may use the network: bitsandbytes downloads a kernel if it is allowed to."""


def run_apart(probes: Sequence[Probe], seconds: float) -> Iterator[Finding]:
    """Findings of probes, in their order.

    Args:
        probes: members of :data:`tadp_da.doctor.kernels.KERNELS`.
        seconds: time limit of one probe; the first of a process also imports torch.
    """
    # -P and our own path: the process must import what we import, not modules of the current folder
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    left = list(probes)
    while left:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tadp_da.doctor.isolated", str(seconds), *(p.name for p in left)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | _OFFLINE | {"PYTHONPATH": path},
            check=False,
        )
        for line in done.stdout.splitlines():
            left.pop(0)
            yield Finding(**json.loads(line))
        if left:
            probe = left.pop(0)
            says = _ending(done.returncode, done.stderr, seconds)
            yield Finding(name=probe.name, state="red", says=says, fix=probe.fix)


def _ending(code: int, stderr: str, seconds: float) -> str:
    if "\nTimeout (" in f"\n{stderr}":  # faulthandler's words
        return f"did not answer within {seconds:g} s"
    try:
        how = f"crashed the process with {signal.Signals(-code).name}"
    except ValueError:
        how = f"ended the process with exit code {code}"
    return ": ".join([how, *(line.strip() for line in stderr.strip().splitlines()[-1:])])


def main(seconds: float, names: Sequence[str]) -> None:
    """Run probes by name and print one JSON line each; whatever libraries print goes to standard error."""
    import logging
    import warnings

    from tadp_da.doctor.kernels import KERNELS

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    known = {probe.name: probe for probe in KERNELS}
    with os.fdopen(os.dup(1), "w") as wire:
        os.dup2(2, 1)
        for name in names:
            faulthandler.dump_traceback_later(seconds, exit=True)
            wire.write(json.dumps(known[name]().as_json()) + "\n")
            wire.flush()
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
