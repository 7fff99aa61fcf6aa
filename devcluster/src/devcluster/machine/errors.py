"""The one exception of this package: a sentence for a person, the cause's log, and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DevclusterError", "WrongUsageError", "log_tail"]

_TAIL_LINES = 15
"""Enough to hold a Go panic's head or a component's last complaints, short enough to read at night."""
_TAIL_BYTES = 64 * 1024
_LINE_CHARACTERS = 400
"""One line may hold a whole traceback as JSON; its beginning says what it is."""


class DevclusterError(Exception):
    """Something the person must know, with the next step.

    Parameters
    ----------
    message
        What failed, and why.
    remedy
        What to do next: a command where there is one.
    log
        The failing component's log; its last lines are shown.
    """

    def __init__(self, message: str, *, remedy: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.log = log

    def render(self) -> str:
        """Return the whole report: message, last log lines with the log's path, remedy."""
        parts = [self.message]
        if self.log is not None:
            tail = log_tail(self.log)
            if tail:
                parts += [f"last lines of {self.log}:", *(f"  | {line}" for line in tail)]
            else:
                parts.append(f"its log {self.log} is empty")
        if self.remedy:
            parts.append(f"next step: {self.remedy}")
        return "\n".join(parts)


class WrongUsageError(DevclusterError):
    """The command cannot be done as it was asked; the command line answers with exit code 2."""


def log_tail(log: Path, lines: int = _TAIL_LINES) -> list[str]:
    """Return the last lines of a log; an absent log has none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
            return [_shortened(line) for line in text.splitlines()[-lines:]]
    except FileNotFoundError:
        return []


def _shortened(line: str) -> str:
    return line if len(line) <= _LINE_CHARACTERS else line[:_LINE_CHARACTERS] + " …"
