from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from yarl import URL

from tests.support.api import Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database

pytestmark = pytest.mark.db


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with serve(database) as made:
        yield made


async def test_create_is_accepted_and_can_be_read(api: Api) -> None:
    status, body, headers = await api.call("POST", "/api/stores", json={"name": "My Shop!", "engine": "medusa"})
    assert status == 202
    assert headers["Location"] == f"/api/operations/{body['operation']['id']}"
    assert body["store"]["state"] == "provisioning"
    assert body["store"]["namespace"].startswith("store-my-shop-")
    assert set(body["store"]) == {"id", "name", "engine", "engine_flavour", "plan", "state", "urls", "namespace"}
    assert (body["store"]["plan"], body["store"]["engine_flavour"]) == ("small", None)
    assert body["operation"]["state"] == "queued"
    assert body["operation"]["waiting"]["position"] == 1
    assert set(body["operation"]) == {"id", "kind", "state", "attempt", "waiting", "error"}
    assert (await api.call("GET", f"/api/stores/{body['store']['id']}"))[:2] == (200, body)
    status, operation, _ = await api.call("GET", headers["Location"])
    assert (status, body["operation"].items() <= operation.items(), operation["attempts"]) == (200, True, [])
    assert operation["store_id"] == body["store"]["id"]
    assert len(api.wakes) == 1
    status, page, _ = await api.call("GET", f"/api/stores/{body['store']['id']}/events")
    assert (status, [item["event_type"] for item in page["items"]], page["next"]) == (200, ["created"], None)


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        ({"name": "a", "engine": "shopify"}, "ENGINE_UNSUPPORTED", "Invalid engine. Supported: medusa, woocommerce"),
        (
            {"name": "a", "engine": "magento"},
            "ENGINE_PLANNED",
            "Engine 'magento' coming soon! Supported: medusa, woocommerce",
        ),
        (
            {"name": "a", "engine": "medusa", "plan": "huge"},
            "INVALID_INPUT",
            "Unknown plan. Supported: small, medium, large",
        ),
        ({"name": "a", "engine": "medusa", "host": "shop"}, "INVALID_INPUT", "Store host is not valid"),
        ({"name": "a", "engine": "medusa", "host": "shop.localhost"}, "INVALID_INPUT", "Store host is reserved"),
        ({"name": "a", "engine": "medusa", "tls": True}, "INVALID_INPUT", "TLS is not available"),
        ({"name": "Admin", "engine": "medusa"}, "NAME_RESERVED", "Store name is reserved"),
        (
            {"name": "a", "slug": "x" * 49, "engine": "medusa"},
            "NAME_TOO_LONG",
            "Store name too long (Kubernetes limit)",
        ),
        ({"name": "a", "engine": "medusa", "plan": 1}, "INVALID_INPUT", "The body does not match the schema"),
        ({"name": 7, "engine": "medusa"}, "INVALID_INPUT", "The body does not match the schema"),
        ([], "INVALID_INPUT", "The body does not match the schema"),
    ],
)
async def test_bad_wish_is_a_problem(api: Api, body: Any, code: str, detail: str) -> None:
    status, problem, _ = await api.call("POST", "/api/stores", json=body)
    assert (status, problem["code"], problem["detail"]) == (422, code, detail)
    assert problem["errors"]


async def test_unknown_field_is_named_by_its_pointer(api: Api) -> None:
    _, problem, _ = await api.call("POST", "/api/stores", json={"name": "a", "engine": "medusa", "pl/an": 1})
    assert [each["pointer"] for each in problem["errors"]] == ["#/pl~1an"]


async def test_invalid_json_is_a_problem_that_repeats_nothing(api: Api) -> None:
    status, problem, _ = await api.call("POST", "/api/stores", data=b'{"name": "hunter2')
    assert (status, problem["code"]) == (400, "INVALID_JSON")
    assert "hunter2" not in str(problem)


async def test_field_that_is_given_twice_is_named(api: Api) -> None:
    data = b'{"name": "first", "engine": "medusa", "n\\u0061me": "second"}'
    status, problem, _ = await api.call("POST", "/api/stores", data=data)
    assert (status, problem["errors"]) == (422, [{"pointer": "#/name", "detail": "give it once"}])


async def test_body_that_is_not_what_its_header_says_is_a_problem(api: Api) -> None:
    data, headers = b'{"name": "Shop", "engine": "medusa"}', {"Content-Encoding": "gzip"}
    status, problem, _ = await api.call("POST", "/api/stores", data=data, headers=headers)
    assert (status, problem["code"]) == (400, "INVALID_BODY")


async def test_same_name_twice_is_a_conflict(api: Api) -> None:
    wish = {"name": "Shop", "engine": "medusa"}
    assert (await api.call("POST", "/api/stores", json=wish))[0] == 202
    status, problem, _ = await api.call("POST", "/api/stores", json=wish)
    assert (status, problem["code"]) == (409, "NAME_TAKEN")


