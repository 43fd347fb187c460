"""Probes without native code: versions, memory, folders, the hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tadp_da.doctor.finding import Finding, Probe, State
from tadp_da.installation import FIX, PACKAGES, foreign_packages

_GIB = 2**30
_OPTIONAL = ("bitsandbytes", "xformers", "faster-coco-eval")
"""Optional packages whose versions are reported."""
_AGAIN = "in a fresh virtual environment: pip install -U tadp-da (in a checkout: pip install -e .)"


def _python() -> Finding:
    version = platform.python_version()
    facts = {"version": version, "platform": platform.platform(), "executable": sys.executable}
    says = f"{version} on {platform.system()} {platform.machine()}, {sys.executable}"
    return Finding(state="ok", says=says, facts=facts)


def _packages() -> Finding:
    """Versions of this package and its requirements, compared with the required ones."""
    from packaging.requirements import Requirement

    from tadp_da.storage.artifacts import versions

    made = versions()
    facts: dict[str, str] = {"tadp-da": made["tadp-da"], "commit": made["commit"]}
    wrong: list[str] = []
    extras: list[str] = []
    for line in importlib.metadata.requires("tadp-da") or ():
        required = Requirement(line)
        optional = required.marker is not None and not required.marker.evaluate({"extra": ""})
        try:
            version = importlib.metadata.version(required.name)
        except importlib.metadata.PackageNotFoundError:
            if not optional:
                wrong.append(f"{required.name} is missing")
            continue
        if optional and required.name not in _OPTIONAL:
            continue
        facts[required.name] = version
        if not required.specifier.contains(version, prereleases=True):
            (extras if optional else wrong).append(f"{required.name} {version} is not {required.specifier}")
    named = ("tadp-da", "commit", "torch", "torchvision", "diffusers", "transformers", "peft", "accelerate")
    says = ", ".join(f"{name} {facts[name]}" for name in (*named, *_OPTIONAL) if name in facts)
    if wrong or extras:
        says = f"{'; '.join(dict.fromkeys(wrong + extras))} ({says})"
        return Finding(state="red" if wrong else "warn", says=says, fix=_AGAIN, facts=facts)
    return Finding(state="ok", says=says, facts=facts)


def _own_packages() -> Finding:
    """Whether the top-level packages of the stages are this project's."""
    if found := foreign_packages():
        return Finding(name="own packages", state="red", says="; ".join(found), fix=FIX)
    return Finding(name="own packages", state="ok", says=f"{', '.join(PACKAGES)} are those of tadp-da")


def _memory() -> Finding:
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    says = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free"
    facts = {"free": memory.available, "total": memory.total}
    if memory.available < 2 * _GIB:
        fix = "close other programs; a full-size model needs about 8 GiB to load"
        return Finding(state="warn", says=says, fix=fix, facts=facts)
    return Finding(state="ok", says=says, facts=facts)


def folder_probe(name: str, folder: Callable[[], Path], *, core: bool, room: float, fix: str) -> Probe:
    """A probe of a folder: whether it is writable and has free space.

    Args:
        name: purpose of the folder.
        folder: returns it; if it does not exist, the nearest existing parent is tested.
        core: whether nothing works if it is not writable.
        room: free space in GiB below which to warn.
        fix: what to do if it is not writable or full.
    """

    def run() -> Finding:
        place = folder().expanduser().absolute()
        there = next(p for p in (place, *place.parents) if p.exists())
        says = f"{place}" if there == place else f"{place}, not created yet"
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(b"0")
        except OSError as error:
            says += f": not writable ({error.strerror or type(error).__name__})"
            return Finding(state="red" if core else "warn", says=says, fix=fix)
        free = shutil.disk_usage(there).free
        says, facts = f"{says}, {free / _GIB:.1f} GiB free", {"path": str(place), "free": free}
        if free >= room * _GIB:
            return Finding(state="ok", says=says, facts=facts)
        says += f"; expected at least {room:g} GiB for full-size models"
        state: State = "red" if core and free < _GIB / 4 else "warn"
        return Finding(state=state, says=says, fix=fix, facts=facts)

    return Probe(name=name, run=run, core=core, fix=fix)


def _hub() -> Finding:
    """Whether models may be downloaded. The network is not used."""
    from huggingface_hub import constants

    models = len(list(_hub_cache().glob("models--*")))
    facts = {"offline": constants.is_offline_mode(), "models in the cache": models}
    says = f"offline (HF_HUB_OFFLINE), {models} models in the cache"
    if not facts["offline"]:
        says = (
            f"online: models are downloaded on first use; {models} in the cache. HF_HUB_OFFLINE=1 forbids it"
        )
    return Finding(state="ok", says=says, facts=facts)


def _hub_kernels() -> Finding:
    from huggingface_hub import constants

    if importlib.util.find_spec("kernels") is None:
        says = "package `kernels` is not installed, so no library downloads compiled code"
        return Finding(state="off", says=says)
    if constants.is_offline_mode():
        return Finding(state="ok", says="package `kernels` is installed, but the hub is offline")
    return Finding(
        state="warn",
        says="package `kernels` is installed: bitsandbytes may download compiled code from the hub when it is imported",
        fix="pip uninstall kernels, or set HF_HUB_OFFLINE=1",
    )


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def places(out: Path, data: Path) -> tuple[Probe, ...]:
    """The probes of this module, for a run that writes to ``out`` and reads from ``data``."""
    writable = "choose another with {}, or free space on its disk"
    return (
        Probe(name="python", run=_python),
        Probe(name="packages", run=_packages, core=True, fix=_AGAIN),
        Probe(name="own packages", run=_own_packages, core=True, fix=FIX),
        Probe(name="memory", run=_memory),
        folder_probe("runs", lambda: out, core=True, room=10, fix=writable.format("--out")),
        folder_probe("data", lambda: data, core=False, room=1, fix="only the drawn world is written there; "
                     + writable.format("--data")),
        folder_probe("temporary files", lambda: Path(tempfile.gettempdir()), core=False, room=0.5,
                     fix=writable.format("TMPDIR")),
        folder_probe("hub cache", _hub_cache, core=False, room=20, fix=writable.format("HF_HOME")),
        Probe(name="hub", run=_hub),
        Probe(name="hub kernels", run=_hub_kernels),
    )  # fmt: skip


def installed() -> list[str]:
    """Every installed distribution, ``name==version``, sorted; neither paths nor addresses."""
    known = {
        (re.sub(r"[-_.]+", "-", str(found.metadata["Name"])).lower(), found.version)
        for found in importlib.metadata.distributions()
        if found.metadata["Name"]
    }
    return [f"{name}=={version}" for name, version in sorted(known)]
