"""Logs: one JSON object a line on standard output, with the ids of what is being worked on.

`bound()` attaches ids to the current task; everything logged below it carries them. Messages are short fixed phrases,
facts are fields. Secrets are never passed to a logger; `redact` is the second line of defence.
"""

import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import orjson
import structlog

__all__ = ["bound", "configure_logging", "get_logger", "redact", "redacted"]

_SECRET_FIELD: Final = re.compile(r"password|secret|token|authorization|credential", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"(://[^:/@\s]{0,256}):[^@\s]{1,512}@")
"""Begins with fixed characters and is bounded: a long line without a URL must not cost its length squared."""
_BEARER: Final = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank fields with a secret's name, and passwords or bearer tokens inside texts (a structlog processor)."""
    for key, value in event.items():
        if _SECRET_FIELD.search(key):
            event[key] = "[redacted]"
        elif isinstance(value, str):
            event[key] = redacted(value)
    return event


def redacted(text: str) -> str:
    """Return a text without passwords in URLs and without bearer tokens; NULs, which Postgres refuses, replaced."""
    return _BEARER.sub(r"\1[redacted]", _URL_PASSWORD.sub(r"\1:[redacted]@", text)).replace(
        "\x00", "\N{REPLACEMENT CHARACTER}"
    )


def _serialise(event: MutableMapping[str, Any], **_options: object) -> str:
    return orjson.dumps(event, default=str).decode()


def configure_logging(level: str) -> None:
    """Send every log line, the libraries' too, to standard output as JSON."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Decides by the level before anything is put together.
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_serialise),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # aiohttp's own access lines repeat ours without the ids.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def bound(**ids: object) -> Iterator[None]:
    """Attach ids to every line logged by this task inside the block."""
    with structlog.contextvars.bound_contextvars(**{key: str(value) for key, value in ids.items()}):
        yield
