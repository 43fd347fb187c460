"""Commands for the cache of latents, embeddings and captions."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from tadp_da.cli.options import out
from tadp_da.errors import ArtifactError, DataError, EnvironmentSetupError, UsageError
from tadp_da.terminal import print_json

if TYPE_CHECKING:
    from tadp_da.storage.cache import Cache

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def cache_ls(as_json: AsJson = False) -> None:
    """List the content of the cache: number of entries of each kind, their size, and when they were last used.

    Example: `TADP_DA_CACHE=/scratch/me tadp-da cache ls`
    """
    cache = _cache()
    kinds: dict[str, list[Any]] = defaultdict(list)
    for entry in cache.entries():
        kinds[entry.kind].append(entry)
    rows: dict[str, dict[str, Any]] = {}
    for kind, found in sorted(kinds.items()):
        used = [entry.used for entry in found]
        size = sum(entry.size for entry in found)
        rows[kind] = {"entries": len(found), "bytes": size, "oldest": min(used), "newest": max(used)}
    if as_json:
        print_json({"folder": str(cache.folder), "limit": cache.limit, "kinds": rows})
        return
    right = [Column(name, justify="right") for name in ("entries", "size")]
    table = Table("kind", *right, "last used", box=None, header_style="bold")
    for kind, row in rows.items():
        span = f"{_ago(row['newest'])} to {_ago(row['oldest'])}"
        table.add_row(kind, str(row["entries"]), _human(row["bytes"]), span)
    if rows:
        out.print(table)
    total = sum(row["bytes"] for row in rows.values())
    out.print(f"{_human(total)} of at most {_human(cache.limit)} in {cache.folder}")


def cache_verify(
    remove: Annotated[
        bool, typer.Option(help="Remove damaged entries; they are created again when needed.")
    ] = False,
) -> None:
    """Compare every entry with its hash. Exit code 6 if one is damaged and stays.

    Example: `tadp-da cache verify --remove`
    """
    from tadp_da.storage.cache_file import read

    checked, damaged = 0, 0
    for entry in _cache().entries():
        checked += 1
        try:
            read(entry.path)
        except FileNotFoundError:  # another process prunes
            continue
        except (OSError, ValueError) as error:
            damaged += 1
            out.print(f"damaged: {entry.path}: {error}")
            if remove:
                entry.path.unlink(missing_ok=True)
    out.print(f"{checked} entries, {damaged} damaged{' and removed' if damaged and remove else ''}")
    if damaged and not remove:
        out.print("  fix:   tadp-da cache verify --remove; a run that needs a damaged entry also replaces it")
        raise typer.Exit(ArtifactError.exit_code)


def cache_prune(
    to: Annotated[
        str, typer.Option(help="Size to keep, such as 10GB; 0 for nothing. By default the limit.")
    ] = "",
) -> None:
    """Remove the least recently used entries, and files left by killed processes.

    Runs do the same when the cache exceeds its limit: TADP_DA_CACHE_LIMIT, 20GB by default.

    Example: `tadp-da cache prune --to 10GB`
    """
    from tadp_da.storage.cache import size_of

    cache = _cache()
    count, size = cache.prune(size_of(to, "--to") if to else cache.limit)
    out.print(f"{count} entries removed, {_human(size)}")


def cache_why(
    file: Annotated[str, typer.Argument(help="An image; with --text, a prompt.")],
    text: Annotated[bool, typer.Option("--text", help="Ask about a prompt instead of a file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Explain why an image (or prompt) was encoded again: what its entries depend on, and how each differs from the
    nearest older one.

    Example: `tadp-da cache why day/images/0001.png`
    """
    from tadp_da.storage.cache_file import why
    from tadp_da.storage.files import file_digest

    path = None if text else Path(file)
    if path is not None and not path.is_file():
        raise DataError("there is no such file", where=path, fix="give an image; for a prompt add --text")
    answers = why(_cache().entries(), source=path, prompt=file if text else None)
    content = None if path is None else file_digest(path)
    if as_json:
        entries = [vars(answer) | {"entry": str(answer.entry)} for answer in answers]
        print_json({"file": file, "content": content, "entries": entries})
        return
    if not answers:
        out.print("it has no entry; the next run that needs it creates one")
        return
    for answer in answers:
        size = f", {'x'.join(map(str, answer.facts['size']))}" if "size" in answer.facts else ""
        out.print(f"{answer.kind}{size}, created {answer.made}: {answer.entry.name}")
        reason = f"it differs from the one of {answer.instead}:" if answer.instead else "there was none"
        out.print(f"  created because {reason}")
        for name, (old, new) in answer.changed.items():
            out.print(f"    {name}: {old} there, {new} here")
    if content is not None and all(answer.facts.get("image") != content for answer in answers):
        out.print("the file has changed since; the next run that needs it creates a new entry")


def _cache() -> Cache:
    """The cache that runs use.

    Raises:
        UsageError: if it is off.
        EnvironmentSetupError: if its folder cannot be used.
    """
    from tadp_da.storage.cache import Cache, folder_problem, limit, location

    folder = location()
    if folder is None:
        raise UsageError("the cache is off", where="TADP_DA_CACHE", fix="unset it, or set it to a folder")
    if problem := folder_problem(folder):
        raise EnvironmentSetupError(
            f"the cache cannot be used: {problem}",
            where=folder,
            fix="set TADP_DA_CACHE to a folder of your own (chmod 700), or to off",
        )
    return Cache(folder, limit())


def _human(size: int) -> str:
    from pydantic import ByteSize

    return ByteSize(size).human_readable(decimal=True)


def _ago(when: float) -> str:
    seconds = max(0, time.time() - when)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
