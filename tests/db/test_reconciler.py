"""The reconciler on a real Postgres and a cluster that fails in chosen ways."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from controlplane.app import Parts
from controlplane.db.claims import MadeJob
from tests.support import wishes
from tests.support.fake_apiserver import fake_apiserver, refuses
from tests.support.faulty_cluster import job_object, pod_object
from tests.support.ledger import Ledger, renderer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database
    from tests.support.fake_apiserver import FakeApiServer
    from tests.support.ledger import Order

pytestmark = pytest.mark.db

ENDED = {"terminated": {"exitCode": 20, "reason": "Error"}}
WORKING: dict[str, Any] = {"running": {}}


@dataclass
class Follower:
    """A reconciler with the cluster it looks at."""

    ledger: Ledger
    cluster: FakeApiServer
    parts: Parts

    async def dispatched(self, **pod_state: Any) -> tuple[Order, str]:
        """Return an order whose Job is recorded, and its pod's name; without state it has no pod."""
        order = await self.ledger.order()
        (claimed,) = (await self.parts.claims.claim("test", 60, 1, renderer())).attempts
        made = await self.cluster.put(
            "jobs", job_object(claimed.job_name, f"job-{order.operation_id}", order.operation_id)
        )
        await self.parts.claims.record_job(MadeJob(order.operation_id, 1, made["metadata"]["uid"]))
        pod = f"pod-{order.operation_id}"
        if pod_state:
            await self.show(order, **pod_state)
        return order, pod

    async def show(self, order: Order, **state: Any) -> None:
        name = f"pod-{order.operation_id}"
        await self.cluster.put("pods", pod_object(name, f"uid-{name}", f"job-{order.operation_id}", **state))

    async def run_once(self) -> None:
        await self.parts.observer.relist()
        await self.parts.reconciler.run_all()
        await self.parts.harvester.drain(30)

    async def grace_passes(self) -> None:
        await self.ledger.execute(
            "UPDATE storeplane.attempts SET end_seen_at = now() - interval '11 seconds' WHERE end_seen_at IS NOT NULL"
        )


@pytest.fixture
async def follower(database: Database, database_url: str) -> AsyncIterator[Follower]:
    ledger = await Ledger.open(database_url)
    async with fake_apiserver() as (cluster, client):
        yield Follower(ledger, cluster, Parts(wishes.settings(), database, client))
    kept, real = await ledger.counters()
    await ledger.close()
    assert kept == real


def _logs(broken: str, status: int) -> Any:
    async def answer(request: web.Request) -> web.StreamResponse:
        if f"/{broken}/log" in request.path:
            return await refuses(status, "")(request)
        return web.Response(text="its log")

    return answer


@pytest.mark.parametrize("status", [403, 500, 502, 504])
async def test_log_of_a_lost_node_is_tried_again_and_then_unavailable(follower: Follower, status: int) -> None:
    lost, pod = await follower.dispatched(**ENDED)
    well, _ = await follower.dispatched(**ENDED)
    follower.cluster.fails_until_healed("GET pods", _logs(pod, status))
    await follower.run_once()
    await follower.grace_passes()
    await follower.run_once()
    await follower.run_once()
    # "Not yet", and the other one is not held up.
    assert (await follower.ledger.attempt(well))["log_state"] == "stored"
    attempt = await follower.ledger.attempt(lost)
    assert (attempt["state"], attempt["harvested_at"]) == ("failed", None)
    await follower.ledger.execute(
        "UPDATE storeplane.attempts SET finished_at = now() - interval '31 seconds', harvest_until = NULL"
    )
    follower.parts.harvester._not_before.clear()  # noqa: SLF001 -- time is the one thing a test has to bend
    await follower.run_once()
    assert (await follower.ledger.attempt(lost))["log_state"] == "unavailable"


async def test_attempts_beyond_one_page_are_seen(follower: Follower) -> None:
    made = [(await follower.dispatched())[0] for _ in range(5)]
    now, found = await follower.parts.attempts.list_unsettled(2)
    assert now is not None
    assert [facts.operation_id for facts in found] == [order.operation_id for order in made]


