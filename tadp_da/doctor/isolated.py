"""Probes of native code run in a process of their own: a crash or a hang becomes a red finding, and another process
continues with the rest. ``python -m tadp_da.doctor.isolated NAME...`` is that process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence

from tadp_da.doctor.finding import Finding, Probe

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Nothing that a probe imports may use the network: bitsandbytes downloads a kernel if it is allowed to."""


def run_apart(probes: Sequence[Probe], seconds: float) -> Iterator[Finding]:
    """Findings of probes, in their order.

    Args:
        probes: members of :data:`tadp_da.doctor.kernels.KERNELS`.
        seconds: time limit of one probe; the first of a process also imports torch.
    """
    left = list(probes)
    while left:
        ending = yield from _answers(left, seconds)
        if left:
            probe = left.pop(0)
            yield Finding(name=probe.name, state="red", says=ending, fix=probe.fix)


def _answers(left: list[Probe], seconds: float) -> Generator[Finding, None, str]:
    """Findings of one process; removes probes from ``left`` as they answer, and returns how the process ended."""
    # -P and our own path: the process must import what we import, not modules of the current folder
    command = [sys.executable, "-P", "-m", "tadp_da.doctor.isolated", *(probe.name for probe in left)]
    path = os.pathsep.join(place or os.getcwd() for place in sys.path)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ | _OFFLINE | {"PYTHONPATH": path},
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        last: deque[str] = deque(maxlen=1)  # in memory: a full disk is one of the problems to report
        lines = filter(None, map(str.strip, child.stderr))
        listener = threading.Thread(target=last.extend, args=(lines,), daemon=True)
        listener.start()
        late = threading.Event()
        timer = _start_timer(child, seconds, late)
        try:
            for line in child.stdout:
                timer.cancel()
                left.pop(0)
                yield Finding(**json.loads(line))
                timer = _start_timer(child, seconds, late)
            code = child.wait()
        finally:
            timer.cancel()
            child.kill()
            listener.join(timeout=5)
        return f"did not answer within {seconds:g} s" if late.is_set() else _ending(code, "".join(last))


def _start_timer(child: subprocess.Popen[str], seconds: float, late: threading.Event) -> threading.Timer:
    def stop() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    return timer


def _ending(code: int, last: str) -> str:
    try:
        how = f"crashed the process with {signal.Signals(-code).name}"
    except ValueError:
        how = f"ended the process with exit code {code}"
    return f"{how}: {last}" if last else how


def main(names: Sequence[str]) -> None:
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
            wire.write(json.dumps(known[name]().as_json()) + "\n")
            wire.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
