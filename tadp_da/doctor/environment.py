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

from tadp_da.doctor.finding import Finding, Probe, State, ok
from tadp_da.installation import FIX, PACKAGES, foreign_packages

_GIB = 2**30
_OPTIONAL = ("bitsandbytes", "xformers", "faster-coco-eval")
"""Optional packages whose versions are reported."""
_NAMED = (
    "tadp-da",
    "commit",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    *_OPTIONAL,
)
_AGAIN = "in a fresh virtual environment: pip install -U tadp-da (in a checkout: pip install -e .)"


def _python() -> Finding:
    version = platform.python_version()
    facts = {"version": version, "platform": platform.platform(), "executable": sys.executable}
    return ok(f"{version} on {platform.system()} {platform.machine()}, {sys.executable}", facts)


def _packages() -> Finding:
    """Versions of this package and its requirements, compared with the required ones."""
    from packaging.requirements import Requirement

    from tadp_da.storage.artifacts import versions

    facts = {name: versions()[name] for name in ("tadp-da", "commit")}
    wrong: list[str] = []
    extras: list[str] = []
    for required in map(Requirement, importlib.metadata.requires("tadp-da") or ()):
        optional = required.marker is not None and not required.marker.evaluate({"extra": ""})
        try:
            version = importlib.metadata.version(required.name)
        except importlib.metadata.PackageNotFoundError:
            wrong += [] if optional else [f"{required.name} is missing"]
            continue
        if optional and required.name not in _OPTIONAL:
            continue
        facts[required.name] = version
        if not required.specifier.contains(version, prereleases=True):
            (extras if optional else wrong).append(f"{required.name} {version} is not {required.specifier}")
    says = ", ".join(f"{name} {facts[name]}" for name in _NAMED if name in facts)
    if wrong or extras:
        says = f"{'; '.join(dict.fromkeys(wrong + extras))} ({says})"
        return Finding(state="red" if wrong else "warn", says=says, fix=_AGAIN, facts=facts)
    return ok(says, facts)


def _own_packages() -> Finding:
    """Whether the top-level packages of the stages are this project's."""
    if found := foreign_packages():
        return Finding(state="red", says="; ".join(found), fix=FIX)
    return ok(f"{', '.join(PACKAGES)} are those of tadp-da")


def _memory() -> Finding:
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    low = memory.available < 2 * _GIB
    return Finding(
        state="warn" if low else "ok",
        says=f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free",
        fix="close other programs; a full-size model needs about 8 GiB to load" if low else "",
        facts={"free": memory.available, "total": memory.total},
    )


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
        path = folder().expanduser().absolute()
        existing = next(p for p in (path, *path.parents) if p.exists())
        says = f"{path}" if existing == path else f"{path}, not created yet"
        try:
            with tempfile.TemporaryFile(dir=existing) as file:
                file.write(b"0")
        except OSError as error:
            says += f": not writable ({error.strerror or type(error).__name__})"
            return Finding(state="red" if core else "warn", says=says, fix=fix)
        free = shutil.disk_usage(existing).free
        says, facts = f"{says}, {free / _GIB:.1f} GiB free", {"path": str(path), "free": free}
        if free >= room * _GIB:
            return ok(says, facts)
        says += f"; expected at least {room:g} GiB for full-size models"
        state: State = "red" if core and free < _GIB / 4 else "warn"
        return Finding(state=state, says=says, fix=fix, facts=facts)

    return Probe(name=name, run=run, core=core, fix=fix)


def _hub() -> Finding:
    """Whether models may be downloaded. The network is not used."""
    from huggingface_hub import constants

    models, offline = len(list(_hub_cache().glob("models--*"))), constants.is_offline_mode()
    says = f"online: models are downloaded on first use; {models} in the cache. HF_HUB_OFFLINE=1 forbids it"
    if offline:
        says = f"offline (HF_HUB_OFFLINE), {models} models in the cache"
    return ok(says, {"offline": offline, "models in the cache": models})


def _hub_kernels() -> Finding:
    from huggingface_hub import constants

    if importlib.util.find_spec("kernels") is None:
        says = "package `kernels` is not installed, so no library downloads compiled code"
        return Finding(state="off", says=says)
    if constants.is_offline_mode():
        return ok("package `kernels` is installed, but the hub is offline")
    return Finding(
        state="warn",
        says="package `kernels` is installed: bitsandbytes may download compiled code from the hub when it is imported",
        fix="pip uninstall kernels, or set HF_HUB_OFFLINE=1",
    )


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def environment_probes(out: Path, data: Path) -> tuple[Probe, ...]:
    """The probes of this module, for a run that writes to ``out`` and reads from ``data``."""
    other = "choose another with {}, or free space on its disk"
    drawn = f"only the drawn world is written there; {other.format('--data')}"
    return (
        Probe(name="python", run=_python),
        Probe(name="packages", run=_packages, core=True, fix=_AGAIN),
        Probe(name="own packages", run=_own_packages, core=True, fix=FIX),
        Probe(name="memory", run=_memory),
        folder_probe("runs", lambda: out, core=True, room=10, fix=other.format("--out")),
        folder_probe("data", lambda: data, core=False, room=1, fix=drawn),
        folder_probe("temporary files", lambda: Path(tempfile.gettempdir()), core=False, room=0.5,
                     fix=other.format("TMPDIR")),
        folder_probe("hub cache", _hub_cache, core=False, room=20, fix=other.format("HF_HOME")),
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
