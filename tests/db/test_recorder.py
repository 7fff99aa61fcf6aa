"""Created Jobs are recorded together, and each by its own right."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controlplane.db.claims import ClaimRows, MadeJob
from controlplane.dispatcher.recorder import Recorder
from controlplane.domain.errors import StaleLeaseError
from tests.support.ledger import Ledger, renderer

if TYPE_CHECKING:
    from controlplane.db.pool import Database

pytestmark = pytest.mark.db

ORDERS = 6
COMMITS = "SELECT count(DISTINCT xmin::text) FROM storeplane.attempts WHERE job_uid IS NOT NULL"


async def test_jobs_that_wait_for_a_commit_share_the_next(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    for _number in range(ORDERS):
        await ledger.order()
    rows = ClaimRows(database, "default")
    claimed = (await rows.claim("test", 60, ORDERS, renderer())).attempts
    made = [MadeJob(each.operation_id, each.number, f"uid-{each.operation_id}") for each in claimed]
    gone = made[3]
    recorder = Recorder(rows)
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT FROM storeplane.operations WHERE id = $1 FOR UPDATE", made[0].operation_id)
            tasks = [asyncio.create_task(recorder.record(made[0]))]
            await ledger.until_it_waits(tasks[0])
            # Meanwhile the others' Jobs are created, and one of them is somebody else's by now.
            tasks += [asyncio.create_task(recorder.record(each)) for each in made[1:]]
            await other.execute(
                "UPDATE storeplane.attempts SET job_uid = 'other', state = 'dispatched' WHERE operation_id = $1",
                gone.operation_id,
            )
            await asyncio.sleep(0)
            assert not any(task.done() for task in tasks)
    finally:
        await other.close()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [StaleLeaseError if each is gone else type(None) for each in made]
    # One commit for the first, one for all that came while it waited, and the stranger's own.
    assert await ledger.value(COMMITS) == 3
    uids = await ledger.value("SELECT array_agg(job_uid ORDER BY operation_id) FROM storeplane.attempts")
    assert uids == [
        "other" if each is gone else each.job_uid for each in sorted(made, key=lambda one: one.operation_id)
    ]


async def test_each_attempt_of_an_operation_is_told_its_own_end(ledger: Ledger, database: Database) -> None:
    for _number in range(2):
        await ledger.order()
    rows = ClaimRows(database, "default")
    first, second = (
        MadeJob(each.operation_id, each.number, f"uid-{each.operation_id}")
        for each in (await rows.claim("test", 60, 2, renderer())).attempts
    )
    # An attempt that a slow task still believes in, beside the one that took its place, and the same one twice.
    superseded = MadeJob(first.operation_id, first.number + 1, "uid-of-another")
    assert await rows.record_jobs([superseded, first, second, second]) == {first, second}
    assert await rows.record_jobs([superseded, first, second, second]) == {first, second}
    uids = await ledger.value("SELECT array_agg(job_uid ORDER BY operation_id) FROM storeplane.attempts")
    assert uids == sorted((first.job_uid, second.job_uid))


async def test_database_that_is_away_is_told_to_each_and_the_next_is_recorded(
    ledger: Ledger, database: Database
) -> None:
    await ledger.order()
    rows = ClaimRows(database, "default")
    (claimed,) = (await rows.claim("test", 60, 1, renderer())).attempts
    made = MadeJob(claimed.operation_id, claimed.number, "uid")
    recorder = Recorder(rows)
    await ledger.execute("ALTER TABLE storeplane.attempts RENAME TO gone")
    ends = await asyncio.gather(recorder.record(made), recorder.record(made), return_exceptions=True)
    assert [getattr(end, "code", end) for end in ends] == ["SCHEMA_MISSING", "SCHEMA_MISSING"]
    await ledger.execute("ALTER TABLE storeplane.gone RENAME TO attempts")
    await recorder.record(made)
    assert await ledger.value("SELECT job_uid FROM storeplane.attempts") == "uid"
