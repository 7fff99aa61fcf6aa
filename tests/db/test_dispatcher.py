"""The dispatcher on a real Postgres and a cluster that refuses in chosen ways."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.db.claims import ClaimRows
from controlplane.dispatcher import Dispatcher
from controlplane.kube.jobs import JobGateway
from tests.support import wishes
from tests.support.fake_apiserver import fake_apiserver, page, refuses
from tests.support.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from controlplane.db.pool import Database
    from controlplane.kube.client import KubeClient
    from tests.support.fake_apiserver import FakeApiServer

pytestmark = pytest.mark.db


class Desk:
    """A dispatcher, the cluster it posts to and the tables."""

    def __init__(self, ledger: Ledger, cluster: FakeApiServer, client: KubeClient, database: Database) -> None:
        self.ledger = ledger
        self.cluster = cluster
        rows = ClaimRows(database, "default")
        self.dispatcher = Dispatcher(rows, JobGateway(client, "storeplane-jobs"), wishes.settings(), name="test")

    async def run_once(self) -> bool:
        did = await self.dispatcher.run_once() is not None
        await self.dispatcher.drain(30)
        return did

    async def circuit(self) -> Any:
        return await self.ledger.connection.fetchrow("SELECT * FROM storeplane.clusters")

    async def circuit_may_be_tried(self) -> None:
        await self.ledger.execute("UPDATE storeplane.clusters SET circuit_until = now() - interval '1 second'")
        await self.ledger.leases_run_out()


@pytest.fixture
async def desk(database: Database, database_url: str) -> AsyncIterator[Desk]:
    ledger = await Ledger.open(database_url)
    async with fake_apiserver() as (cluster, client):
        yield Desk(ledger, cluster, client, database)
    kept, real = await ledger.counters()
    await ledger.close()
    assert kept == real


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502])
async def test_refusing_cluster_is_left_alone_and_goes_on_when_it_is_well(desk: Desk, status: int) -> None:
    first = await desk.ledger.order()
    desk.cluster.fails_until_healed("POST jobs", refuses(status, ""))
    assert await desk.run_once()
    second = await desk.ledger.order()
    # The second operation is due, and is not tried.
    assert not await desk.run_once()
    assert desk.cluster.calls["POST jobs"] == 1
    row = await desk.ledger.operation(first)
    assert row["waiting_reason"] == (await desk.circuit())["circuit_reason"]
    assert (row["state"], row["attempt"], row["lease_until"]) == ("queued", 1, None)
    assert (await desk.ledger.operation(second))["attempt"] == 0
    desk.cluster.heal()
    await desk.circuit_may_be_tried()
    assert await desk.run_once()
    assert (await desk.circuit())["circuit_reason"] is None
    assert await desk.run_once()
    for order in (first, second):
        row = await desk.ledger.operation(order)
        assert (row["state"], row["attempt"]) == ("running", 1)


async def test_asked_for_patience_is_given(desk: Desk) -> None:
    await desk.ledger.order()
    desk.cluster.fails("POST jobs", refuses(429, "", **{"Retry-After": "40"}))
    await desk.run_once()
    left = await desk.ledger.value("SELECT extract(epoch FROM circuit_until - now())::integer FROM storeplane.clusters")
    assert 35 <= left <= 40


@pytest.mark.parametrize("answer", [refuses(500, ""), refuses(504, ""), page(502), page(200)])
async def test_answer_that_was_lost_is_found_by_name_and_burns_nothing(desk: Desk, answer: Any) -> None:
    order = await desk.ledger.order()

    async def create_and_lose(request: web.Request) -> web.StreamResponse:
        await desk.cluster.put("jobs", await request.json())
        return await answer(request)  # type: ignore[no-any-return]  # an answer is a response

    desk.cluster.fails("POST jobs", create_and_lose)
    assert await desk.run_once()
    row = await desk.ledger.operation(order)
    assert (row["state"], row["attempt"]) == ("running", 1)
    assert desk.cluster.calls["POST jobs"] == 1
    assert (await desk.circuit())["circuit_reason"] is None


async def test_invalid_job_fails_the_operation_for_good(desk: Desk) -> None:
    order = await desk.ledger.order()
    desk.cluster.fails("POST jobs", refuses(422, "Invalid"))
    await desk.run_once()
    row = await desk.ledger.operation(order)
    assert (row["state"], json.loads(row["error"])["code"]) == ("failed", "JOB_REFUSED")
    assert (await desk.circuit())["circuit_reason"] is None


async def test_poisoned_operation_fails_and_the_queue_behind_it_moves(desk: Desk) -> None:
    poisoned = await desk.ledger.order()
    await desk.ledger.execute("UPDATE storeplane.operations SET spec = '{}' WHERE id = $1", poisoned.operation_id)
    well = await desk.ledger.order()
    await desk.run_once()
    row = await desk.ledger.operation(poisoned)
    assert (row["state"], json.loads(row["error"])["code"]) == ("failed", "JOB_UNRENDERABLE")
    assert (await desk.ledger.operation(well))["state"] == "running"
    assert (await desk.ledger.store(poisoned))["state"] == "failed"
