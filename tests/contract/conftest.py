"""A database as a pod meets it, and what the Job gives the pod."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from controlplane.db.migrate import apply_migrations, read_migrations, set_role_password
from controlplane.db.stores import StoreRows
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal, Redactor
from tests.support import wishes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database
    from controlplane.domain.store import Caller
    from tests.support.postgres import PostgresServer

_PASSWORD = "provisioner-password"


@pytest.fixture
async def database_url(empty_database: str) -> str:
    """Migrated, not copied: a copy has the template's tables and not its database's rights."""
    await apply_migrations(empty_database, read_migrations())
    await set_role_password(empty_database, "storeplane_provisioner", _PASSWORD)
    return empty_database


@pytest.fixture
async def owner(database: Database) -> Caller:
    caller, _ = await wishes.add_user(database)
    return caller


@pytest.fixture
async def given(database: Database, database_url: str, postgres: PostgresServer, owner: Caller) -> JobInput:
    await StoreRows(database).submit_create(wishes.new_store(owner))
    claimed = await wishes.claim(database)
    return JobInput(
        store_id=claimed.store_id,
        store_name="shop",
        engine="medusa",
        namespace="store-shop-abcd1234",
        operation_id=claimed.operation_id,
        attempt=claimed.number,
        request_id="",
        db_host=str(postgres.socket_folder),
        db_port=5432,
        db_name=database_url.split("@/")[1].split("?", maxsplit=1)[0],
        db_user="storeplane_provisioner",
        db_password=_PASSWORD,
        attempt_token=wishes.token_of(claimed),
        job_uid=str(uuid4()),
        pod_uid=str(uuid4()),
        pod_name="pod",
        logs_json=False,
    )


@pytest.fixture
async def administrator(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def journal() -> Journal:
    return Journal(Redactor(), as_json=False)
