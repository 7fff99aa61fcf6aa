"""Cancel, delete and deadline on a real cluster: in every state, and what a clean-up follows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from uuid_utils.compat import uuid7

from controlplane.reconciler.sweep import Sweep

if TYPE_CHECKING:
    from tests.support.ledger import Order
    from tests.support.plane import Plane

pytestmark = pytest.mark.cluster


async def order(plane: Plane, name: str = "noop", **more: Any) -> Order:
    return await plane.ledger.order(name=name, spec={"provisioner_image": plane.settings.provisioner_image}, **more)


async def ask_to_cancel(plane: Plane, wish: Order) -> None:
    await plane.ledger.execute(
        "UPDATE storeplane.operations SET cancel_requested_at = now(), next_dispatch_at = NULL WHERE id = $1",
        wish.operation_id,
    )
    await plane.parts.attempts.finish_cancel(wish.operation_id, uuid7())


async def cleanup_of(plane: Plane, wish: Order) -> Any:
    return await plane.ledger.connection.fetchrow(
        "SELECT * FROM storeplane.operations WHERE store_id = $1 AND kind = 'cleanup'", wish.store_id
    )


async def test_queued_operation_is_cancelled_at_once_and_needs_no_clean_up(plane: Plane) -> None:
    wish = await order(plane)
    await ask_to_cancel(plane, wish)
    assert (await plane.ledger.operation(wish))["state"] == "cancelled"
    assert (await plane.ledger.store(wish))["state"] == "failed"
    assert await cleanup_of(plane, wish) is None
    assert not await plane.dispatch()
    assert await plane.ledger.events(wish) == ["cancelled"]


@pytest.mark.parametrize("dies", ["after the claim", "after the post"])
async def test_claimed_operation_is_cancelled_once_its_job_cannot_come_any_more(plane: Plane, dies: str) -> None:
    wish = await order(plane, "noop late=30")
    await plane.dispatch(dies=dies)
    await ask_to_cancel(plane, wish)
    assert (await plane.ledger.operation(wish))["state"] == "queued"
    await plane.ledger.leases_run_out()
    await plane.reconcile_until(plane.is_settled(wish), "the operation is settled")
    assert (await plane.ledger.operation(wish))["state"] == "cancelled"
    assert (await plane.ledger.attempt(wish))["state"] == "cancelled"
    assert await cleanup_of(plane, wish) is None, "nothing had begun"


async def test_pod_that_has_not_begun_is_removed_by_a_cancel(plane: Plane) -> None:
    wish = await order(plane, "noop late=300")
    async with plane.running():
        await plane.wait_until(plane.attempt_is(wish, "dispatched"), "the Job is there")
        await ask_to_cancel(plane, wish)
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    assert (await plane.ledger.operation(wish))["state"] == "cancelled"
    assert not [pod for pod in plane.pods() if pod["status"]["phase"] == "Running"]


async def test_running_operation_hears_of_its_cancel_and_is_cleaned_up(plane: Plane) -> None:
    wish = await order(plane, "noop at=release hold=300")
    async with plane.running():
        await plane.wait_until(plane.attempt_is(wish, "running"), "the pod has begun")
        await ask_to_cancel(plane, wish)
        # As if its heartbeat were late.
        await plane.ledger.execute(
            "UPDATE storeplane.operations SET cancel_requested_at = now() - interval '31 seconds' WHERE id = $1",
            wish.operation_id,
        )
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
        cleanup = await cleanup_of(plane, wish)
        assert cleanup is not None

        async def is_clean() -> bool:
            return bool((await cleanup_of(plane, wish))["state"] == "succeeded")

        await plane.wait_until(is_clean, "the clean-up is done")
    assert (await plane.ledger.operation(wish))["state"] == "cancelled"
    assert (await plane.ledger.store(wish))["state"] == "failed"
    first = await plane.ledger.attempt(wish)
    assert first["pods_ended_at"] <= (await cleanup_of(plane, wish))["started_at"]


async def test_finish_that_was_first_wins_over_a_cancel(plane: Plane) -> None:
    wish = await order(plane)
    async with plane.running():
        await plane.wait_until(plane.has(wish, "succeeded"), "the operation has succeeded")
        await ask_to_cancel_late(plane, wish)
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    assert (await plane.ledger.operation(wish))["state"] == "succeeded"
    assert (await plane.ledger.store(wish))["state"] == "ready"


async def ask_to_cancel_late(plane: Plane, wish: Order) -> None:
    await plane.ledger.execute(
        "UPDATE storeplane.operations SET cancel_requested_at = now() WHERE id = $1 AND finished_at IS NULL",
        wish.operation_id,
    )
    assert not await plane.parts.attempts.finish_cancel(wish.operation_id, uuid7())


async def test_delete_waits_for_the_create_it_cancels_and_ends_in_deleted(plane: Plane) -> None:
    wish = await order(plane, "noop at=release hold=300")
    async with plane.running():
        await plane.wait_until(plane.attempt_is(wish, "running"), "the create runs")
        await plane.ledger.execute(
            "UPDATE storeplane.operations SET cancel_requested_at = now() - interval '31 seconds' WHERE id = $1",
            wish.operation_id,
        )
        await plane.ledger.execute("UPDATE storeplane.stores SET state = 'deleting' WHERE id = $1", wish.store_id)
        delete = await plane.ledger.order(
            wish.owner_id,
            kind="delete",
            store_id=wish.store_id,
            spec={"provisioner_image": plane.settings.provisioner_image},
        )
        await plane.wait_until(plane.is_settled(delete), "the delete is settled")
    assert (await plane.ledger.operation(wish))["state"] == "cancelled"
    assert (await plane.ledger.store(wish))["state"] == "deleted"
    assert await cleanup_of(plane, wish) is None, "the delete does its work"
    assert await plane.ledger.value("SELECT store_count FROM storeplane.users WHERE id = $1", wish.owner_id) == 0
    create, removal = await plane.ledger.attempt(wish), await plane.ledger.attempt(delete)
    assert create["pods_ended_at"] <= removal["created_at"]
    assert (await plane.ledger.events(wish))[-1] == "deleted"


async def test_deadline_fails_the_operation_in_its_words_and_cleans_up(plane: Plane) -> None:
    wish = await order(plane, "noop at=release hold=300")
    async with plane.running():
        await plane.wait_until(plane.attempt_is(wish, "running"), "the pod has begun")
        await plane.ledger.execute(
            "UPDATE storeplane.operations SET deadline_at = now() - interval '1 second' WHERE id = $1",
            wish.operation_id,
        )
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")

        async def is_clean() -> bool:
            return bool((await cleanup_of(plane, wish))["state"] == "succeeded")

        await plane.wait_until(is_clean, "the clean-up is done")
    error = json.loads((await plane.ledger.operation(wish))["error"])
    assert error["title"] == "Provisioning timeout - exceeded 15 minutes"
    attempt = await plane.ledger.attempt(wish)
    assert (attempt["outcome"], attempt["log_state"]) == ("timeout", "stored")
    assert "timeout" in await plane.ledger.events(wish)


async def test_retry_by_a_person_replaces_the_running_attempt(plane: Plane) -> None:
    wish = await order(plane, "noop hold=300:1")
    async with plane.running():
        await plane.wait_until(plane.attempt_is(wish, "running"), "the first attempt runs")
        await plane.ledger.execute(
            "SELECT storeplane.end_attempt($1, 1, NULL, 'failed', 'retried', NULL, NULL, '{\"code\": \"RETRIED\"}')",
            wish.operation_id,
        )
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    first, second = await plane.ledger.attempt(wish), await plane.ledger.attempt(wish, 2)
    assert first["pods_ended_at"] <= second["created_at"]
    assert (first["outcome"], second["outcome"]) == ("retried", "succeeded")
    assert first["log_state"] == "stored"


async def test_ttl_removes_the_job_after_the_harvest_and_the_log_stays(plane: Plane) -> None:
    plane.settings.harvested_ttl_seconds = 1
    wish = await order(plane)
    async with plane.running():
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")

        async def is_removed() -> bool:
            return not plane.jobs()

        await plane.wait_until(is_removed, "the Job is removed by its TTL")
    log = await plane.ledger.value("SELECT content FROM storeplane.attempt_logs")
    assert "the attempt may run" in log


async def test_job_without_an_attempt_is_audited_and_removed(plane: Plane) -> None:
    wish = await order(plane, "noop late=300")
    assert await plane.dispatch()
    await plane.ledger.execute("ALTER TABLE storeplane.attempts DISABLE TRIGGER USER")
    # As if the database had been set back to before the claim.
    await plane.ledger.execute("UPDATE storeplane.operations SET attempt = 0, state = 'queued', started_at = NULL")
    await plane.ledger.execute("DELETE FROM storeplane.attempts WHERE operation_id = $1", wish.operation_id)
    await plane.ledger.execute("UPDATE storeplane.clusters SET in_flight = 0")
    await plane.ledger.execute("UPDATE storeplane.user_slots SET in_flight = 0")
    await plane.parts.observer.relist()
    now = [0.0]
    sweep = Sweep(plane.parts.attempts, plane.parts.jobs, plane.parts.observer, plane.settings, clock=lambda: now[0])
    await sweep.run_once()
    assert len(plane.jobs()) == 1, "a claim may be under way"
    now[0] = 61.0
    await sweep.run_once()

    async def is_removed() -> bool:
        return not plane.jobs()

    await plane.wait_until(is_removed, "the Job is removed")
    assert await plane.ledger.audited("job.orphan_deleted") == 1


async def test_objects_of_an_old_failure_are_cleaned_up(plane: Plane) -> None:
    wish = await order(plane, "noop end=permanent")
    async with plane.running():
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    await plane.ledger.execute("UPDATE storeplane.stores SET namespace_uid = 'uid'")
    await plane.parts.sweep.run_once()
    assert await cleanup_of(plane, wish) is None
    await plane.ledger.execute("UPDATE storeplane.stores SET updated_at = now() - interval '25 hours'")
    await plane.ledger.execute("UPDATE storeplane.operations SET finished_at = now() - interval '25 hours'")
    await plane.parts.sweep.run_once()
    assert (await cleanup_of(plane, wish))["state"] == "queued"
    await plane.parts.sweep.run_once()
    assert await plane.ledger.value("SELECT count(*) FROM storeplane.operations WHERE kind = 'cleanup'") == 1
