"""Errors a person can act on: what was found, where, and what to do. The exit codes are a published
contract."""

from __future__ import annotations


class TadpError(Exception):
    """Base of every error that is the user's to mend.

    Args:
        what: what was found, with the offending value, and what was expected.
        where: the file, key or index it was found at.
        fix: what to do about it; an imperative sentence.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: object = None, fix: str = "") -> None:
        self.what, self.where, self.fix = what, None if where is None else str(where), fix
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """At most three lines: what, where, how to fix."""
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return lines


class UsageError(TadpError):
    """A setting, recipe or command that makes no sense (exit 2)."""

    exit_code = 2


class DataError(TadpError):
    """An image, label, caption or split that cannot be used (exit 3)."""

    exit_code = 3


class EnvironmentSetupError(TadpError):
    """A missing package, device, model or disk space (exit 4)."""

    exit_code = 4


class DivergedError(TadpError):
    """Training that stopped making sense: a loss that is not finite, parameters that never move (exit 5)."""

    exit_code = 5


class ArtifactError(TadpError):
    """An artifact that is corrupt, untrusted or made from something else (exit 6)."""

    exit_code = 6


class InterruptedRunError(TadpError):
    """Stopped by a signal after saving a checkpoint; safe to run again (exit 75)."""

    exit_code = 75
