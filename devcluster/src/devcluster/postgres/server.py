"""A private Postgres for development: one per name, beside the cluster of that name and not part of it.

It outlives the cluster's ``down``, so that a fresh cluster finds the rows again, and goes with its own. It listens on
127.0.0.1 with a password and on a socket only its OS user may open; pods reach it through the cluster's forwarder,
which asks ``port``. Not for production: no backups, no TLS, and the superuser is in the URL.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devcluster.machine import processes
from devcluster.machine.cgroups import Cgroup
from devcluster.machine.errors import DevclusterError
from devcluster.machine.locks import exclusive
from devcluster.machine.paths import check_name, state_root, write_private
from devcluster.machine.ports import is_free
from devcluster.machine.progress import step
from devcluster.postgres.binaries import find_binaries, initdb, os_user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.postgres.binaries import Binaries

__all__ = ["PostgresAddress", "PostgresStatus", "down", "names", "port", "status", "up", "url"]

_PROCESS = "postgres"
_OWNER = "storeplane"
_HOST = "127.0.0.1"
_FIRST_PORT = 15432
_PORTS = 200
"""Ports are tried upwards from the first: predictable for a person, and below the kernel's ephemeral range."""
_SOCKET_PATH_BYTES = 90
"""A socket's whole path fits 107 bytes; Postgres adds its file's name to the folder's."""
_START_SECONDS = 60.0
"""A start takes 0.1 s; recovery after a crash reads up to 1 GB of its journal first."""
_STOP_SECONDS = 20.0
_ANSWER_SECONDS = 2.0
_ATTEMPTS = 4
_AGAIN_SECONDS = 0.3
_POLL_SECONDS = 0.02
_READY_LINE = 8
"""The line of postmaster.pid that says ``ready`` once connections are accepted."""


@dataclass(frozen=True)
class PostgresAddress:
    """How to reach one server as its superuser."""

    port: int
    password: str = field(repr=False)
    host: str = _HOST
    user: str = _OWNER
    database: str = _OWNER

    @property
    def url(self) -> str:
        """``postgresql://user:password@host:port/database``; no part needs escaping."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True)
class PostgresStatus:
    """What is known about one server without starting anything."""

    exists: bool
    """Whether it was ever brought up and not taken down with its data."""
    running: bool
    """Whether it answers."""
    port: int | None
    pid: int | None


@dataclass(frozen=True)
class _Home:
    """The folder of one server. Its parent is the state folder, so it survives a cluster's end."""

    name: str

    @property
    def folder(self) -> Path:
        return state_root() / f"postgres-{self.name}"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def log(self) -> Path:
        return self.logs / f"{_PROCESS}.log"

    @property
    def private(self) -> Path:
        """Belongs to the server's OS user; nobody else but root may enter."""
        return self.folder / "private"

    @property
    def data(self) -> Path:
        return self.private / "data"

    @property
    def socket(self) -> Path:
        return self.private / "socket"

    @property
    def settings(self) -> Path:
        """Port and password, readable by the owner of the folder alone."""
        return self.folder / "settings.json"

    @property
    def cgroup(self) -> Cgroup:
        return Cgroup(f"postgres-{self.name}")


def up(name: str) -> PostgresAddress:
    """Bring the server up if it does not answer, whatever state a crash left it in, and return its address.

    Raises
    ------
    DevclusterError
        If no usable programs are installed, or the server does not answer in time; its log is shown.
    """
    home = _Home(check_name(name))
    if len(os.fsencode(home.socket)) > _SOCKET_PATH_BYTES:
        raise DevclusterError(
            f"{home.socket} is too long for a socket's path", remedy="choose a shorter DEVCLUSTER_HOME"
        )
    with _locked(home):
        address = _address(home) or _choose_address(home)
        if _answers(home, address):
            return address
        with step(f"start Postgres {name}"):
            _start(home, address)
    return address


