"""Keeps two commands on the same thing apart. A lock goes with its process, however that ends; its file stays."""

from __future__ import annotations

import contextlib
import fcntl
import time
from typing import IO, TYPE_CHECKING

from devcluster.machine.errors import DevclusterError
from devcluster.machine.progress import note

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["exclusive"]

_PATIENCE_SECONDS = 45 * 60
"""Above the longest holder: a first build of everything."""
_POLL_SECONDS = 0.1


@contextlib.contextmanager
def exclusive(file: Path, what: str) -> Iterator[IO[str]]:
    """Hold a lock file while the block runs; who has to wait is told for what.

    The file is never removed: who waits on a removed one would hold it beside who makes it anew.

    Raises
    ------
    DevclusterError
        If another process holds it for 45 minutes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        waits = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DevclusterError(
                        f"another command is busy with {what} for more than {_PATIENCE_SECONDS // 60} min",
                        remedy=f"`fuser {file}` shows which",
                    ) from None
                if not waits:
                    note(f"  waiting for another command that is busy with {what}")
                waits = True
                time.sleep(_POLL_SECONDS)
        yield lock
