"""Logs: one JSON object a line on standard output, with the ids of what is being worked on.

`bound()` attaches ids to the current task; everything logged below it carries them. Messages are short fixed phrases,
facts are fields. Secrets are never passed to a logger; `redact` is the second line of defence. Our own lines do not go
through the standard library's records, which cost several times the line itself; other libraries' records do, and end
in the same place and form.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import orjson
from typing_extensions import override

__all__ = ["Logger", "bound", "configure_logging", "get_logger", "redact", "redacted"]

_SECRET_FIELD: Final = re.compile(r"password|secret|token|authorization|credential", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"(://[^:/@\s]{0,256}):[^@\s]{1,512}@")
"""Begins with fixed characters and is bounded: a long line without a URL must not cost its length squared."""
_BEARER: Final = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")
_NO_IDS: Final[Mapping[str, str]] = {}

_ids: Final[ContextVar[Mapping[str, str]]] = ContextVar("ids", default=_NO_IDS)


class _Threshold:
    """From which level on lines are written, for every logger of the process."""

    level = logging.INFO


@cache
def _is_secret(field: str) -> bool:
    """Return whether a field's name is a secret's; the names are written in the program, so there are few."""
    return _SECRET_FIELD.search(field) is not None


def redact(line: dict[str, Any]) -> dict[str, Any]:
    """Blank in place fields with a secret's name, and passwords or bearer tokens inside texts."""
    for key, value in line.items():
        if _is_secret(key):
            line[key] = "[redacted]"
        elif isinstance(value, str):
            line[key] = redacted(value)
    return line


def redacted(text: str) -> str:
    """Return a text without passwords in URLs and without bearer tokens; NULs, which Postgres refuses, replaced."""
    return _BEARER.sub(r"\1[redacted]", _URL_PASSWORD.sub(r"\1:[redacted]@", text)).replace(
        "\x00", "\N{REPLACEMENT CHARACTER}"
    )


class Logger:
    """The logger of a module. The names of `fields` are free, but for those every line has."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **fields: object) -> None:
        """Tell of a single call."""
        self._log(logging.DEBUG, "debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Tell of a transition."""
        self._log(logging.INFO, "info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Tell of what is odd and mends itself."""
        self._log(logging.WARNING, "warning", event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Tell of what a person must look at, with the traceback of `exc_info`."""
        if exc_info is not None:
            fields["exception"] = _traceback(exc_info)
        self._log(logging.ERROR, "error", event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """Tell of an error of ours, with the traceback of the exception that is being handled."""
        self.error(event, exc_info=sys.exception(), **fields)

    def _log(self, number: int, level: str, event: str, fields: dict[str, object]) -> None:
        if number >= _Threshold.level:
            _write(level, self._name, {"event": event, **_ids.get(), **fields})


class _Foreign(logging.Handler):
    """Writes the records of other libraries as lines of ours."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        line: dict[str, Any] = {"event": record.getMessage(), **_ids.get()}
        if record.exc_info is not None and record.exc_info[1] is not None:
            line["exception"] = _traceback(record.exc_info[1])
        _write(record.levelname.lower(), record.name, line)


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip("\n")


def _write(level: str, name: str, line: dict[str, Any]) -> None:
    line |= {"level": level, "logger": name, "ts": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
    try:
        text = orjson.dumps(redact(line), default=str).decode()
    except orjson.JSONEncodeError:
        # Half a character in what a cluster or a user wrote; the slower library escapes it.
        text = json.dumps(line, default=str)
    # A line that nobody can read any more is no reason to stop the work it tells of.
    with suppress(OSError, ValueError):
        # One call, so that lines of two threads never mix.
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def configure_logging(level: str) -> None:
    """Send every log line from this level on, the libraries' too, to standard output as JSON."""
    _Threshold.level = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [_Foreign()]
    root.setLevel(_Threshold.level)
    # aiohttp's own access lines repeat ours without the ids.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def get_logger(name: str) -> Logger:
    """Return the logger of a module."""
    return Logger(name)


@contextmanager
def bound(**ids: object) -> Iterator[None]:
    """Attach ids to every line logged by this task inside the block."""
    token = _ids.set({**_ids.get(), **{key: str(value) for key, value in ids.items()}})
    try:
        yield
    finally:
        _ids.reset(token)
