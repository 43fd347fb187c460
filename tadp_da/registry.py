"""Plug-ins by name: a file in a folder, a decorator in the file.

Files whose name starts with ``_`` are shared helpers, not plug-ins.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tadp_da.errors import UsageError

T = TypeVar("T")


def nearest(name: object, known: list[str]) -> str:
    """``", did you mean 'x'?"`` for the nearest known name, or an empty string. In a file a name may be anything."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


class Registry(Generic[T]):
    """Names of one kind of thing, filled by importing every module of ``package`` on first use.

    Args:
        kind: what the entries are, for messages, e.g. ``"caption strategy"``.
        package: dotted name of the folder that holds the plug-ins.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._entries: dict[str, T] = {}
        self._scanned = False

    def add(self, name: str) -> Callable[[T], T]:
        """Decorator that registers ``name``; a name taken twice is refused with both places."""

        def register(entry: T) -> T:
            if name in self._entries:
                raise UsageError(
                    f"two entries are named {name!r}: {self._entries[name]!r} and {entry!r}",
                    where=self.package,
                    fix=f"rename one {self.kind}",
                )
            self._entries[name] = entry
            return entry

        return register

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True  # set first: a plug-in may look the registry up while it loads
        folder = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(folder.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")

    def __getitem__(self, name: str) -> T:
        self._scan()
        try:
            return self._entries[name]
        except (KeyError, TypeError):  # a list has no hash
            hint = nearest(name, list(self._entries))
            raise UsageError(
                f"unknown {self.kind} {name!r}{hint}",
                fix=f"choose one of: {', '.join(sorted(self._entries))}",
            ) from None

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._entries

    def __len__(self) -> int:
        self._scan()
        return len(self._entries)
