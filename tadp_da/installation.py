"""Whether ``adapt``, ``personalize`` and ``benchmarks`` are this project's own.

``adapt`` is also the import name of a domain adaptation toolbox on the package index, and ``benchmarks`` is a name that
many projects use. pip merges folders of one name without a word, and the package that is found first on ``sys.path``
hides the other. :func:`foreign_packages` finds both by looking at paths; it imports no package.

Runs whenever ``tadp_da`` is imported, so it uses the standard library only and takes well under a millisecond.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings

#: Top-level packages of the project besides ``tadp_da`` itself.
PACKAGES = ("personalize", "adapt", "benchmarks")
#: What to do about a package that is not ours.
FIX = (
    "install tadp-da in an environment of its own: python -m venv tadp-env && "
    "tadp-env/bin/pip install tadp-da (in a checkout: tadp-env/bin/pip install -e .)"
)
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def foreign_packages() -> tuple[str, ...]:
    """One sentence for each of :data:`PACKAGES` that is missing, is another project's, or is mixed with one."""
    recorded = _record()
    found = (_displaced(name) or _mixed(name, recorded) for name in PACKAGES)
    return tuple(sentence for sentence in found if sentence)


def require_own_packages() -> None:
    """Refuse to run on another project's packages.

    Raises:
        EnvironmentSetupError: naming the packages, where they are, and who installed them.
    """
    if found := foreign_packages():
        from tadp_da.errors import EnvironmentSetupError

        raise EnvironmentSetupError("; ".join(found), where=_ROOT, fix=FIX)


def warn_about_foreign_packages() -> None:
    """The same as a ``RuntimeWarning``, for ``import tadp_da``: code that needs no stage keeps working."""
    if found := foreign_packages():
        warnings.warn(f"{'; '.join(found)}. Fix: {FIX}", RuntimeWarning, stacklevel=3)


def _displaced(name: str) -> str:
    """What is wrong with where ``import name`` finds its package, or an empty string."""
    own = os.path.join(_ROOT, name)
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec is not None else None
    if origin is None:
        return f"package {name!r} has no __init__.py; it belongs to tadp_da and should be in {own}"
    if os.path.realpath(origin) == os.path.realpath(os.path.join(own, "__init__.py")):
        return ""
    return f"package {name!r} is {origin}, which is not part of tadp_da{_installed_by(name, ())}"


def _mixed(name: str, recorded: dict[str, int]) -> str:
    """What another project wrote into a folder of an installed tadp_da, or an empty string.

    Only what lies directly in the folder is looked at: plug-ins that a user adds are in its sub-folders. A file that no
    other distribution claims is the user's own.
    """
    ours = {path.split("/")[1] for path in recorded if path.startswith(f"{name}/")}
    if not ours:  # a checkout, or an editable installation: pip writes nothing there
        return ""
    folder = os.path.join(_ROOT, name)
    init = f"{name}/__init__.py"
    if init in recorded and os.stat(os.path.join(_ROOT, init)).st_size != recorded[init]:
        return f"{init} is not the file that tadp_da installed{_installed_by(name, ours)}"
    strange = sorted(set(os.listdir(folder)) - ours - {"__pycache__"})
    if strange and (owner := _installed_by(name, ours)):
        return f"package {name!r} is mixed with another project's files ({', '.join(strange[:3])}){owner}"
    return ""


def _record() -> dict[str, int]:
    """Size in bytes of each file of the stages that the ``RECORD`` of a regular installation lists."""
    try:
        beside = [name for name in os.listdir(_ROOT) if name.startswith("tadp_da-")]
        (folder,) = [name for name in beside if name.endswith(".dist-info")]
        with open(os.path.join(_ROOT, folder, "RECORD"), encoding="utf-8") as file:
            rows = [line.rstrip("\n").rsplit(",", 2) for line in file if line.startswith(PACKAGES)]
    except (OSError, ValueError):  # a checkout or an editable installation
        return {}
    return {path: int(size) for path, _, size in rows if size.isdigit()}


def _installed_by(name: str, ours: set[str] | tuple[()]) -> str:
    """``": installed by x 1.0"`` for the distributions that claim other files in a package, or an empty string."""
    import importlib.metadata

    owners = set()
    for known in importlib.metadata.distributions():
        title = str(known.metadata["Name"])
        if title.lower().replace("_", "-") == "tadp-da":
            continue
        parts = [path.parts for path in known.files or () if path.parts[0] == name]
        if any(len(part) > 1 and (part[1] not in ours or part[1] == "__init__.py") for part in parts):
            owners.add(f"{title} {known.version}")
    return f": installed by {', '.join(sorted(owners))}" if owners else ""
