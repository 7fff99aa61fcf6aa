"""What ends an operation beside what claims or records it: whoever comes second sees what the first did."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from controlplane.db.attempts import AttemptRows
from controlplane.db.claims import ClaimRows
from controlplane.domain.errors import StaleLeaseError
from tests.support.ledger import Ledger, renderer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controlplane.db.pool import Database

pytestmark = pytest.mark.db

PROBLEM = {"code": "X", "title": "x", "detail": "x"}


async def beside(
    url: str, ledger: Ledger, first: Callable[[asyncpg.Connection], Awaitable[None]], second: Awaitable[object]
) -> object:
    """Begin `second` while `first` has done its work and not committed; commit once `second` waits for it."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await first(connection)
            task = asyncio.ensure_future(second)
            await ledger.until_it_waits(task)
        return await task
    finally:
        await connection.close()


async def test_expiry_beside_a_claim_leaves_no_open_attempt(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    order = await ledger.order()
    await ledger.execute("UPDATE storeplane.operations SET created_at = now() - interval '2 days'")
    await ledger.execute("UPDATE storeplane.clusters SET circuit_closed_at = now() - interval '2 days'")
    rows = AttemptRows(database, "default")
    (overdue,) = await rows.list_overdue(3600, 10)

    async def claim(connection: asyncpg.Connection) -> None:
        await connection.execute(
            "UPDATE storeplane.operations"
            " SET attempt = 1, fence = fence + 1, lease_until = now() + interval '30 seconds'"
        )
        await connection.execute(
            "INSERT INTO storeplane.attempts (operation_id, number, store_id, job_name, memory_mib)"
            " VALUES ($1, 1, $2, 'job', 512)",
            order.operation_id,
            order.store_id,
        )

    assert await beside(database_url, ledger, claim, rows.expire(overdue, PROBLEM, uuid7()))
    assert (await ledger.operation(order))["state"] == "failed"
    assert (await ledger.attempt(order))["outcome"] == "timeout"


async def test_failure_before_the_job_beside_its_record_changes_nothing(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    order = await ledger.order()
    claims = ClaimRows(database, "default")
    (claimed,) = (await claims.claim("test", 60, 1, renderer())).attempts

    async def record(connection: asyncpg.Connection) -> None:
        await connection.execute("SELECT FROM storeplane.operations FOR NO KEY UPDATE")
        await connection.execute("UPDATE storeplane.attempts SET state = 'dispatched', job_uid = 'uid'")
        await connection.execute("UPDATE storeplane.operations SET state = 'running', next_dispatch_at = NULL")

    with pytest.raises(StaleLeaseError):
        await beside(database_url, ledger, record, claims.fail(claimed, PROBLEM))
    assert (await ledger.operation(order))["state"] == "running"
    assert (await ledger.attempt(order))["state"] == "dispatched"


async def test_attempt_left_open_by_an_ended_operation_can_be_closed(ledger: Ledger, database: Database) -> None:
    order = await ledger.order()
    await ClaimRows(database, "default").claim("test", 60, 1, renderer())
    await ledger.execute(
        "UPDATE storeplane.operations SET state = 'failed', error = '{}', finished_at = now(), next_dispatch_at = NULL"
    )
    end = "SELECT storeplane.end_attempt($1, 1, NULL, $2, $2, NULL, NULL, NULL)"
    assert not await ledger.value(end, order.operation_id, "succeeded")
    assert await ledger.value(end, order.operation_id, "cancelled")
    assert (await ledger.operation(order))["state"] == "failed"


async def test_other_clusters_operations_are_nobodys_business_here(ledger: Ledger, database: Database) -> None:
    await ledger.execute("INSERT INTO storeplane.clusters (id) VALUES ('eu')")
    order = await ledger.order()
    claims, rows = ClaimRows(database, "eu"), AttemptRows(database, "eu")
    assert not (await claims.claim("test", 60, 1, renderer())).attempts
    await ClaimRows(database, "default").claim("test", 60, 1, renderer())
    await ledger.execute("UPDATE storeplane.operations SET state = 'running', deadline_at = now() - interval '1 hour'")
    assert await rows.list_unsettled(10) == (None, [])
    assert await rows.list_overdue(60, 10) == []
    mine = await AttemptRows(database, "default").list_unsettled(10)
    assert [facts.operation_id for facts in mine[1]] == [order.operation_id]


async def test_month_without_a_partition_moves_into_its_own_once_there_is_one(
    ledger: Ledger, database: Database
) -> None:
    order = await ledger.order()
    month = await ledger.value("SELECT to_char(now(), 'YYYY_MM')")
    await ledger.execute(f"DROP TABLE storeplane.store_events_{month}")
    await ledger.execute(
        "INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message)"
        " VALUES ($1, $2, 'created', '')",
        order.store_id,
        order.operation_id,
    )
    await ledger.execute(
        "INSERT INTO storeplane.store_events (store_id, event_type, message, created_at)"
        " VALUES ($1, 'created', '', now() - interval '3 years')",
        order.store_id,
    )
    await AttemptRows(database, "default").keep_partitions(13, 3)
    moved = f"SELECT count(*) FROM storeplane.store_events_{month}"  # noqa: S608 -- the month is the server's own
    assert await ledger.value(moved) == 1
    assert await ledger.value("SELECT count(*) FROM storeplane.store_events_rest") == 1
    assert await ledger.value("SELECT count(*) FROM storeplane.store_events") == 2


async def test_words_that_no_jsonb_takes_end_an_attempt_all_the_same(ledger: Ledger, database: Database) -> None:
    order = await ledger.order()
    claims = ClaimRows(database, "default")
    (claimed,) = (await claims.claim("test", 60, 1, renderer())).attempts
    await claims.fail(claimed, {"code": "X", "title": "a\x00b", "detail": "half a \ud800 character"})
    assert (await ledger.operation(order))["state"] == "failed"
