"""Lists page by page, what an operation shows, and that nobody sees what is another's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from controlplane.api.routes import ROUTES, Route
from controlplane.domain.store import Role
from tests.support import wishes
from tests.support.api import Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database

pytestmark = pytest.mark.db

OF_AN_ID = [route for route in ROUTES if "{id}" in route.path]


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with serve(database) as made:
        yield made


async def _all(api: Api, path: str, limit: int) -> list[Any]:
    found: list[Any] = []
    cursor = ""
    for _ in range(20):
        status, page, _ = await api.call("GET", f"{path}{'&' if '?' in path else '?'}limit={limit}{cursor}")
        assert (status, len(page["items"]) <= limit) == (200, True)
        found += page["items"]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"
    raise AssertionError(found)


async def test_lists_are_complete_newest_first_whatever_the_page(api: Api) -> None:
    bodies = [await api.create(f"Shop {number}") for number in range(5)]
    # Rows of one moment: the id decides, and none is lost between pages.
    await api.execute("UPDATE storeplane.stores SET created_at = '2026-01-01 00:00:00.123456+00'")
    await api.execute("UPDATE storeplane.operations SET created_at = '2026-01-01 00:00:00.123456+00'")
    stores = sorted((body["store"]["id"] for body in bodies), reverse=True)
    operations = sorted((body["operation"]["id"] for body in bodies), reverse=True)
    for limit in (1, 2, 5, 200):
        assert [item["store"]["id"] for item in await _all(api, "/api/stores", limit)] == stores
        assert [item["id"] for item in await _all(api, "/api/operations", limit)] == operations


async def test_filters(api: Api) -> None:
    first, second, third = [await api.create(f"Shop {number}") for number in range(3)]
    await api.fail(first)
    _, deleted, _ = await api.call("DELETE", f"/api/stores/{second['store']['id']}")
    await api.execute("UPDATE storeplane.stores SET state = 'deleted' WHERE id = $1", second["store"]["id"])

    async def stores(query: str) -> list[str]:
        return [item["store"]["name"] for item in await _all(api, f"/api/stores?{query}", 50)]

    assert await stores("") == ["Shop 2", "Shop 0"]
    assert await stores("state=failed") == ["Shop 0"]
    assert await stores("state=deleted") == ["Shop 1"]
    assert await stores("engine=medusa&state=provisioning") == ["Shop 2"]
    assert await stores("engine=other") == []

    async def operations(query: str) -> list[str]:
        return [item["id"] for item in await _all(api, f"/api/operations?{query}", 50)]

    assert await operations("kind=delete") == [deleted["operation"]["id"]]
    assert await operations(f"store={third['store']['id']}&state=queued") == [third["operation"]["id"]]
    assert await operations(f"store={second['store']['id']}") == [deleted["operation"]["id"], second["operation"]["id"]]
    assert await operations("state=failed") == [first["operation"]["id"]]


async def test_wrong_query_is_named_by_its_parameter(api: Api) -> None:
    for query, name in (
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=1e1", "limit"),
        ("limit=1&limit=2", "limit"),
        ("state=gone", "state"),
        ("cursor=nonsense", "cursor"),
        ("cursor=MjAyNi0wMS0wMQ", "cursor"),
        ("cursor=%F0%9F%8E%89", "cursor"),
        ("page=2", "page"),
    ):
        for path in ("/api/stores", "/api/operations"):
            status, problem, _ = await api.call("GET", f"{path}?{query}")
            assert (status, problem["code"]) == (422, "INVALID_INPUT")
            assert problem["errors"][0]["pointer"] == f"#/{name}"


@pytest.mark.parametrize(
    ("limit", "says"), [("-1", "greater than or equal to 1"), ("9" * 21, "less than or equal to 200")]
)
async def test_number_out_of_range_is_told_the_range(api: Api, limit: str, says: str) -> None:
    _, problem, _ = await api.call("GET", f"/api/stores?limit={limit}")
    assert says in problem["errors"][0]["detail"]


async def test_operation_shows_attempts_with_phases(api: Api, database_url: str) -> None:
    body = await api.create()
    name = await api.open_attempt(body)
    await api.execute(
        "UPDATE storeplane.attempts SET diagnosis = '{\"category\": \"x\"}', exit_code = 10, log_state = 'stored'"
    )
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute(
            "INSERT INTO storeplane.phases (operation_id, number, phase, started_at, finished_at, detail) "
            "SELECT operation_id, 1, p.phase, '2026-01-01 10:00:00+00'::timestamptz + p.began, "
            "'2026-01-01 10:00:00+00'::timestamptz + p.ended, p.detail::jsonb FROM storeplane.attempts, (VALUES "
            "('namespace', interval '0', interval '1.5 s', '{\"uid\": \"u\"}'), "
            "('release', interval '2 s', NULL, '{}')) AS p (phase, began, ended, detail)"
        )
    finally:
        await owner.close()
    _, detail, _ = await api.call("GET", f"/api/operations/{body['operation']['id']}")
    (attempt,) = detail["attempts"]
    assert (attempt["job_name"], attempt["state"], attempt["exit_code"]) == (name, "running", 10)
    assert attempt["diagnosis"] == {"category": "x"}
    assert [each["phase"] for each in attempt["phases"]] == ["namespace", "release"]
    assert attempt["phases"][0] == {
        "phase": "namespace",
        "started_at": "2026-01-01T10:00:00Z",
        "finished_at": "2026-01-01T10:00:01.500000Z",
        "detail": {"uid": "u"},
    }
    assert attempt["phases"][1]["finished_at"] is None


async def test_engines_are_listed_with_versions(api: Api) -> None:
    _, body, _ = await api.call("GET", "/api/engines")
    medusa, woocommerce = body["supported"]
    plans = medusa.pop("plans")
    assert medusa == {
        "name": "medusa",
        "version": "2.21.2",
        "upgrades_from": [],
        "chart": "medusa",
        "chart_version": "0.1.0",
    }
    assert [each["name"] for each in plans] == ["small", "medium", "large"]
    assert plans[0]["values"]["server"]["resources"]["limits"] == {"cpu": "1", "memory": "768Mi"}
    assert plans[0]["quota"]["persistentvolumeclaims"] == "1"
    assert woocommerce["name"] == "woocommerce"
    assert [each["name"] for each in body["planned"]] == ["magento"]


async def test_engine_without_images_is_not_offered(database: Database) -> None:
    images = {"woocommerce": wishes.ENGINE_IMAGES["woocommerce"]}
    async with serve(database, settings={"STOREPLANE_ENGINE_IMAGES": json.dumps(images)}) as api:
        _, body, _ = await api.call("GET", "/api/engines")
        assert [each["name"] for each in body["supported"]] == ["woocommerce"]
        status, problem, _ = await api.call("POST", "/api/stores", json={"name": "a", "engine": "medusa"})
        assert (status, problem["detail"]) == (422, "Invalid engine. Supported: woocommerce")


@pytest.mark.parametrize("route", OF_AN_ID, ids=lambda route: f"{route.method} {route.path}")
async def test_strangers_id_is_unknown_and_kept(api: Api, route: Route) -> None:
    body = await api.create()
    await api.fail(body)
    stranger = await api.as_user()
    kind = "store" if "/stores/" in route.path else "operation"
    path = route.path.replace("{id}", body[kind]["id"])
    before = await api.execute("SELECT * FROM storeplane.operations")
    status, problem, _ = await stranger.call(route.method, path)
    if route.path.startswith("/api/admin/"):
        assert (status, problem["code"]) == (403, "FORBIDDEN")
        return
    nobodys = route.path.replace("{id}", "0198c2a0-0000-7000-8000-000000000000")
    other_status, other, _ = await stranger.call(route.method, nobodys)
    # The same answer but for the id, so that nobody learns what exists.
    assert (status, problem["code"]) == (other_status, other["code"]) == (404, f"{kind.upper()}_NOT_FOUND")
    assert await api.execute("SELECT * FROM storeplane.operations") == before
    found = [details["id"] for action, details in await api.audited() if action == "security.foreign_id"]
    assert found == [body[kind]["id"]]


async def test_lists_hold_nothing_of_strangers(api: Api) -> None:
    body = await api.create()
    stranger = await api.as_user()
    for path in ("/api/stores", "/api/operations", f"/api/operations?store={body['store']['id']}"):
        assert (await stranger.call("GET", path))[1] == {"items": [], "next": None}
    for role in (Role.OPERATOR, Role.ADMIN):
        other = await api.as_user(role=role)
        assert len((await other.call("GET", "/api/stores"))[1]["items"]) == 1
        assert len((await other.call("GET", f"/api/operations?store={body['store']['id']}"))[1]["items"]) == 1