@pytest.mark.parametrize(
    ("authorization", "code", "detail"),
    [
        ("", "UNAUTHORIZED", "Authentication required"),
        ("Basic eDp5", "UNAUTHORIZED", "Authentication required"),
        ("Bearer wrong", "INVALID_TOKEN", "Invalid or expired token"),
    ],
)
@pytest.mark.parametrize("path", ["/api/stores/x", "/nowhere"])
async def test_without_a_valid_token_nothing_is_told(
    api: Api, authorization: str, code: str, detail: str, path: str
) -> None:
    status, problem, headers = await api.call("GET", path, headers={"Authorization": authorization})
    assert (status, problem["code"], problem["detail"]) == (401, code, detail)
    assert headers["WWW-Authenticate"] == "Bearer"


async def test_framework_errors_are_problems_too(api: Api) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "ROUTE_NOT_FOUND"),
        ("DELETE", "/api/stores", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/stores/not-an-id", 404, "NOT_FOUND"),
        ("GET", "/api/operations/0198c2a0-0000-7000-8000-000000000000", 404, "OPERATION_NOT_FOUND"),
    ):
        found, problem, headers = await api.call(method, path)
        assert (found, problem["code"]) == (status, code)
        if status == 405:
            assert headers["Allow"] == "GET,HEAD,POST"
    status, problem, _ = await api.call("POST", "/api/stores", data=b" " * 70_000)
    assert (status, problem["code"]) == (413, "BODY_TOO_LARGE")


async def test_strangers_get_not_found(api: Api) -> None:
    _, body, _ = await api.call("POST", "/api/stores", json={"name": "Shop", "engine": "medusa"})
    stranger = await api.as_user()
    for path in (
        f"/api/stores/{body['store']['id']}",
        f"/api/stores/{body['store']['id']}/events",
        f"/api/operations/{body['operation']['id']}",
        f"/api/operations/{body['operation']['id']}/logs",
    ):
        assert (await stranger.call("GET", path))[0] == 404


async def test_log_says_why_there_is_none(api: Api) -> None:
    _, body, _ = await api.call("POST", "/api/stores", json={"name": "Shop", "engine": "medusa"})
    status, problem, _ = await api.call("GET", f"/api/operations/{body['operation']['id']}/logs")
    assert (status, problem["detail"]) == (404, "No log: the operation's Job has not been created yet")


async def test_events_page_by_cursor(api: Api) -> None:
    body = await api.create()
    await api.execute(
        "INSERT INTO storeplane.store_events (store_id, event_type, message) "
        "SELECT id, 'phase_started', 'one of many' FROM storeplane.stores, generate_series(1, 4)"
    )
    path, seen = f"/api/stores/{body['store']['id']}/events", 0
    cursor: str | None = "0"
    while cursor is not None:
        status, page, _ = await api.call("GET", f"{path}?limit=2&cursor={cursor}")
        assert status == 200
        seen, cursor = seen + len(page["items"]), page["next"]
    assert seen == 5
    for query in ("limit=-1", "limit=0", "limit=1000", "limit=1_0", "limit=1&limit=2", "cursor=x", "page=1"):
        assert (await api.call("GET", f"{path}?{query}"))[0] == 422


async def test_probes_need_no_token(api: Api) -> None:
    for path in ("/livez", "/readyz"):
        assert (await api.call("GET", path, headers={"Authorization": ""}))[0] == 200


async def test_not_ready_without_the_schema(api: Api, database_url: str) -> None:
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute("DELETE FROM storeplane.schema_migrations WHERE number > 1")
    finally:
        await owner.close()
    status, problem, headers = await api.call("GET", "/readyz", headers={"Authorization": ""})
    assert (status, problem["code"], headers["Retry-After"]) == (503, "SCHEMA_MISSING", "5")
    assert "storeplane migrate" in problem["detail"]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("DROP SCHEMA storeplane CASCADE", "SCHEMA_MISSING"),
        ("DROP TABLE storeplane.schema_migrations", "SCHEMA_MISSING"),
        ("DELETE FROM storeplane.schema_migrations", "SCHEMA_MISSING"),
        ("REVOKE SELECT ON storeplane.schema_migrations FROM storeplane_app", "DATABASE_RIGHT_MISSING"),
    ],
)
async def test_not_ready_says_what_the_database_lacks(api: Api, database_url: str, statement: str, code: str) -> None:
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute(statement)
    finally:
        await owner.close()
    status, problem, _ = await api.call("GET", "/readyz", headers={"Authorization": ""})
    assert (status, problem["code"]) == (503, code)
    assert "storeplane migrate" in problem["detail"]


async def test_token_of_other_bytes_is_not_valid(api: Api) -> None:
    address = URL(api.url)
    # By hand: no client sends such bytes.
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(
        b"GET /api/stores/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n"
    )
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"INVALID_TOKEN"' in answer


async def test_request_id_of_the_client_is_kept_when_it_is_harmless(api: Api) -> None:
    for given, kept in (("abc-1", True), ("x" * 200, False), ("a b", False)):
        _, _, headers = await api.call("GET", "/livez", headers={"X-Request-ID": given})
        assert (headers["X-Request-ID"] == given) is kept
