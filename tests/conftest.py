"""Fixtures of every layer: one real Postgres per run, a fresh database with the schema per test."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controlplane.db.migrate import apply_migrations, read_migrations, set_role_password
from controlplane.db.pool import Database
from tests.support.postgres import PostgresServer, chosen, start_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from devcluster.postgres.binaries import Binaries

_numbers = itertools.count(1)


@asynccontextmanager
async def _database(server: PostgresServer, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(server.url("owner"))
    try:
        # Copied file by file: through the log, page by page, it takes ten times as long.
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield server.url(name)
        # FORCE: a test that fails may leave connections behind.
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres_binaries() -> Binaries:
    """Give the oldest version that is asked for; the database layer runs on each of them instead."""
    return chosen()[0]


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Binaries) -> Iterator[PostgresServer]:
    """Give the run's server."""
    yield from start_server(postgres_binaries)


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> str:
    """Give the name of a database with the schema; copying it takes a tenth of migrating."""
    name = "migrated"

    async def make() -> None:
        connection = await asyncpg.connect(postgres.url("owner"))
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        await apply_migrations(postgres.url(name), read_migrations())

    asyncio.run(make())
    return name


@pytest.fixture
async def empty_database(postgres: PostgresServer) -> AsyncIterator[str]:
    """Give the URL of a database without anything in it."""
    async with _database(postgres, "template1") as url:
        yield url


@pytest.fixture
async def database_url(postgres: PostgresServer, migrated_template: str) -> AsyncIterator[str]:
    """Give the owner's URL of a fresh database with the schema."""
    async with _database(postgres, migrated_template) as url:
        yield url


@pytest.fixture
async def database(postgres: PostgresServer, database_url: str) -> AsyncIterator[Database]:
    """Give a pool on a fresh database with the schema, with no more rights than the service has."""
    name = database_url.split("@/")[1].split("?", maxsplit=1)[0]
    await set_role_password(database_url, "storeplane_app", postgres.password)
    made = await Database.connect(postgres.url(name, user="storeplane_app"), size=8)
    yield made
    await made.close()
