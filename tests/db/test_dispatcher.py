"""The dispatcher on a real Postgres and a cluster that refuses in chosen ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controlplane.db.attempts import AttemptRows
from controlplane.db.stores import StoreRows
from controlplane.dispatcher import Dispatcher
from controlplane.kube.jobs import JobGateway
from tests.support import wishes
from tests.support.faulty_cluster import JOBS, faulty_cluster, refusal

if TYPE_CHECKING:
    from controlplane.db.pool import Database

pytestmark = pytest.mark.db


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
async def test_refusing_cluster_is_left_alone_and_nobody_loses_a_turn(database: Database, status: int) -> None:
    owners = [(await wishes.add_user(database))[0] for _ in range(2)]
    new = [wishes.new_store(owner) for owner in owners]
    for each in new:
        await StoreRows(database).submit_create(each)
    async with faulty_cluster() as (cluster, client):
        cluster.says("POST", JOBS, refusal("", "no"), status)
        rows = AttemptRows(database)
        dispatcher = Dispatcher(rows, JobGateway(client, "storeplane-jobs"), wishes.settings(), name="test")
        assert await dispatcher.run_once()
        # The second operation is due, and is not tried.
        assert not await dispatcher.run_once()
        assert cluster.calls["POST", JOBS] == 1
    waiting = []
    for owner, each in zip(owners, new, strict=True):
        operation = await StoreRows(database).get_operation(each.operation_id, owner)
        assert operation is not None
        assert operation.waiting is not None
        waiting.append((operation.waiting.reason, operation.waiting.position, operation.attempt))
    assert waiting[0][0] != "queued"
    assert waiting[0][1:] == (1, 1)
    assert waiting[1] == ("queued", 2, 0)
