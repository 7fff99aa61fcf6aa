"""The reconciler on a real Postgres and a cluster that fails in chosen ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from controlplane.db.attempts import AttemptRows
from controlplane.db.stores import StoreRows
from controlplane.domain.store import Caller, Role
from controlplane.kube.jobs import JobGateway
from controlplane.reconciler import Reconciler
from tests.support import wishes
from tests.support.faulty_cluster import PODS, FaultyCluster, faulty_cluster, job_object, pod_object, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from controlplane.db.pool import Database
    from controlplane.domain.attempt import ClaimedAttempt
    from controlplane.domain.operation import Operation

pytestmark = pytest.mark.db

ENDED = {"terminated": {"exitCode": 20, "reason": "Error"}}


class Follower:
    """A reconciler with the cluster it looks at."""

    def __init__(self, database: Database, cluster: FaultyCluster, reconciler: Reconciler) -> None:
        self.database = database
        self.cluster = cluster
        self.reconciler = reconciler

    async def dispatched(self) -> ClaimedAttempt:
        """Return an attempt whose Job is recorded under the uid `job-<operation>`."""
        owner, _ = await wishes.add_user(self.database)
        await StoreRows(self.database).submit_create(wishes.new_store(owner))
        claimed = await wishes.claim(self.database)
        await AttemptRows(self.database).record_job(claimed.operation_id, 1, _uid(claimed))
        return claimed

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.database.transaction() as session:
            await session._connection.execute(statement, *arguments)  # noqa: SLF001 -- a test bends time

    async def attempt(self, operation_id: UUID) -> Any:
        async with self.database.transaction() as session:
            return await session._connection.fetchrow(  # noqa: SLF001 -- no service shows attempts yet
                "SELECT * FROM storeplane.attempts WHERE operation_id = $1", operation_id
            )

    async def operation(self, claimed: ClaimedAttempt) -> Operation:
        found = await StoreRows(self.database).get_operation(
            claimed.operation_id, Caller(claimed.owner_id, Role.MEMBER)
        )
        assert found is not None
        return found


def _uid(claimed: ClaimedAttempt) -> str:
    return f"job-{claimed.operation_id}"


def _job(claimed: ClaimedAttempt) -> dict[str, Any]:
    return job_object(claimed.job_name, _uid(claimed), claimed.operation_id)


def _pod(claimed: ClaimedAttempt, **state: Any) -> dict[str, Any]:
    return pod_object(f"pod-{claimed.operation_id}", f"uid-{claimed.operation_id}", _uid(claimed), **state)


def _log(claimed: ClaimedAttempt) -> str:
    return f"{PODS}/pod-{claimed.operation_id}/log"


@pytest.fixture
async def follower(database: Database) -> AsyncIterator[Follower]:
    async with faulty_cluster() as (cluster, client):
        jobs = JobGateway(client, "storeplane-jobs")
        yield Follower(database, cluster, Reconciler(AttemptRows(database), jobs, wishes.settings()))


@pytest.mark.parametrize("status", [403, 500, 502, 504])
async def test_log_of_a_lost_node_is_tried_again_and_then_unavailable(follower: Follower, status: int) -> None:
    lost, well = await follower.dispatched(), await follower.dispatched()
    follower.cluster.holds([_job(lost), _job(well)], [_pod(lost, **ENDED), _pod(well, **ENDED)])
    follower.cluster.says("GET", _log(lost), refusal("", "the kubelet does not answer"), status)
    follower.cluster.says("GET", _log(well), "its log")
    await follower.reconciler.run_once()
    await follower.execute("UPDATE storeplane.attempts SET end_seen_at = now() - interval '11 seconds'")
    await follower.reconciler.run_once()
    await follower.reconciler.run_once()
    # "Not yet", and the other one is not held up.
    assert (await follower.attempt(well.operation_id))["log_state"] == "stored"
    attempt = await follower.attempt(lost.operation_id)
    assert (attempt["state"], attempt["harvested_at"]) == ("failed", None)
    await follower.execute("UPDATE storeplane.attempts SET finished_at = now() - interval '31 seconds'")
    await follower.reconciler.run_once()
    assert (await follower.attempt(lost.operation_id))["log_state"] == "unavailable"
    calls = follower.cluster.calls["GET", _log(lost)]
    await follower.reconciler.run_once()
    assert follower.cluster.calls["GET", _log(lost)] == calls


async def test_attempts_beyond_one_page_are_seen(database: Database) -> None:
    async with faulty_cluster() as (cluster, client):
        follower = Follower(
            database, cluster, Reconciler(AttemptRows(database), JobGateway(client, "x"), wishes.settings())
        )
        made = [await follower.dispatched() for _ in range(5)]
        now, found = await AttemptRows(database).list_to_reconcile(2)
        assert now is not None
        assert [facts.operation_id for facts in found] == [claimed.operation_id for claimed in made]


async def test_grace_begins_when_the_end_is_seen(follower: Follower) -> None:
    claimed = await follower.dispatched()
    # The kubelet's clock is a day ahead.
    state = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2999-01-01T00:00:00Z"}}
    follower.cluster.holds([_job(claimed)], [_pod(claimed, **state)])
    await follower.reconciler.run_once()
    assert (await follower.attempt(claimed.operation_id))["end_seen_at"] is not None
    await follower.reconciler.run_once()
    assert (await follower.operation(claimed)).state == "running"
    await follower.execute("UPDATE storeplane.attempts SET end_seen_at = now() - interval '11 seconds'")
    await follower.reconciler.run_once()
    assert (await follower.operation(claimed)).state == "failed"


async def test_why_a_pod_does_not_start_is_told_and_kept_in_the_timeout(follower: Follower) -> None:
    claimed = await follower.dispatched()
    assert (await follower.operation(claimed)).waiting is None
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    follower.cluster.holds([_job(claimed)], [_pod(claimed, **waiting)])
    await follower.reconciler.run_once()
    operation = await follower.operation(claimed)
    assert operation.waiting is not None
    assert (operation.waiting.reason, operation.waiting.position) == ("ErrImagePull: no such image", None)
    await follower.execute("UPDATE storeplane.operations SET deadline_at = now() - interval '1 second'")
    await follower.reconciler.run_once()
    operation = await follower.operation(claimed)
    assert operation.error is not None
    assert operation.error["title"] == "Provisioning timeout - exceeded 15 minutes"
    assert operation.error["detail"].endswith("its pod did not start: ErrImagePull: no such image")
    assert operation.waiting is None


async def test_job_that_cannot_create_its_pod_says_why(follower: Follower) -> None:
    claimed = await follower.dispatched()
    follower.cluster.holds([_job(claimed)], [])
    event = {"involvedObject": {"kind": "Job", "uid": _uid(claimed)}, "message": "exceeded quota: jobs"}
    follower.cluster.says("GET", "/api/v1/namespaces/storeplane-jobs/events", {"kind": "EventList", "items": [event]})
    await follower.reconciler.run_once()
    waiting = (await follower.operation(claimed)).waiting
    assert waiting is not None
    assert waiting.reason == "FailedCreate: exceeded quota: jobs"
