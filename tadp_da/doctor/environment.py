"""Probes that need no native code: versions, memory, folders, the hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tadp_da.doctor.finding import Finding, Probe, State
from tadp_da.installation import FIX, PACKAGES, foreign_packages

_GIB = 2**30
#: Asked of the metadata even when nothing requires them.
_OPTIONAL = ("bitsandbytes", "xformers", "faster-coco-eval")
_AGAIN = "in a fresh virtual environment: pip install -U tadp-da (in a checkout: pip install -e .)"


def _python() -> Finding:
    version = platform.python_version()
    facts = {"version": version, "platform": platform.platform(), "executable": sys.executable}
    says = f"{version} on {platform.system()} {platform.machine()}, {sys.executable}"
    return Finding(name="python", state="ok", says=says, facts=facts)


def _packages() -> Finding:
    """Versions of ours and of what we require, held against the requirement."""
    from packaging.requirements import Requirement

    from tadp_da.storage.artifacts import versions

    made = versions()
    facts: dict[str, str] = {"tadp-da": made["tadp-da"], "commit": made["commit"]}
    wrong: list[str] = []
    extras: list[str] = []
    for line in importlib.metadata.requires("tadp-da") or ():
        wanted = Requirement(line)
        optional = wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            if not optional:
                wrong.append(f"{wanted.name} is missing")
            continue
        if optional and wanted.name not in _OPTIONAL:
            continue
        facts[wanted.name] = version
        if not wanted.specifier.contains(version, prereleases=True):
            (extras if optional else wrong).append(f"{wanted.name} {version} is not {wanted.specifier}")
    named = ("tadp-da", "commit", "torch", "torchvision", "diffusers", "transformers", "peft", "accelerate")
    says = ", ".join(f"{name} {facts[name]}" for name in (*named, *_OPTIONAL) if name in facts)
    if wrong or extras:
        state: State = "red" if wrong else "warn"
        said = f"{'; '.join(dict.fromkeys(wrong + extras))} ({says})"
        return Finding(name="packages", state=state, says=said, fix=_AGAIN, facts=facts)
    return Finding(name="packages", state="ok", says=says, facts=facts)


def _own_packages() -> Finding:
    """Whether the top-level packages of the stages are this project's."""
    if found := foreign_packages():
        return Finding(name="own packages", state="red", says="; ".join(found), fix=FIX)
    return Finding(name="own packages", state="ok", says=f"{', '.join(PACKAGES)} are those of tadp-da")


def _memory() -> Finding:
    import psutil  # type: ignore[import-untyped]

    known = psutil.virtual_memory()
    free, total = known.available / _GIB, known.total / _GIB
    says, facts = f"{free:.1f} of {total:.1f} GiB free", {"free": known.available, "total": known.total}
    if free < 2:
        fix = "end other programs; a full-size model needs about 8 GiB to load"
        return Finding(name="memory", state="warn", says=says, fix=fix, facts=facts)
    return Finding(name="memory", state="ok", says=says, facts=facts)


def folder_probe(name: str, folder: Callable[[], Path], *, core: bool, room: float, fix: str) -> Probe:
    """A probe of a folder: can it be written, is there room.

    Args:
        name: what it is for.
        folder: tells it; it need not exist, then the nearest folder above it is tried.
        core: whether nothing works when it cannot be written.
        room: GiB below which it is worth a warning.
        fix: what to do when it cannot be written or is full.
    """
    return Probe(name=name, run=partial(_folder, name, folder, core, room, fix), core=core, fix=fix)


def _folder(name: str, folder: Callable[[], Path], core: bool, room: float, fix: str) -> Finding:
    place = folder().expanduser().absolute()
    there = next(p for p in (place, *place.parents) if p.exists())
    is_new = "" if there == place else ", not made yet"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"0")
    except OSError as error:
        says = f"{place}{is_new}: cannot be written ({error.strerror or type(error).__name__})"
        return Finding(name=name, state="red" if core else "warn", says=says, fix=fix)
    free = shutil.disk_usage(there).free
    says, facts = f"{place}{is_new}, {free / _GIB:.1f} GiB free", {"path": str(place), "free": free}
    if free < room * _GIB:
        state: State = "red" if core and free < _GIB / 4 else "warn"
        says += f"; expected at least {room:g} GiB for models of full size"
        return Finding(name=name, state=state, says=says, fix=fix, facts=facts)
    return Finding(name=name, state="ok", says=says, facts=facts)


def _hub() -> Finding:
    """Whether models may be fetched. Nothing is asked of the network."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = sorted(cache.glob("models--*")) if cache.is_dir() else []
    facts = {"offline": constants.is_offline_mode(), "models in the cache": len(models)}
    held = f"{len(models)} models in the cache"
    if facts["offline"]:
        return Finding(name="hub", state="ok", says=f"offline (HF_HUB_OFFLINE), {held}", facts=facts)
    says = f"online: a model given by a hub id is fetched on first use; {held}. HF_HUB_OFFLINE=1 forbids it"
    return Finding(name="hub", state="ok", says=says, facts=facts)


def _hub_kernels() -> Finding:
    from huggingface_hub import constants

    name = "hub kernels"
    if importlib.util.find_spec("kernels") is None:
        says = "package `kernels` is not installed, so no library fetches compiled code"
        return Finding(name=name, state="off", says=says)
    if constants.is_offline_mode():
        return Finding(name=name, state="ok", says="package `kernels` is installed, but the hub is offline")
    return Finding(
        name=name,
        state="warn",
        says="package `kernels` is installed: bitsandbytes may fetch compiled code from the hub when it is imported",
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