async def test_grace_begins_when_the_end_is_seen(follower: Follower) -> None:
    # The kubelet's clock is a day ahead.
    state = {"terminated": {"exitCode": 20, "reason": "Error", "finishedAt": "2999-01-01T00:00:00Z"}}
    order, _ = await follower.dispatched(**state)
    await follower.run_once()
    assert (await follower.ledger.attempt(order))["end_seen_at"] is not None
    await follower.run_once()
    assert (await follower.ledger.operation(order))["state"] == "running"
    await follower.grace_passes()
    await follower.run_once()
    assert (await follower.ledger.operation(order))["state"] == "failed"


async def test_why_a_pod_does_not_start_is_told_and_kept_in_the_timeout(follower: Follower) -> None:
    order, _ = await follower.dispatched(waiting={"reason": "ErrImagePull", "message": "no such image"})
    await follower.run_once()
    assert (await follower.ledger.operation(order))["waiting_reason"] == "ErrImagePull: no such image"
    await follower.ledger.execute("UPDATE storeplane.operations SET deadline_at = now() - interval '1 second'")
    await follower.run_once()
    error = json.loads((await follower.ledger.operation(order))["error"])
    assert error["title"] == "Provisioning timeout - exceeded 15 minutes"
    assert error["detail"].endswith("it was waiting: ErrImagePull: no such image")


async def test_job_that_cannot_create_its_pod_says_why(follower: Follower) -> None:
    order, _ = await follower.dispatched()
    event = {
        "metadata": {"name": "event"},
        "reason": "FailedCreate",
        "involvedObject": {"kind": "Job", "uid": f"job-{order.operation_id}"},
        "message": "exceeded quota: jobs",
    }
    await follower.cluster.put("events", event)
    await follower.run_once()
    assert (await follower.ledger.operation(order))["waiting_reason"] == "FailedCreate: exceeded quota: jobs"


async def test_deadline_and_cancel_hold_while_the_cluster_is_away(follower: Follower) -> None:
    late, _ = await follower.dispatched()
    unwanted = await follower.ledger.order()
    await follower.ledger.execute("UPDATE storeplane.operations SET deadline_at = now() - interval '1 second'")
    await follower.ledger.execute(
        "UPDATE storeplane.operations SET cancel_requested_at = now(), next_dispatch_at = NULL WHERE id = $1",
        unwanted.operation_id,
    )
    # Nothing was ever listed.
    await follower.parts.reconciler.run_all()
    assert (await follower.ledger.operation(late))["state"] == "failed"
    assert (await follower.ledger.operation(unwanted))["state"] == "cancelled"


async def test_waiting_in_the_queue_ends_after_a_day_unless_the_cluster_was_away(follower: Follower) -> None:
    order = await follower.ledger.order()
    await follower.ledger.execute("UPDATE storeplane.operations SET created_at = now() - interval '25 hours'")
    await follower.parts.reconciler.run_all()
    assert (await follower.ledger.operation(order))["state"] == "queued", "the cluster was away until now"
    await follower.ledger.execute("UPDATE storeplane.clusters SET circuit_closed_at = now() - interval '25 hours'")
    await follower.parts.reconciler.run_all()
    row = await follower.ledger.operation(order)
    assert (row["state"], json.loads(row["error"])["code"]) == ("failed", "QUEUE_TIMEOUT")


async def test_restarted_database_gives_every_pod_its_lease_once_more(follower: Follower) -> None:
    order, _ = await follower.dispatched()
    await follower.ledger.execute(
        "UPDATE storeplane.attempts SET state = 'running', pod_uid = 'pod', session_hash = sha256('key')"
    )
    await follower.ledger.execute("UPDATE storeplane.operations SET lease_until = now() - interval '1 hour'")
    _, (facts,) = await follower.parts.attempts.list_unsettled(10)
    started = await follower.ledger.value("SELECT pg_postmaster_start_time()")
    assert facts.lease_until is not None
    assert (facts.lease_until - started).total_seconds() == 180
    assert facts.operation_id == order.operation_id


async def test_watch_that_lags_behind_a_report_does_not_cost_the_log(follower: Follower) -> None:
    await follower.parts.observer.relist()
    order, _ = await follower.dispatched(**WORKING)
    follower.cluster.fails_until_healed("GET pods", _logs("nobody", 500))
    await follower.ledger.execute(
        "SELECT storeplane.end_attempt($1, 1, NULL, 'failed', 'retried', NULL, NULL, '{}')", order.operation_id
    )
    # The lists are those of before the Job.
    await follower.parts.reconciler.run_all()
    await follower.parts.harvester.drain(30)
    assert (await follower.ledger.attempt(order))["log_state"] == "stored"
