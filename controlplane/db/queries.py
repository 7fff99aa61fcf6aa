"""Statements: static text from `sql/*.sql`, each with a header that is checked when it is loaded."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["Query", "all_queries", "query"]

_FOLDER: Final = Path(__file__).parent / "sql"
_HEADER_KEYS: Final = ("purpose", "rows", "caller", "index", "locks")
_HEADER_LINE: Final = re.compile(r"-- (\w+): (\S.*)")


@dataclass(frozen=True, slots=True)
class Query:
    """One statement."""

    name: str
    text: str
    header: dict[str, str]


@cache
def query(name: str) -> Query:
    """Return the statement in `sql/<name>.sql`.

    Raises
    ------
    ValueError
        The header lacks one of purpose, rows, caller, index, locks. FileNotFoundError for an unknown name.
    """
    text = (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    found = (_HEADER_LINE.fullmatch(line) for line in text.splitlines())
    header = {line[1]: line[2] for line in found if line is not None}
    missing = [key for key in _HEADER_KEYS if key not in header]
    if missing:
        message = f"sql/{name}.sql: the header lacks {', '.join(missing)}"
        raise ValueError(message)
    return Query(name, text, header)


def all_queries() -> tuple[Query, ...]:
    """Return every statement, by name."""
    return tuple(query(path.stem) for path in sorted(_FOLDER.glob("*.sql")))
