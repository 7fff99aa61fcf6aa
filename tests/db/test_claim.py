"""The claim on a real Postgres: who is served, within which budget, and what a second claimer meets."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from controlplane.db.claims import ClaimRows, MadeJob
from controlplane.db.queries import query
from controlplane.domain.errors import StaleLeaseError
from tests.support.ledger import Ledger, Order, renderer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from controlplane.db.pool import Database
    from controlplane.domain.attempt import ClaimedAttempt

pytestmark = pytest.mark.db


@pytest.fixture
def rows(database: Database) -> ClaimRows:
    return ClaimRows(database, "default")


async def claim(rows: ClaimRows, most: int = 1, holder: str = "test") -> Sequence[ClaimedAttempt]:
    return (await rows.claim(holder, 60, most, renderer())).attempts


async def record(rows: ClaimRows, claimed: ClaimedAttempt) -> None:
    await rows.record_job(MadeJob(claimed.operation_id, claimed.number, f"uid-{claimed.operation_id}-{claimed.number}"))


async def served(rows: ClaimRows) -> UUID:
    """Dispatch the next operation and return whose it was."""
    (claimed,) = await claim(rows)
    await record(rows, claimed)
    return claimed.owner_id


async def test_racing_claimers_never_share_an_operation(ledger: Ledger, rows: ClaimRows) -> None:
    owner = await ledger.user()
    for _number in range(12):
        await ledger.order(owner)
    claims = await asyncio.gather(*(claim(rows, 2, f"claimer-{n}") for n in range(16)))
    ids = [each.operation_id for found in claims for each in found]
    assert len(ids) == len(set(ids)) == 12


async def test_user_least_recently_served_goes_first(ledger: Ledger, rows: ClaimRows) -> None:
    busy, quiet = await ledger.user(), await ledger.user()
    for owner in (busy, busy, quiet):
        await ledger.order(owner)
    assert [await served(rows) for _ in range(3)] == [busy, quiet, busy]


async def test_batch_takes_turns_too(ledger: Ledger, rows: ClaimRows) -> None:
    busy, quiet = await ledger.user(), await ledger.user()
    for owner in (busy, busy, busy, quiet):
        await ledger.order(owner)
    assert [each.owner_id for each in await claim(rows, 3)] == [busy, quiet, busy]


async def test_users_slots_are_not_exceeded_and_come_back(ledger: Ledger, rows: ClaimRows) -> None:
    owner = await ledger.user()
    orders = [await ledger.order(owner) for _ in range(3)]
    await ledger.execute("UPDATE storeplane.user_slots SET slots = 2")
    claimed = await claim(rows, 10)
    assert [each.operation_id for each in claimed] == [order.operation_id for order in orders[:2]]
    assert not await claim(rows, 10)
    await rows.fail(claimed[0], {"code": "X", "title": "x", "detail": "x"})
    assert [each.operation_id for each in await claim(rows, 10)] == [orders[2].operation_id]


async def test_claim_that_waits_keeps_its_slot_and_needs_no_other(ledger: Ledger, rows: ClaimRows) -> None:
    await ledger.order()
    await ledger.execute("UPDATE storeplane.user_slots SET slots = 1")
    await ledger.execute("UPDATE storeplane.clusters SET in_flight_limit = 1")
    (first,) = await claim(rows)
    await rows.postpone(first, "the cluster is busy", 0)
    (second,) = await claim(rows)
    assert (second.operation_id, second.number) == (first.operation_id, 1)


async def test_cluster_limits_what_is_in_flight(ledger: Ledger, rows: ClaimRows) -> None:
    for _number in range(3):
        await ledger.order()
    await ledger.execute("UPDATE storeplane.clusters SET in_flight_limit = 2")
    assert len(await claim(rows, 10)) == 2
    assert not await claim(rows, 10)


async def test_bucket_is_one_for_all_claimers(ledger: Ledger, rows: ClaimRows) -> None:
    for _number in range(6):
        await ledger.order()
    await ledger.execute("UPDATE storeplane.clusters SET bucket_tokens = 4, bucket_rate = 0.001, bucket_at = now()")
    claims = await asyncio.gather(*(claim(rows, 2) for _ in range(6)))
    assert sum(len(found) for found in claims) == 4
    empty = await rows.claim("test", 60, 2, renderer())
    assert not empty.attempts
    assert empty.seconds_to_token > 100


async def test_open_circuit_stops_every_claimer_and_one_probe_closes_it(ledger: Ledger, rows: ClaimRows) -> None:
    for _number in range(3):
        await ledger.order()
    assert await rows.open_circuit("the cluster refuses us", None)
    assert not await rows.open_circuit("the cluster refuses us", None), "a known trouble is no second alarm"
    assert not await claim(rows, 10)
    await ledger.execute("UPDATE storeplane.clusters SET circuit_until = now() - interval '1 second'")
    probe = await rows.claim("test", 60, 10, renderer())
    assert (len(probe.attempts), probe.is_probe) == (1, True)
    assert not await claim(rows, 10), "one probe alone, until it is answered"
    assert await rows.open_circuit("the cluster refuses us", None, is_probe=True) is False
    length = "SELECT extract(epoch FROM circuit_until - now())::integer FROM storeplane.clusters"
    assert 2 < await ledger.value(length) <= 8
    assert await rows.close_circuit()
    assert len(await claim(rows, 10)) == 2


async def test_circuit_opens_longer_with_each_failure_but_not_with_each_caller(ledger: Ledger, rows: ClaimRows) -> None:
    length = "SELECT extract(epoch FROM circuit_until - now())::integer FROM storeplane.clusters"
    await asyncio.gather(*(rows.open_circuit("no answer", None) for _ in range(5)))
    first = await ledger.value(length)
    for _number in range(6):
        await rows.open_circuit("no answer", None, is_probe=True)
    assert first <= 2
    assert 25 <= await ledger.value(length) <= 30


async def test_expired_claim_is_taken_over_under_the_same_number_with_the_same_bytes(
    ledger: Ledger, rows: ClaimRows
) -> None:
    await ledger.order()
    (first,) = await claim(rows, holder="first")
    assert not await claim(rows, holder="second")
    await ledger.leases_run_out()
    (second,) = await claim(rows, holder="second")
    assert (second.number, second.job_name, second.manifest) == (first.number, first.job_name, first.manifest)
    assert second.token_hash == first.token_hash
    assert second.fence > first.fence


async def test_late_claimer_loses(ledger: Ledger, rows: ClaimRows) -> None:
    await ledger.order()
    (first,) = await claim(rows)
    await ledger.leases_run_out()
    await claim(rows)
    problem = {"code": "X", "title": "late", "detail": "late"}
    for write in (rows.postpone(first, "late", 1), rows.fail(first, problem), rows.change_token(first, b"1" * 32, "k")):
        with pytest.raises(StaleLeaseError):
            await write


async def test_postponed_operation_keeps_its_attempt_and_its_reason(ledger: Ledger, rows: ClaimRows) -> None:
    order = await ledger.order()
    (claimed,) = await claim(rows)
    await rows.postpone(claimed, "the cluster does not answer", 60)
    assert not await claim(rows)
    row = await ledger.operation(order)
    assert (row["waiting_reason"], row["lease_until"], row["attempt"]) == ("the cluster does not answer", None, 1)
    await ledger.leases_run_out()
    assert [each.number for each in await claim(rows)] == [1]


async def test_recording_the_job_twice_is_fine_and_another_job_is_not(ledger: Ledger, rows: ClaimRows) -> None:
    order = await ledger.order()
    (claimed,) = await claim(rows)
    await record(rows, claimed)
    await record(rows, claimed)
    with pytest.raises(StaleLeaseError):
        await rows.record_job(MadeJob(claimed.operation_id, claimed.number, "other-uid"))
    row = await ledger.operation(order)
    assert (row["state"], row["next_dispatch_at"], row["lease_until"]) == ("running", None, None)
    assert 14 * 60 < (row["deadline_at"] - row["started_at"]).total_seconds() <= 15 * 60
    assert not await claim(rows)


async def test_operation_whose_job_can_never_be_fails_with_its_store(ledger: Ledger, rows: ClaimRows) -> None:
    order = await ledger.order()
    (claimed,) = (await rows.claim("test", 60, 1, lambda _claimed: None)).attempts
    assert claimed.manifest is None
    problem = {"code": "JOB_CONFLICT", "title": "broken", "detail": "a foreign Job"}
    await rows.fail(claimed, problem)
    operation, store = await ledger.operation(order), await ledger.store(order)
    assert (operation["state"], store["state"]) == ("failed", "failed")
    assert json.loads(operation["error"]) == problem
    attempt = await ledger.attempt(order)
    assert attempt["pods_ended_at"] is not None, "nothing of it holds the store"
    assert await ledger.audited("security.foreign_job") == 1


async def _ended_attempt(ledger: Ledger, rows: ClaimRows, order: Order) -> None:
    (claimed,) = await claim(rows)
    await record(rows, claimed)
    await ledger.execute(
        "SELECT storeplane.end_attempt($1, 1, NULL, 'failed', 'retryable', 10, NULL, '{}')", order.operation_id
    )
    await ledger.execute("UPDATE storeplane.operations SET next_dispatch_at = now() WHERE id = $1", order.operation_id)


async def test_next_attempt_waits_for_the_pods_of_the_one_before(ledger: Ledger, rows: ClaimRows) -> None:
    order = await ledger.order()
    await _ended_attempt(ledger, rows, order)
    assert not await claim(rows)
    await ledger.execute("UPDATE storeplane.attempts SET pods_ended_at = now()")
    assert [(each.number, each.job_name[-2:]) for each in await claim(rows)] == [(2, "-2")]


async def test_delete_waits_for_the_operation_it_cancels(ledger: Ledger, rows: ClaimRows) -> None:
    order = await ledger.order()
    (create,) = await claim(rows)
    await record(rows, create)
    await ledger.order(order.owner_id, kind="delete", store_id=order.store_id)
    assert not await claim(rows)
    await ledger.execute(
        "SELECT storeplane.end_attempt($1, 1, NULL, 'cancelled', 'cancelled', NULL, NULL, NULL)", order.operation_id
    )
    await ledger.execute(
        "UPDATE storeplane.operations SET state = 'cancelled', finished_at = now() WHERE id = $1", order.operation_id
    )
    assert not await claim(rows)
    await ledger.execute("UPDATE storeplane.attempts SET pods_ended_at = now()")
    assert [each.kind for each in await claim(rows)] == ["delete"]


async def _plan(url: str) -> dict[str, Any]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            text = await connection.fetchval(
                "EXPLAIN (FORMAT JSON, ANALYZE) " + query("claim_operations").text, "default", "test", 30, 10, 100
            )
    finally:
        await connection.close()
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan] + [node for each in plan.get("Plans", ()) for node in _nodes(each)]


async def test_backlog_is_read_by_its_index_and_not_sorted(ledger: Ledger, database_url: str) -> None:
    owners = [await ledger.user() for _ in range(20)]
    for owner in owners:
        await ledger.order(owner)
    # A replica's session checks no references and counts nothing: a hundred thousand rows in a second.
    await ledger.execute("SET session_replication_role = replica")
    await ledger.execute(
        "INSERT INTO storeplane.operations"
        " (id, store_id, owner_id, cluster_id, kind, spec, request_id, state, created_at, finished_at,"
        "  next_dispatch_at)"
        " SELECT gen_random_uuid(), gen_random_uuid(), ($1::uuid[])[1 + n % 20], 'default', 'create', '{}', 'r',"
        "        CASE WHEN n > 100000 THEN 'succeeded' ELSE 'queued' END, now() + make_interval(secs => n),"
        "        CASE WHEN n > 100000 THEN now() END, CASE WHEN n > 100000 THEN NULL ELSE now() END"
        " FROM generate_series(1, 150000) AS n",
        owners,
    )
    await ledger.execute("RESET session_replication_role")
    await ledger.execute("UPDATE storeplane.user_slots SET waiting = waiting + 5000")
    await ledger.execute("ANALYZE")
    nodes = _nodes(await _plan(database_url))
    reads = [node for node in nodes if node.get("Relation Name") == "operations" and node["Actual Loops"]]
    assert "operations_to_dispatch" in {node.get("Index Name") for node in reads}
    assert not [node for node in reads if node["Node Type"] == "Seq Scan"]
    # The real orders come first. However long the backlog, a claim of ten reads ten rows for each user who waits.
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in reads) <= 20 * 10


async def test_ends_and_claims_of_one_user_never_wait_for_each_other(ledger: Ledger, rows: ClaimRows) -> None:
    """A claim takes the cluster's row, then the user's; whatever ends an operation has to do the same."""
    owner = await ledger.user()
    for _number in range(40):
        await ledger.order(owner)
    await ledger.execute("UPDATE storeplane.user_slots SET slots = 100")
    problem = {"code": "X", "title": "x", "detail": "x"}

    async def serve() -> None:
        while found := await claim(rows, 2):
            await asyncio.gather(*(rows.fail(each, problem) for each in found))

    await asyncio.gather(*(serve() for _ in range(6)))
    assert await ledger.value("SELECT count(*) FROM storeplane.operations WHERE state = 'failed'") == 40
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await ledger.value(deadlocks) == 0