def down(name: str, *, keep_data: bool = False) -> None:
    """Stop the server at once, dropping its connections, and remove its folder; absent is fine.

    Parameters
    ----------
    keep_data
        Keep rows, port and password for the next ``up``.
    """
    home = _Home(check_name(name))
    if not home.folder.exists():
        return
    with _locked(home):
        _stop(home)
        if keep_data:
            shutil.rmtree(home.run, ignore_errors=True)
        else:
            shutil.rmtree(home.folder)


def url(name: str) -> PostgresAddress:
    """Return the address of a server that was brought up before, running or not.

    Raises
    ------
    DevclusterError
        If there is none of that name.
    """
    address = _address(_Home(check_name(name)))
    if address is None:
        raise DevclusterError(
            f"there is no Postgres named {name}", remedy=f"make one: `devcluster postgres up --name {name}`"
        )
    return address


def port(name: str) -> int:
    """Return the port on 127.0.0.1; raises like ``url``."""
    return url(name).port


def status(name: str) -> PostgresStatus:
    """Return what there is and whether it answers; starts nothing."""
    home = _Home(check_name(name))
    address = _address(home)
    return PostgresStatus(
        exists=address is not None,
        running=address is not None and _answers(home, address),
        port=address.port if address else None,
        pid=processes.running_pid(_PROCESS, run=home.run),
    )


def names() -> list[str]:
    """Return the names of all servers on this machine, running or not."""
    return sorted(each.parent.name.removeprefix("postgres-") for each in state_root().glob("postgres-*/settings.json"))


@contextlib.contextmanager
def _locked(home: _Home) -> Iterator[None]:
    """Let one command at a time change a server."""
    with exclusive(home.folder.parent / f".postgres-{home.name}.lock", f"Postgres {home.name}"):
        # A `down` that held the lock before us may have removed the folder.
        home.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        yield


def _address(home: _Home) -> PostgresAddress | None:
    try:
        settings = json.loads(home.settings.read_text())
        return PostgresAddress(port=int(settings["port"]), password=str(settings["password"]))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise DevclusterError(f"{home.settings} belongs to another user", remedy="run as that user") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DevclusterError(
            f"{home.settings} is damaged: {error}", remedy=f"begin anew: `devcluster postgres down --name {home.name}`"
        ) from error


def _choose_address(home: _Home) -> PostgresAddress:
    """Choose port and password once; both stay for the server's life, so a URL in a shell stays right."""
    # Servers that are down now still own their ports.
    taken = {address.port for each in names() if (address := _address(_Home(each)))}
    free = next(
        (each for each in range(_FIRST_PORT, _FIRST_PORT + _PORTS) if each not in taken and is_free(each)), None
    )
    if free is None:
        raise DevclusterError(f"no free port from {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1}")
    address = PostgresAddress(port=free, password=secrets.token_hex(16))
    write_private(home.settings, json.dumps({"port": address.port, "password": address.password}))
    return address


def _start(home: _Home, address: PostgresAddress) -> None:
    user = os_user()
    made_by = home.data / "PG_VERSION"
    binaries = find_binaries(int(made_by.read_text()) if made_by.exists() else None)
    for folder in (home.private, home.socket):
        folder.mkdir(exist_ok=True, mode=0o700)
        if user is not None:
            shutil.chown(folder, user, user)
    if not home.data.exists():
        initdb(binaries, home.data, owner=_OWNER, password=address.password, user=user)
    _launch(home, _spec(home, address, binaries, user), address)


