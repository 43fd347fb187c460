"""Results of probes, and the removal of secrets and home paths from them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tadp_da.errors import TadpError

State = Literal["ok", "warn", "red", "off"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one probe.

    Attributes:
        name: name of the probe, which sets it.
        state: ``"ok"`` works; ``"warn"`` works with a caveat; ``"red"`` is broken, or required and missing; ``"off"``
            is optional and absent, or not applicable to this machine.
        says: what was found, one line.
        fix: what to do about it, if anything.
        facts: numbers and names as JSON values, for programs that read the report.
    """

    name: str = ""
    state: State
    says: str
    fix: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The finding as JSON values, without secrets and home paths."""
        known: dict[str, Any] = clean(asdict(self))
        return known


def ok(says: str, facts: Mapping[str, Any] | None = None) -> Finding:
    """The finding of a probe that has nothing to complain about."""
    return Finding(state="ok", says=says, facts=facts or {})


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One thing to test.

    Attributes:
        name: what is tested.
        run: the test; an exception becomes a red finding.
        core: whether nothing works without it.
        fix: what to do if it raises an error without advice of its own.
    """

    name: str
    run: Callable[[], Finding]
    core: bool = False
    fix: str = ""

    def __call__(self) -> Finding:
        """The finding; never raises an ``Exception``."""
        try:
            return replace(self.run(), name=self.name)
        except TadpError as error:
            return Finding(name=self.name, state="red", says=error.what, fix=error.fix or self.fix)
        except Exception as error:  # a broken library may raise anything
            return Finding(name=self.name, state="red", says=in_a_line(error), fix=self.fix)


def in_a_line(error: BaseException) -> str:
    """Type and first line of an error and of its causes: loaders mention the missing file in the cause."""
    lines = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return f"{line} ({in_a_line(error.__cause__)})" if error.__cause__ is not None else line


_SECRET_NAME = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|COOKIE|API_?KEY|(?:^|_)(?:KEYS?|AUTH)(?:_|$)|_(?:PWD|PASS)(?:_|$)",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-|xox[abp]-|AKIA)[A-Za-z0-9_-]{8,}")
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_ANY_HOME = re.compile(r"(?:/home|/Users|[A-Za-z]:\\Users)[/\\][^/\\\s:'\"]+")
_SHORTEST_SECRET = 6


def clean(value: Any) -> Any:
    """JSON values without secrets and with home folders replaced by ``~``.

    Secrets are the values of environment variables whose names suggest one, text in the form of well-known tokens, and
    logins in URLs.
    """
    if isinstance(value, Mapping):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if not isinstance(value, str):
        return value
    for secret in _secrets():
        value = value.replace(secret, "***")
    value = _LOGIN.sub("***@", _SECRET_TEXT.sub("***", value))
    for home in _homes():
        value = re.sub(rf"{re.escape(home)}(?![\w-]|\.\w)", "~", value)
    return _ANY_HOME.sub("~", value)


def _secrets() -> list[str]:
    named = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    return sorted((v for v in named if len(v) >= _SHORTEST_SECRET), key=len, reverse=True)


def _homes() -> list[str]:
    homes = {os.path.expanduser("~"), *(os.environ.get(name, "") for name in ("HOME", "USERPROFILE"))}
    homes |= {os.path.realpath(home) for home in homes if home}
    known = (home.rstrip("/\\") for home in homes if Path(home).is_absolute())
    return sorted(filter(None, known), key=len, reverse=True)  # a home that is the root folder hides nothing
