"""The protocol on a real cluster: one operation, one Job, whoever dies where."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.domain.attempt import attempt_token, token_hash
from tests.support import wishes
from tests.support.cluster import job

if TYPE_CHECKING:
    from tests.support.ledger import Order
    from tests.support.plane import Plane

pytestmark = pytest.mark.cluster

OTHER_KEY = "another key of thirty-two characters"


async def order(plane: Plane, name: str = "noop", **more: Any) -> Order:
    return await plane.ledger.order(name=name, spec={"provisioner_image": plane.settings.provisioner_image}, **more)


async def test_one_operation_makes_one_job_that_ends_in_a_ready_store(plane: Plane) -> None:
    wish = await order(plane)
    async with plane.running():
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    (made,) = plane.jobs()
    attempt = await plane.ledger.attempt(wish)
    assert made["metadata"]["labels"]["operation-id"] == str(wish.operation_id)
    assert (attempt["state"], attempt["job_uid"], attempt["log_state"]) == (
        "succeeded",
        made["metadata"]["uid"],
        "stored",
    )
    assert made["spec"]["ttlSecondsAfterFinished"] == 300
    assert (await plane.ledger.store(wish))["state"] == "ready"
    events = await plane.ledger.events(wish)
    assert events[0] == "provisioning_started"
    assert events[-1] == "provisioning_completed"


@pytest.mark.parametrize("dies", ["after the claim", "after the post", "after the record"])
async def test_second_dispatcher_finishes_what_a_dead_one_began(plane: Plane, dies: str) -> None:
    wish = await order(plane, "noop late=30")
    assert await plane.dispatch(dies="" if dies == "after the record" else dies)
    assert not await plane.dispatch(), "the lease of the dead one holds"
    before = [each["metadata"]["uid"] for each in plane.jobs()]
    assert len(before) == (0 if dies == "after the claim" else 1)
    await plane.ledger.leases_run_out()
    assert await plane.dispatch() is (dies != "after the record")
    (made,) = plane.jobs()
    assert before in ([], [made["metadata"]["uid"]])
    attempt = await plane.ledger.attempt(wish)
    assert (attempt["number"], attempt["state"], attempt["job_uid"]) == (1, "dispatched", made["metadata"]["uid"])


async def test_reconciler_reattaches_a_job_that_was_never_recorded(plane: Plane) -> None:
    wish = await order(plane, "noop late=30")
    await plane.dispatch(dies="after the post")
    await plane.ledger.leases_run_out()
    await plane.reconcile()
    (made,) = plane.jobs()
    attempt = await plane.ledger.attempt(wish)
    assert (attempt["state"], attempt["job_uid"]) == ("dispatched", made["metadata"]["uid"])


async def test_forged_job_with_our_labels_is_never_reattached(plane: Plane) -> None:
    wish = await order(plane)
    await plane.dispatch(dies="after the claim")
    forged = json.loads((await plane.ledger.attempt(wish))["manifest"])
    forged["spec"] |= {"suspend": True}
    forged["spec"]["template"]["spec"]["containers"][0]["image"] = "forged"
    plane.namespace.apply(forged)
    await plane.ledger.execute("UPDATE storeplane.operations SET cancel_requested_at = now(), next_dispatch_at = NULL")
    await plane.ledger.leases_run_out()
    await plane.reconcile_until(plane.has(wish, "cancelled"), "the cancel")
    assert (await plane.ledger.attempt(wish))["job_uid"] is None
    assert await plane.ledger.audited("security.foreign_job") == 1
    (left,) = plane.jobs()
    assert "deletionTimestamp" not in left["metadata"]


@pytest.mark.parametrize("dies", ["after the claim", "after the post"])
async def test_other_key_takes_over_with_the_token_the_job_carries(plane: Plane, dies: str) -> None:
    wish = await order(plane, "noop late=30")
    await plane.dispatch(dies=dies)
    await plane.ledger.leases_run_out()
    assert await plane.dispatch(key=OTHER_KEY)
    (made,) = plane.jobs()
    variables = made["spec"]["template"]["spec"]["containers"][0]["env"]
    (carried,) = (each["value"] for each in variables if each["name"] == "ATTEMPT_TOKEN")
    attempt = await plane.ledger.attempt(wish)
    assert attempt["token_hash"] == token_hash(carried)
    key = OTHER_KEY if dies == "after the claim" else wishes.KEY
    assert carried == attempt_token(key.encode(), wish.operation_id, 1)
    assert attempt["job_uid"] == made["metadata"]["uid"]


async def test_foreign_job_of_our_name_is_a_conflict_and_stays(plane: Plane) -> None:
    wish = await order(plane)
    plane.namespace.apply(job(f"store-create-{wish.operation_id}-1", "exit 0", suspend=True))
    (before,) = plane.jobs()
    assert await plane.dispatch()
    row = await plane.ledger.operation(wish)
    error = json.loads(row["error"])
    assert (row["state"], error["code"]) == ("failed", "JOB_CONFLICT")
    assert "not touched" in error["detail"]
    assert await plane.ledger.audited("security.foreign_job") == 1
    await plane.reconcile()
    (after,) = plane.jobs()
    for part in ("uid", "generation"):
        assert after["metadata"][part] == before["metadata"][part]


async def test_job_of_our_name_with_another_token_is_foreign(plane: Plane) -> None:
    wish = await order(plane, "noop late=30")
    await plane.dispatch(dies="after the post")
    await plane.ledger.execute("UPDATE storeplane.attempts SET token_hash = sha256('another token')")
    await plane.ledger.leases_run_out()
    assert await plane.dispatch()
    assert json.loads((await plane.ledger.operation(wish))["error"])["code"] == "JOB_CONFLICT"


async def test_job_deleted_before_its_pod_began_costs_no_try(plane: Plane) -> None:
    wish = await order(plane, "noop late=30")
    assert await plane.dispatch()
    plane.namespace.do("delete", "jobs", "--all", "--wait=true", "--cascade=foreground")
    async with plane.running():
        await plane.wait_until(plane.attempt_is(wish, "dispatched", 2), "the second attempt is dispatched")
    first = await plane.ledger.attempt(wish)
    assert (first["state"], first["outcome"]) == ("lost", "not_started")
    assert (await plane.ledger.operation(wish))["deadline_at"] is not None


async def test_job_deleted_in_mid_run_is_tried_again_after_its_pod_is_gone(plane: Plane) -> None:
    wish = await order(plane, "noop hold=60:1")
    async with plane.running():
        await plane.wait_until(plane.attempt_is(wish, "running"), "the first attempt runs")
        plane.namespace.do("delete", "jobs", "--all", "--wait=false")
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    first, second = await plane.ledger.attempt(wish), await plane.ledger.attempt(wish, 2)
    assert (first["state"], first["outcome"]) == ("failed", "retryable")
    assert first["pods_ended_at"] <= second["created_at"]
    assert (await plane.ledger.operation(wish))["state"] == "succeeded"
    assert "retry_scheduled" in await plane.ledger.events(wish)


@pytest.mark.parametrize(
    ("name", "outcome", "code"),
    [
        ("noop end=permanent", "permanent", "NOOP_PERMANENT"),
        ("noop exit=20", "permanent", "PROVISIONER_DIED"),
        ("noop mute end=permanent", "permanent", "NOOP_PERMANENT"),
    ],
)
async def test_permanent_end_fails_the_operation_with_its_reason(
    plane: Plane, name: str, outcome: str, code: str
) -> None:
    wish = await order(plane, name)
    async with plane.running():
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    row, attempt = await plane.ledger.operation(wish), await plane.ledger.attempt(wish)
    error = json.loads(row["error"])
    assert (row["state"], attempt["outcome"], error["code"]) == ("failed", outcome, code)
    assert error["remedy"]
    assert json.loads(attempt["diagnosis"])["category"] == "exit_code"
    (made,) = plane.jobs()
    assert made["spec"]["ttlSecondsAfterFinished"] == 86_400
    assert await plane.ledger.value("SELECT count(*) FROM storeplane.attempt_logs") == 1


@pytest.mark.parametrize(
    ("name", "first_outcome"),
    [("noop end=retryable:1", "retryable"), ("noop silent:1", "lost"), ("noop exit=7:1", "retryable")],
)
async def test_retryable_end_is_tried_again_and_the_store_becomes_ready(
    plane: Plane, name: str, first_outcome: str
) -> None:
    wish = await order(plane, name)
    async with plane.running():
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    first, second = await plane.ledger.attempt(wish), await plane.ledger.attempt(wish, 2)
    assert (first["outcome"], second["outcome"]) == (first_outcome, "succeeded")
    assert first["log_state"] == "stored"
    assert [each["metadata"]["labels"]["attempt"] for each in plane.jobs()] == ["2"]


async def test_success_told_by_the_termination_message_alone_counts(plane: Plane) -> None:
    wish = await order(plane, "noop mute")
    async with plane.running():
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    assert (await plane.ledger.operation(wish))["state"] == "succeeded"
    assert (await plane.ledger.store(wish))["state"] == "ready"


async def test_pod_out_of_memory_gets_more_of_it_once(plane: Plane) -> None:
    wish = await order(plane, "noop oom:1")
    async with plane.running():
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    first, second = await plane.ledger.attempt(wish), await plane.ledger.attempt(wish, 2)
    assert (first["outcome"], first["memory_mib"]) == ("out_of_memory", 512)
    assert (second["outcome"], second["memory_mib"]) == ("succeeded", 1024)


async def test_pod_that_cannot_start_says_why_and_goes_on_when_it_can(plane: Plane) -> None:
    plane.namespace.do("delete", "secret", "storeplane-provisioner-db")
    wish = await order(plane)

    async def is_told() -> bool:
        return "storeplane-provisioner-db" in (await plane.ledger.operation(wish))["waiting_reason"]

    async with plane.running():
        await plane.wait_until(is_told, "the reason is told")
        plane.namespace.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "storeplane-provisioner-db"},
                "stringData": {"password": "provisioner-password"},
            }
        )
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    assert (await plane.ledger.operation(wish))["state"] == "succeeded"


async def test_pod_that_does_not_start_is_given_up_for_another(plane: Plane) -> None:
    wish = await plane.ledger.order(spec={"provisioner_image": "storeplane.local/absent:1"})
    assert await plane.dispatch()

    async def is_told() -> bool:
        return "Image" in (await plane.ledger.operation(wish))["waiting_reason"]

    await plane.reconcile_until(is_told, "the reason is told")
    await plane.ledger.execute("UPDATE storeplane.attempts SET dispatched_at = now() - interval '6 minutes'")
    await plane.reconcile_until(plane.attempt_is(wish, "failed"), "the attempt is given up")

    async def is_free() -> bool:
        return (await plane.ledger.attempt(wish))["pods_ended_at"] is not None

    await plane.reconcile_until(is_free, "its pod is gone")
    first = await plane.ledger.attempt(wish)
    assert first["outcome"] == "not_started"
    assert json.loads(first["problem"])["category"] == "image_pull"
    assert (await plane.ledger.operation(wish))["next_dispatch_at"] is not None


async def test_missing_namespace_opens_the_circuit_with_the_next_step(plane: Plane) -> None:
    wish = await order(plane)
    plane.settings.jobs_namespace = "no-such-namespace"
    assert await plane.dispatch()
    row = await plane.ledger.operation(wish)
    assert row["waiting_reason"].startswith("the cluster has no namespace ")
    assert await plane.ledger.value("SELECT circuit_reason FROM storeplane.clusters") == row["waiting_reason"]
    assert (row["state"], row["attempt"]) == ("queued", 1)


async def test_exceeded_quota_waits_with_its_reason_and_goes_on(plane: Plane) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    plane.namespace.apply(quota)
    plane.namespace.wait("jsonpath={.status.hard}", "resourcequota/q")
    wish = await order(plane)

    async def waits() -> bool:
        return "quota" in (await plane.ledger.operation(wish))["waiting_reason"]

    async with plane.running():
        await plane.wait_until(waits, "the operation waits for the quota")
        plane.namespace.do("delete", "resourcequota", "q")
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    assert (await plane.ledger.attempt(wish))["number"] == 1