def _bury(home: _Home) -> None:
    """Clear away what a killed server left: its children, and the files in which its pid would stop the next start."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Killed while its starter still lives, it is our unreaped child, and its pid looks taken.
        os.waitpid(int((home.data / "postmaster.pid").read_text().splitlines()[0]), os.WNOHANG)
    if os.geteuid() == 0:
        # The children can outlive it for a moment and hold its shared memory.
        home.cgroup.kill()
        # Only now is it sure that nothing serves this folder, so a recycled pid in these files means nothing.
        (home.data / "postmaster.pid").unlink(missing_ok=True)
        for leftover in home.socket.iterdir():
            leftover.unlink()


def _spec(home: _Home, address: PostgresAddress, binaries: Binaries, user: str | None) -> processes.ProcessSpec:
    server = [
        *(str(binaries.postgres), "-D", str(home.data), "-k", str(home.socket)),
        *("-c", f"listen_addresses={_HOST}", "-c", f"port={address.port}"),
        *("-c", "unix_socket_permissions=0700", "-c", "logging_collector=off", "-c", "timezone=UTC"),
    ]
    return processes.ProcessSpec(name=_PROCESS, argv=server, environment={"LC_ALL": "C"}, user=user)


def _launch(home: _Home, spec: processes.ProcessSpec, address: PostgresAddress) -> None:
    """Start the server and wait until it answers.

    Without a cgroup the children of a killed server can only be waited for: a start beside them is refused, and tried
    again. A start that fails for another reason fails again at once and is reported.
    """
    cgroup = home.cgroup if os.geteuid() == 0 else None
    if cgroup is not None:
        cgroup.create()
    deadline = time.monotonic() + _START_SECONDS
    for _ in range(_ATTEMPTS):
        # Asked in every round: a server that is just being killed may still count as running in the first.
        if not processes.is_running(_PROCESS, run=home.run):
            _bury(home)
        processes.ensure(spec, run=home.run, logs=home.logs, cgroup=cgroup)
        while processes.is_running(_PROCESS, run=home.run):
            if _answers(home, address):
                return
            if time.monotonic() > deadline:
                raise DevclusterError(
                    f"Postgres {home.name} runs but does not answer after {_START_SECONDS:.0f} s", log=home.log
                )
            time.sleep(_POLL_SECONDS)
        time.sleep(_AGAIN_SECONDS)
    raise DevclusterError(
        f"Postgres {home.name} ended right after its start",
        remedy=f"if port {address.port} is taken, end what holds it (`ss -ltnp`) and run the command again",
        log=home.log,
    )


def _answers(home: _Home, address: PostgresAddress) -> bool:
    """Return whether *this* server is up: its own pid file says ready, and it answers a login on its port."""
    pid = processes.running_pid(_PROCESS, run=home.run)
    if pid is None:
        return False
    try:
        lines = (home.data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    if len(lines) < _READY_LINE or lines[0].strip() != str(pid) or lines[_READY_LINE - 1].strip() != "ready":
        return False
    return _asks_for_password(address)


def _asks_for_password(address: PostgresAddress) -> bool:
    """Begin a login and read the first byte of the reply: ``R`` asks for the password, ``E`` is an error.

    A backend has been forked and has read the system catalogue by then, so this proves more than an open port, and
    it needs no client library.
    """
    parameters = f"user\0{address.user}\0database\0{address.database}\0\0".encode()
    startup = struct.pack("!ii", len(parameters) + 8, 3 << 16) + parameters
    try:
        with socket.create_connection((address.host, address.port), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(startup)
            # The whole message is read, because closing on unread bytes resets the connection, which the server logs.
            return connection.recv(1024).startswith(b"R")
    except OSError:
        return False


def _stop(home: _Home) -> None:
    pid = processes.running_pid(_PROCESS, run=home.run)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                # Asked again with the descriptor in hand: the pid cannot be recycled from here on.
                if processes.running_pid(_PROCESS, run=home.run) == pid:
                    # SIGINT ends sessions and writes a checkpoint; SIGTERM would wait for every client to leave.
                    signal.pidfd_send_signal(descriptor, signal.SIGINT)
                    poller = select.poll()
                    poller.register(descriptor, select.POLLIN)
                    poller.poll(int(_STOP_SECONDS * 1000))
            finally:
                os.close(descriptor)
    processes.stop(_PROCESS, run=home.run)
    if os.geteuid() == 0:
        home.cgroup.kill()
        home.cgroup.remove()
