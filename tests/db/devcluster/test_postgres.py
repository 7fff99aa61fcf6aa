"""The private Postgres for development: real servers, killed and healed."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import stat
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from devcluster.machine.cgroups import Cgroup
from devcluster.machine.errors import DevclusterError
from devcluster.postgres import server as postgres
from devcluster.postgres.binaries import check_binaries, find_binaries, installations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.postgres.server import PostgresAddress

pytestmark = pytest.mark.db


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a short state folder that the server's own user may enter, as pytest's is not."""
    folder = Path(tempfile.mkdtemp(prefix="dc-"))
    folder.chmod(0o755)
    monkeypatch.setenv("DEVCLUSTER_HOME", str(folder))
    monkeypatch.setenv("STOREPLANE_CACHE", str(folder / "cache"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def name(home: Path) -> Iterator[str]:
    """Give the name of a server that is gone afterwards."""
    assert home.exists()
    chosen = f"t{uuid.uuid4().hex[:8]}"
    yield chosen
    postgres.down(chosen)


async def _ask(address: PostgresAddress, statement: str) -> object:
    connection = await asyncpg.connect(address.url, timeout=10)
    try:
        return await connection.fetchval(statement, timeout=10)
    finally:
        await connection.close(timeout=10)


def _kill(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        assert select.select([descriptor], [], [], 10)[0]
    finally:
        os.close(descriptor)


async def test_up_serves_a_database_and_a_second_up_changes_nothing(name: str) -> None:
    address = postgres.up(name)
    assert await _ask(address, "SELECT current_database()::text") == "storeplane"
    pid = postgres.status(name).pid
    assert postgres.up(name) == address == postgres.url(name)
    assert postgres.status(name).pid == pid
    assert postgres.port(name) == address.port
    assert postgres.names() == [name]


@pytest.mark.parametrize("major", sorted({each.major for each in installations()}))
async def test_every_installed_version_starts_and_heals(name: str, major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVCLUSTER_POSTGRES_BIN", str(find_binaries(major).folder))
    address = postgres.up(name)
    await _ask(address, "CREATE TABLE kept (answer int)")
    await _ask(address, "INSERT INTO kept VALUES (42)")
    pid = postgres.status(name).pid
    assert pid is not None
    _kill(pid)
    assert not postgres.status(name).running
    assert postgres.up(name) == address
    assert await _ask(address, "SELECT answer FROM kept") == 42
    assert str(await _ask(address, "SHOW server_version")).startswith(str(major))


async def test_wrong_password_is_refused_and_the_right_one_is_secret(name: str, home: Path) -> None:
    address = postgres.up(name)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(address.url.replace(address.password, "wrong"), timeout=10)
    assert stat.S_IMODE((home / f"postgres-{name}/settings.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / f"postgres-{name}/private").stat().st_mode) == 0o700
    assert address.password not in repr(address)


async def test_down_drops_connections_and_can_keep_the_rows(name: str) -> None:
    address = postgres.up(name)
    await _ask(address, "CREATE TABLE kept AS SELECT 42 AS answer")
    lingering = await asyncpg.connect(address.url, timeout=10)
    postgres.down(name, keep_data=True)
    assert postgres.status(name) == postgres.PostgresStatus(exists=True, running=False, port=address.port, pid=None)
    lingering.terminate()
    assert postgres.up(name) == address
    assert await _ask(address, "SELECT answer FROM kept") == 42


def test_down_leaves_neither_folder_nor_process_nor_group(name: str, home: Path) -> None:
    postgres.up(name)
    group = Cgroup(f"postgres-{name}")
    pid = postgres.status(name).pid
    assert pid is not None
    postgres.down(name)
    assert not (home / f"postgres-{name}").exists()
    assert group.pids() == set()
    assert not any(Path("/sys/fs/cgroup").glob(f"**/devcluster-postgres-{name}"))
    assert not postgres.status(name).exists
    postgres.down(name)


def test_servers_of_two_names_have_ports_of_their_own(name: str) -> None:
    other = f"{name}b"
    try:
        first = postgres.up(name)
        postgres.down(name, keep_data=True)
        # Its port is free now, and still spoken for.
        assert postgres.up(other).port != first.port
    finally:
        postgres.down(other)


def test_taken_port_is_told_with_the_log(name: str) -> None:
    address = postgres.up(name)
    postgres.down(name, keep_data=True)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((address.host, address.port))
        squatter.listen()
        with pytest.raises(DevclusterError, match="ended right after its start") as failed:
            postgres.up(name)
    assert "Address already in use" in failed.value.render()


def test_url_of_an_unknown_server_names_the_command(home: Path) -> None:
    assert home.exists()
    with pytest.raises(DevclusterError, match="no Postgres named absent") as refused:
        postgres.url("absent")
    assert refused.value.remedy == "make one: `devcluster postgres up --name absent`"


def test_path_too_long_for_a_socket_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVCLUSTER_HOME", str(home / ("long" * 20)))
    with pytest.raises(DevclusterError, match="too long for a socket"):
        postgres.up("name")


def test_server_older_than_the_floor_is_refused(home: Path) -> None:
    program = home / "postgres"
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.19 (Debian 14.19-1)'\n")
    program.chmod(0o755)
    with pytest.raises(DevclusterError, match=r"is version 14\.19; 15 is the oldest that works"):
        check_binaries(home)


async def test_data_of_a_version_that_is_gone_is_told(name: str, home: Path) -> None:
    postgres.up(name)
    postgres.down(name, keep_data=True)
    (home / f"postgres-{name}/private/data/PG_VERSION").write_text("99\n")
    with pytest.raises(DevclusterError, match="made by Postgres 99, which is not installed"):
        postgres.up(name)
