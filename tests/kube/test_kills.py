"""Whole processes on a real cluster: one wish is one Job, however often who does it is killed."""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import wishes
from tests.support.service import serving

if TYPE_CHECKING:
    from pathlib import Path

    from controlplane.db.pool import Database
    from tests.support.plane import Plane
    from tests.support.service import Service

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

ORDERS = 12
KILLS = 6


@pytest.fixture
def variables(plane: Plane) -> dict[str, str]:
    """Give the environment of a process that works on the plane's database and namespace."""
    settings = plane.settings
    return {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "STOREPLANE_KUBECONFIG": str(plane.namespace.kube.kubeconfig),
        "STOREPLANE_JOBS_NAMESPACE": settings.jobs_namespace,
        "STOREPLANE_JOBS_SERVICE_ACCOUNT": settings.jobs_service_account,
        "STOREPLANE_PROVISIONER_IMAGE": settings.provisioner_image,
        "STOREPLANE_PROVISIONER_DB_HOST": settings.provisioner_db_host,
        "STOREPLANE_PROVISIONER_DB_PORT": str(settings.provisioner_db_port),
        "STOREPLANE_PROVISIONER_DB_NAME": settings.provisioner_db_name,
        "STOREPLANE_DISPATCH_INTERVAL_SECONDS": "0.2",
        "STOREPLANE_RECONCILE_INTERVAL_SECONDS": "1",
        "STOREPLANE_CREATE_RATE_PER_MINUTE": "1000",
    }


async def _invariants(plane: Plane) -> None:
    """Hold tables and cluster against each other: nothing lost, nothing doubled."""
    kept, real = await plane.ledger.counters()
    assert kept == real
    doubled = await plane.ledger.value(
        "SELECT count(*) FROM (SELECT operation_id FROM storeplane.attempts WHERE outcome = 'succeeded'"
        " GROUP BY operation_id HAVING count(*) > 1) AS d"
    )
    assert doubled == 0
    names = [job["metadata"]["name"] for job in plane.jobs()]
    known = await plane.ledger.value(
        "SELECT count(*) FROM storeplane.attempts WHERE job_name = ANY ($1::text[])", names
    )
    assert known == len(names)


async def test_same_key_on_two_replicas_is_one_operation_and_one_job(
    plane: Plane, database: Database, variables: dict[str, str], tmp_path: Path
) -> None:
    _, token = await wishes.add_user(database)
    wish = {"name": "noop", "engine": "medusa"}
    with serving(variables, tmp_path, "one") as one, serving(variables, tmp_path, "two") as two:
        answers = await asyncio.gather(
            *(each.aask("POST", "/api/stores", token, wish, Idempotency_Key="k1") for each in (one, two) * 4)
        )
        assert {answer.status for answer in answers} == {202}
        (operation_id,) = {answer.body["operation"]["id"] for answer in answers}

        async def is_done() -> bool:
            answer = await two.aask("GET", f"/api/operations/{operation_id}", token)
            return bool(answer.body["state"] == "succeeded")

        await plane.wait_until(is_done, "the operation has succeeded")
        again = await two.aask("POST", "/api/stores", token, wish, Idempotency_Key="k1")
        assert again.body == answers[0].body
        other = await one.aask("POST", "/api/stores", token, wish | {"name": "other"}, Idempotency_Key="k1")
        assert (other.status, other.body["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    assert len(plane.jobs()) == 1
    assert await plane.ledger.value("SELECT count(*) FROM storeplane.operations") == 1


async def test_replicas_that_are_killed_again_and_again_lose_and_double_nothing(
    plane: Plane, database: Database, variables: dict[str, str], tmp_path: Path
) -> None:
    caller, token = await wishes.add_user(database)
    await plane.ledger.execute("UPDATE storeplane.users SET max_stores = 100 WHERE id = $1", caller.user_id)
    chance = random.Random(20)  # noqa: S311 -- the same kills in every run
    accepted: dict[str, str] = {}

    async def order(service: Service, number: int) -> None:
        """Ask until it is accepted: a killed one may have written the order and answered nobody."""
        name = f"noop {number} " + ("end=retryable:1" if number % 4 == 0 else "")
        wish = {"name": name.strip(), "engine": "medusa"}
        answer = await service.aask("POST", "/api/stores", token, wish, Idempotency_Key=f"order-{number}")
        assert answer.status == 202, answer
        accepted[f"order-{number}"] = answer.body["operation"]["id"]

    with ExitStack() as steady:
        steadfast = steady.enter_context(serving(variables, tmp_path, "steadfast"))
        for kill in range(KILLS):
            with serving(variables, tmp_path, f"mortal-{kill}") as mortal:
                for number in range(kill * ORDERS // KILLS, (kill + 1) * ORDERS // KILLS):
                    await order(mortal, number)
                await asyncio.sleep(chance.uniform(0.0, 0.4))  # the moment of the kill, spread over the steps
                mortal.kill()
        # Whose answer was lost asks again with its key.
        for number in range(ORDERS):
            before = accepted[f"order-{number}"]
            await order(steadfast, number)
            assert accepted[f"order-{number}"] == before

        async def are_done() -> bool:
            open_ones: Any = await plane.ledger.value(
                "SELECT count(*) FROM storeplane.operations WHERE finished_at IS NULL"
            )
            return bool(open_ones == 0)

        await plane.wait_until(are_done, "every operation has ended")
    states = await plane.ledger.connection.fetch(
        "SELECT state, count(*) AS n FROM storeplane.operations GROUP BY state"
    )
    assert {row["state"]: row["n"] for row in states} == {"succeeded": ORDERS}
    assert await plane.ledger.value("SELECT count(*) FROM storeplane.stores WHERE state = 'ready'") == ORDERS
    await _invariants(plane)
