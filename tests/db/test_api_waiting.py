"""Why an operation waits and at which place, as the API tells it from what stands in the tables."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.domain.store import Role
from tests.support.api import Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database

pytestmark = pytest.mark.db


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with serve(database) as made:
        yield made


async def fill_queue(api: Api, count: int) -> None:
    """Queue that many operations behind the one there is, each of a store of its own."""
    await api.execute(
        "WITH store AS (INSERT INTO storeplane.stores (id, owner_id, cluster_id, name, slug, engine, state, namespace, "
        "urls) SELECT gen_random_uuid(), s.owner_id, s.cluster_id, 'x', 'x' || n, s.engine, s.state, 'store-x' || n, "
        "'{}' FROM storeplane.stores AS s, generate_series(1, $1::integer) AS n RETURNING id, owner_id, cluster_id) "
        "INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id) "
        "SELECT gen_random_uuid(), id, owner_id, cluster_id, 'create', '{}', 'r' FROM store",
        count,
    )


async def _waiting(api: Api, body: Any) -> Any:
    return (await api.call("GET", f"/api/operations/{body['operation']['id']}"))[1]["waiting"]


def _played(queues: dict[Any, tuple[datetime, list[tuple[datetime, Any]]]]) -> list[Any]:
    """Return ids in the order of a claim that takes them one by one: least recently served user, their oldest."""
    left = {user: (served, 0, sorted(queue)) for user, (served, queue) in queues.items()}
    order = []
    while any(queue for _, _, queue in left.values()):
        user = min(
            (user for user, (_, _, queue) in left.items() if queue),
            key=lambda user: (left[user][1], left[user][0], left[user][2][0]),
        )
        served, turns, queue = left[user]
        order.append(queue[0][1])
        left[user] = (served, turns + 1, queue[1:])
    return order


@pytest.mark.parametrize("seed", range(4))
async def test_position_is_the_place_in_the_claims_order(api: Api, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- the same on every run
    began = datetime(2026, 1, 1, tzinfo=UTC)
    users = [api, *[await api.as_user() for _ in range(4)]]
    queues: dict[Any, tuple[datetime, list[tuple[datetime, Any]]]] = {}
    bodies = {}
    for number, user in enumerate(users):
        for shop in range(rng.randint(0, 5)):
            body = await user.create(f"Shop {shop}")
            bodies[body["operation"]["id"]] = (user, body)
        # Two of them were served at the same moment.
        served = began + timedelta(seconds=min(number, 3) * rng.choice((1, 1, -1)))
        await api.execute(
            "UPDATE storeplane.user_slots SET last_served_at = $2 WHERE user_id = $1", user.caller.user_id, served
        )
        queues[user.caller.user_id] = (served, [])
    for operation_id, (user, _) in bodies.items():
        created_at = began + timedelta(seconds=rng.randint(0, 1000))
        await api.execute("UPDATE storeplane.operations SET created_at = $2 WHERE id = $1", operation_id, created_at)
        queues[user.caller.user_id][1].append((created_at, operation_id))
    # Some are under way and wait for nothing.
    for operation_id in rng.sample(sorted(bodies), k=len(bodies) // 4):
        user, body = bodies.pop(operation_id)
        await api.open_attempt(body)
        served, queue = queues[user.caller.user_id]
        queues[user.caller.user_id] = (served, [each for each in queue if each[1] != operation_id])
    expected = {operation_id: place for place, operation_id in enumerate(_played(queues), 1)}
    found = {operation_id: (await _waiting(*each))["position"] for operation_id, each in bodies.items()}
    assert found == expected


async def test_reason_follows_what_stops_it(api: Api) -> None:
    body = await api.create()
    assert (await _waiting(api, body))["reason"] == "it is next"
    other = await api.create("Other")
    assert await _waiting(api, other) == (await _waiting(api, other)) | {
        "reason": "it waits for its turn",
        "position": 2,
    }
    for statement, reason in (
        ("UPDATE storeplane.clusters SET bucket_tokens = 0, bucket_rate = 0.001", "limited rate"),
        ("UPDATE storeplane.operations SET next_dispatch_at = now() + interval '1 hour'", "after a pause; it goes on"),
        ("UPDATE storeplane.operations SET waiting_reason = 'quota jobs is used up'", "quota jobs is used up; it goes"),
        ("UPDATE storeplane.clusters SET in_flight_limit = 0", "the cluster takes no operations for now"),
        ("UPDATE storeplane.user_slots SET slots = 0", "you have 0 operations under way, which is your limit"),
        (
            "UPDATE storeplane.clusters SET circuit_reason = 'it refuses our login', circuit_until = now()",
            "left alone for the moment: it refuses our login",
        ),
    ):
        await api.execute(statement)
        assert reason in (await _waiting(api, body))["reason"]
    admin = await api.as_user(role=Role.ADMIN)
    await api.execute("UPDATE storeplane.clusters SET circuit_reason = NULL, circuit_until = NULL")
    assert "its owner has" in (await _waiting(admin, body))["reason"]


async def test_what_waits_for_nothing_has_no_place_while_others_wait(api: Api) -> None:
    body, stranger = await api.create(), await api.as_user()
    await stranger.create("Other")
    path = f"/api/operations/{body['operation']['id']}"
    status, cancelled, _ = await api.call("POST", f"{path}/cancel")
    assert (status, cancelled["operation"]["state"]) == (202, "cancelled")
    admin = await api.as_user(role=Role.ADMIN)
    for asker, where in ((api, path), (admin, path), (admin, "/api/operations"), (admin, "/api/stores")):
        assert (await asker.call("GET", where))[0] == 200


async def test_pods_of_an_earlier_attempt_are_named(api: Api) -> None:
    body = await api.create()
    await api.open_attempt(body)
    await api.execute("UPDATE storeplane.attempts SET state = 'failed', outcome = 'retried', finished_at = now()")
    assert "is being decided" in (await _waiting(api, body))["reason"]
    await api.execute("UPDATE storeplane.operations SET next_dispatch_at = now()")
    assert "the pods of attempt 1" in (await _waiting(api, body))["reason"]
    await api.execute("UPDATE storeplane.attempts SET pods_ended_at = now()")
    assert (await _waiting(api, body))["reason"] == "it is next"


async def test_pod_that_does_not_start_has_a_reason_and_no_place(api: Api) -> None:
    body = await api.create()
    await api.open_attempt(body, state="dispatched")
    assert await _waiting(api, body) is None
    await api.execute("UPDATE storeplane.operations SET waiting_reason = 'ErrImagePull: no such image'")
    waiting = await _waiting(api, body)
    assert (waiting["reason"], waiting["position"]) == ("ErrImagePull: no such image", None)
    await api.execute("UPDATE storeplane.attempts SET state = 'running'")
    assert await _waiting(api, body) is None


async def test_place_in_a_long_queue(api: Api) -> None:
    """One operation has its place however far back; a page does not count a long queue once for each row."""
    first = await api.create()
    await fill_queue(api, 1_500)
    (last,) = await api.execute("SELECT id FROM storeplane.operations ORDER BY created_at DESC, id DESC LIMIT 1")
    _, detail, _ = await api.call("GET", f"/api/operations/{last['id']}")
    assert detail["waiting"]["position"] == 1_501
    _, page, _ = await api.call("GET", "/api/operations?limit=200")
    assert [item["waiting"]["position"] for item in page["items"]] == [None] * 200
    assert (await _waiting(api, first))["position"] == 1
