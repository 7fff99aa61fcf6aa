from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from uuid_utils.compat import uuid7

from controlplane.db.attempts import AttemptRows
from controlplane.db.stores import StoreRows
from controlplane.domain.errors import NameTakenError, OperationInProgressError, StaleLeaseError
from controlplane.domain.store import Caller, Role
from tests.support import wishes

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.db.pool import Database

pytestmark = pytest.mark.db


async def _submit(database: Database, owner: Caller, slug: str | None = None) -> None:
    await StoreRows(database).submit_create(wishes.new_store(owner, slug))


async def _serve(database: Database) -> UUID:
    """Dispatch the next operation and return whose it was."""
    claimed = await wishes.claim(database)
    await AttemptRows(database).record_job(claimed.operation_id, claimed.number, f"uid-{claimed.operation_id}")
    return claimed.owner_id


async def _run_out(database: Database) -> None:
    """Let every lease and pause be over."""
    async with database.transaction() as session:
        await session._connection.execute(  # noqa: SLF001 -- time is the one thing a test has to bend
            "UPDATE storeplane.operations SET lease_until = now() - interval '1 second', next_dispatch_at = now()"
        )


async def test_racing_claimers_never_share_an_operation(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    for _number in range(6):
        await _submit(database, owner)
    rows = AttemptRows(database)
    claims = await asyncio.gather(*(rows.claim(f"claimer-{n}", 60, wishes.rendered) for n in range(16)))
    ids = [claimed.operation_id for claimed in claims if claimed is not None]
    assert len(ids) == len(set(ids)) == 6


async def test_user_least_recently_served_goes_first(database: Database) -> None:
    busy, _ = await wishes.add_user(database)
    quiet, _ = await wishes.add_user(database)
    await _submit(database, busy)
    await _submit(database, busy)
    await _submit(database, quiet)
    assert [await _serve(database) for _ in range(3)] == [busy.user_id, quiet.user_id, busy.user_id]


async def test_position_is_the_order_of_service(database: Database) -> None:
    owners = [(await wishes.add_user(database))[0] for _ in range(2)]
    new = [wishes.new_store(owner) for owner in (owners[0], owners[0], owners[1], owners[0], owners[1])]
    for each in new:
        await StoreRows(database).submit_create(each)
    positions = {}
    for each in new:
        operation = await StoreRows(database).get_operation(each.operation_id, Caller(each.owner_id, Role.MEMBER))
        assert operation is not None
        assert operation.waiting is not None
        positions[each.operation_id] = operation.waiting.position
    served = []
    for number in range(len(new)):
        claimed = await wishes.claim(database)
        served.append(claimed.operation_id)
        await AttemptRows(database).record_job(claimed.operation_id, claimed.number, f"uid-{number}")
    assert [positions[operation_id] for operation_id in served] == [1, 2, 3, 4, 5]


async def test_claim_that_is_given_back_spends_no_turn(database: Database) -> None:
    first, _ = await wishes.add_user(database)
    second, _ = await wishes.add_user(database)
    await _submit(database, first)
    await _submit(database, second)
    claimed = await wishes.claim(database)
    await AttemptRows(database).postpone(claimed, "the cluster is busy", 0)
    assert (claimed.owner_id, await _serve(database)) == (first.user_id, first.user_id)


async def test_claimers_of_one_user_do_not_wait_for_each_other(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    await _submit(database, owner)
    await _submit(database, owner)
    async with database.transaction() as session:
        assert await session.fetch_one("claim_operation", "first", 60) is not None
        # Its transaction is still open.
        await wishes.claim(database, "second")


async def test_expired_claim_is_taken_over_under_the_same_number_with_the_same_bytes(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    await _submit(database, owner)
    first = await wishes.claim(database, "first")
    assert await AttemptRows(database).claim("second", 60, wishes.rendered) is None
    await _run_out(database)
    second = await wishes.claim(database, "second")
    assert (second.number, second.job_name, second.manifest) == (first.number, first.job_name, first.manifest)
    assert second.fence > first.fence


async def test_late_claimer_loses(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    await _submit(database, owner)
    first = await wishes.claim(database, "first")
    await _run_out(database)
    await wishes.claim(database, "second")
    rows = AttemptRows(database)
    with pytest.raises(StaleLeaseError):
        await rows.postpone(first, "late", 1)
    with pytest.raises(StaleLeaseError):
        await rows.fail_unrenderable(first, {"title": "late"})


async def test_postponed_operation_says_why_and_keeps_its_attempt(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    await _submit(database, owner)
    claimed = await wishes.claim(database)
    rows, stores = AttemptRows(database), StoreRows(database)
    await rows.postpone(claimed, "the cluster does not answer", 60)
    assert await rows.claim("again", 60, wishes.rendered) is None
    operation = await stores.get_operation(claimed.operation_id, owner)
    assert operation is not None
    assert operation.waiting is not None
    assert (operation.waiting.reason, operation.waiting.position) == ("the cluster does not answer", 1)
    await _run_out(database)
    assert (await wishes.claim(database)).number == 1


async def test_recording_the_job_twice_is_fine_and_another_job_is_not(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    await _submit(database, owner)
    claimed = await wishes.claim(database)
    rows = AttemptRows(database)
    await rows.record_job(claimed.operation_id, claimed.number, "job-uid")
    await rows.record_job(claimed.operation_id, claimed.number, "job-uid")
    with pytest.raises(StaleLeaseError):
        await rows.record_job(claimed.operation_id, claimed.number, "other-uid")


async def test_unrenderable_operation_fails_with_its_store(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    await _submit(database, owner)
    rows, stores = AttemptRows(database), StoreRows(database)
    claimed = await rows.claim("test", 60, lambda _claimed: None)
    assert claimed is not None
    assert claimed.manifest is None
    await rows.fail_unrenderable(claimed, {"code": "JOB_UNRENDERABLE", "title": "broken"})
    operation = await stores.get_operation(claimed.operation_id, owner)
    store = await stores.get_store(claimed.store_id, owner)
    assert operation is not None
    assert store is not None
    assert (operation.state, store.state) == ("failed", "failed")
    assert operation.error == {"code": "JOB_UNRENDERABLE", "title": "broken"}


async def test_same_slug_twice_is_name_taken(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    other, _ = await wishes.add_user(database)
    await _submit(database, owner, "shop")
    with pytest.raises(NameTakenError):
        await _submit(database, owner, "shop")
    await _submit(database, other, "shop")


async def test_second_active_operation_is_refused(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    new = wishes.new_store(owner)
    await StoreRows(database).submit_create(new)
    with pytest.raises(OperationInProgressError):
        async with database.transaction() as session:
            await session._connection.execute(  # noqa: SLF001 -- no service asks for a second operation yet
                "INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id)"
                " VALUES ($1, $2, $3, 'default', 'upgrade', '{}', 'request')",
                uuid7(),
                new.store_id,
                new.owner_id,
            )


async def test_others_see_nothing_and_operators_see_all(database: Database) -> None:
    owner, _ = await wishes.add_user(database)
    stranger, _ = await wishes.add_user(database)
    operator, _ = await wishes.add_user(database, Role.OPERATOR)
    new = wishes.new_store(owner)
    rows = StoreRows(database)
    await rows.submit_create(new)
    for caller, sees in ((owner, True), (stranger, False), (operator, True)):
        assert (await rows.get_store(new.store_id, caller) is not None) is sees
        assert (await rows.get_operation(new.operation_id, caller) is not None) is sees
        assert (await rows.latest_operation(new.store_id, caller) is not None) is sees
        assert (await rows.attempt_log(new.operation_id, caller) is not None) is sees
        assert bool(await rows.list_events(new.store_id, caller, after=0, limit=10)) is sees
