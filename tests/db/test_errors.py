"""What Postgres refuses, as the rest of the program sees it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controlplane.db.migrate import set_role_password
from controlplane.db.pool import Database
from controlplane.domain.errors import (
    ConfigurationError,
    ControlPlaneError,
    DatabaseFaultError,
    DatabaseRightMissingError,
    DatabaseUnavailableError,
    SchemaMissingError,
)
from tests.support.wishes import ENVIRONMENT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.db


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        *(
            (state, DatabaseUnavailableError)
            for state in ("40P01", "40001", "55P03", "57014", "57P01", "57P03", "57P05")
        ),
        *(
            (state, DatabaseUnavailableError)
            for state in ("25006", "25P03", "53100", "53200", "53300", "58030", "08006")
        ),
        *((state, SchemaMissingError) for state in ("42P01", "42703", "42883", "3F000")),
        ("42501", DatabaseRightMissingError),
        *((state, DatabaseFaultError) for state in ("22012", "23514", "42601", "XX000", "P0001")),
    ],
)
async def test_every_answer_of_the_server_is_a_domain_error(
    sqlstate: str, kind: type[ControlPlaneError], database: Database
) -> None:
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{sqlstate}'; END $$"
    with pytest.raises(kind) as caught:
        async with database.transaction() as session:
            await session._connection.execute(statement)  # noqa: SLF001 -- no statement of ours fails on demand
    assert type(caught.value) is kind
    assert "made up" in str(caught.value)


async def test_lock_that_does_not_come_is_unavailable(database: Database) -> None:
    wait_shortly = "SET LOCAL lock_timeout = '1ms'; LOCK TABLE storeplane.stores"
    async with database.transaction() as holder:
        await holder._connection.execute("LOCK TABLE storeplane.stores")  # noqa: SLF001 -- as a migration would
        with pytest.raises(DatabaseUnavailableError, match="lock timeout"):
            async with database.transaction() as session:
                await session._connection.execute(wait_shortly)  # noqa: SLF001 -- the service waits for seconds


@pytest.mark.parametrize("url", ["nonsense", "postgresql://u:hunter2/x@host/db", "postgresql://u:hunter2@h:x/db"])
async def test_address_that_is_none_is_a_wrong_setting_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not a usable address") as caught:
        await Database.connect(url, size=1)
    assert "hunter2" not in str(caught.value)


async def test_unknown_database_is_a_wrong_setting(postgres: PostgresServer) -> None:
    with pytest.raises(ConfigurationError, match="no_such_database"):
        await Database.connect(postgres.url("no_such_database"), size=1)


async def test_wrong_password_ends_the_service_with_2(postgres: PostgresServer, database_url: str) -> None:
    await set_role_password(database_url, "storeplane_app", postgres.password)
    name = database_url.split("@/")[1].split("?", maxsplit=1)[0]
    url = postgres.url(name, user="storeplane_app").replace(postgres.password, "wrong")
    status, said = await _serve(url, "--port", "0")
    assert b"check user, password and database name" in said
    assert status == 2


async def test_only_an_address_in_use_is_told_as_such(database_url: str, tmp_path: Path) -> None:
    missing = {"STOREPLANE_KUBECONFIG": str(_kubeconfig(tmp_path))}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, said = await _serve(database_url, "--port", port, **missing)
    assert (status, f"cannot listen on 127.0.0.1:{port}".encode() in said) == (2, True)
    (tmp_path / "folder").mkdir()
    status, said = await _serve(database_url, "--port", "0", "--ready-file", str(tmp_path / "folder"), **missing)
    assert (status, b"cannot write" in said, b"cannot listen" in said) == (2, True, False)


def _kubeconfig(folder: Path) -> Path:
    path = folder / "kubeconfig"
    parts = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **parts}))
    return path


async def _serve(url: str, *arguments: str, **more: str) -> tuple[int | None, bytes]:
    """Run the service, which must end by itself without a traceback, and return its code and its words."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controlplane", "serve", *arguments),
        env=ENVIRONMENT | {"DATABASE_URL": url, "PATH": os.defpath} | more,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert b"Traceback" not in said, said.decode()
    return process.returncode, said


async def test_password_reaches_the_server_as_a_verifier_and_logs_in(
    postgres: PostgresServer, database_url: str
) -> None:
    await set_role_password(database_url, "storeplane_provisioner", "it's $ecret")
    owner = await asyncpg.connect(database_url)
    try:
        kept = await owner.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = 'storeplane_provisioner'")
    finally:
        await owner.close()
    assert kept.startswith("SCRAM-SHA-256$4096:")
    name = database_url.split("@/")[1].split("?", maxsplit=1)[0]
    url = postgres.url(name, user="storeplane_provisioner")
    connection = await asyncpg.connect(url, password="it's $ecret")
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url, password="another")
    with pytest.raises(ConfigurationError, match="ASCII"):
        await set_role_password(database_url, "storeplane_provisioner", "é")
