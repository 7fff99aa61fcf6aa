from __future__ import annotations

import asyncio
import json
import re
import secrets
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from controlplane.db.users import UserRows
from controlplane.domain.catalogue import CATALOGUE
from controlplane.domain.engines import Engine, limit_range, quota
from controlplane.domain.errors import InvalidInputError
from controlplane.domain.store import Role
from controlplane.services.users import Users
from tests.support import wishes
from tests.support.api import WISH, Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database

pytestmark = pytest.mark.db

KEY = {"Idempotency-Key": "a-key-of-mine"}


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with serve(database) as made:
        yield made


async def _together(api: Api, wishes: list[dict[str, str]], **more: Any) -> list[tuple[int, Any, Any]]:
    return await asyncio.gather(*(api.call("POST", "/api/stores", json=wish, **more) for wish in wishes))


def _named(count: int) -> list[dict[str, str]]:
    return [{"name": f"Shop {number}", "engine": "medusa"} for number in range(count)]


async def test_store_limit_is_exact_when_asked_at_once(database: Database) -> None:
    async with serve(database, max_stores=5) as api:
        answers = await _together(api, _named(12))
        assert sorted(status for status, _, _ in answers) == [202] * 5 + [403] * 7
        refused = next(body for status, body, _ in answers if status == 403)
        assert (refused["code"], refused["detail"]) == ("STORE_LIMIT_REACHED", "Maximum store limit reached (5 stores)")
        (row,) = await api.execute("SELECT count(*) AS n FROM storeplane.stores")
        assert row["n"] == 5


async def test_limit_of_zero_means_none(database: Database) -> None:
    async with serve(database, max_stores=0) as api:
        status, problem, _ = await api.call("POST", "/api/stores", json=WISH)
        assert (status, problem["detail"]) == (403, "Maximum store limit reached (0 stores)")


async def test_refused_wish_counts_nothing(database: Database) -> None:
    async with serve(database, max_stores=2) as api:
        await api.create()
        for _ in range(3):
            assert (await api.call("POST", "/api/stores", json=WISH))[1]["code"] == "NAME_TAKEN"
        await api.create("Other")


async def test_create_rate_is_exact_when_asked_at_once(database: Database) -> None:
    # So few that a slow machine does not get one more while it asks.
    async with serve(database, settings={"STOREPLANE_CREATE_RATE_PER_MINUTE": "3"}) as api:
        answers = await _together(api, _named(9))
        assert sorted(status for status, _, _ in answers) == [202] * 3 + [429] * 6
        left = sorted(int(headers["RateLimit-Remaining"]) for status, _, headers in answers if status == 202)
        assert left == list(range(3))
        _, problem, headers = next(each for each in answers if each[0] == 429)
        assert problem["code"] == "RATE_LIMITED"
        assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("3", "0")
        assert 1 <= problem["retry_after_seconds"] == int(headers["Retry-After"]) <= 20
        # Somebody else is not slowed down by it.
        await (await api.as_user()).create()
        # After a pause as long as was said, there is one more.
        await api.execute("UPDATE storeplane.users SET creates_until = creates_until - interval '20 s'")
        await api.create("One more")


async def test_same_key_gives_the_first_answer_byte_for_byte(api: Api) -> None:
    async def ask(raw: bytes) -> tuple[int, bytes, Any]:
        headers = {"Authorization": f"Bearer {api.token}"} | KEY
        async with api.session.post(f"{api.url}/api/stores", data=raw, headers=headers) as response:
            return response.status, await response.read(), response.headers

    first = await ask(b'{"name": "Shop", "engine": "medusa"}')
    assert "Idempotency-Replayed" not in first[2]
    body = json.loads(first[1])
    await api.fail(body)
    # Another order of the same fields is the same wish.
    again = await ask(b'{"engine":"medusa","name":"Shop"}')
    assert again[:2] == first[:2]
    assert again[2]["Idempotency-Replayed"] == "true"
    assert again[2]["Location"] == first[2]["Location"] == f"/api/operations/{body['operation']['id']}"
    assert len(api.wakes) == 1


async def test_same_key_with_another_body_is_a_mismatch(api: Api) -> None:
    await api.create(headers=KEY)
    status, problem, _ = await api.call("POST", "/api/stores", json=WISH | {"name": "Other"}, headers=KEY)
    assert (status, problem["code"]) == (422, "IDEMPOTENCY_MISMATCH")


async def test_same_key_of_another_user_is_another_wish(api: Api) -> None:
    mine, theirs = await api.create(headers=KEY), await (await api.as_user()).create(headers=KEY)
    assert mine["operation"]["id"] != theirs["operation"]["id"]


@pytest.mark.parametrize("wish", [WISH, WISH | {"slug": "given"}])
async def test_same_key_at_once_on_two_replicas_is_one_operation(database: Database, wish: dict[str, str]) -> None:
    async with serve(database, max_stores=1) as one, serve(database) as two:
        two.token = one.token
        answers = [
            answer
            for each in await asyncio.gather(*(_together(api, [wish] * 4, headers=KEY) for api in (one, two)))
            for answer in each
        ]
        assert [status for status, _, _ in answers] == [202] * 8
        assert len({body["operation"]["id"] for _, body, _ in answers}) == 1
        assert sum(headers.get("Idempotency-Replayed") == "true" for _, _, headers in answers) == 7
        (row,) = await one.execute("SELECT count(*) AS n FROM storeplane.operations")
        assert row["n"] == 1


async def test_key_is_repeated_even_when_limit_and_name_forbid_a_new_one(database: Database) -> None:
    async with serve(database, max_stores=1) as api:
        first = await api.create(headers=KEY)
        assert (await api.call("POST", "/api/stores", json=WISH))[0] in (403, 409)
        assert await api.create(headers=KEY) == first


async def test_answer_that_was_never_kept_is_made_again(api: Api) -> None:
    first = await api.create(headers=KEY)
    await api.execute("UPDATE storeplane.idempotency_keys SET answer = NULL")
    assert (await api.create(headers=KEY))["operation"]["id"] == first["operation"]["id"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "schlüssel"])
async def test_unusable_key_is_refused(api: Api, key: str) -> None:
    headers = {"Authorization": f"Bearer {api.token}", "Idempotency-Key": key}
    async with api.session.post(f"{api.url}/api/stores", json=WISH, headers=headers) as response:
        problem = await response.json()
    assert (response.status, problem["errors"][0]["pointer"]) == (422, "#/Idempotency-Key")


async def test_spec_is_frozen_complete(database: Database) -> None:
    settings = {
        "STOREPLANE_OBSERVER_NAMESPACE": "platform-ns",
        "STOREPLANE_OBSERVER_SERVICE_ACCOUNT": "watcher",
        "STOREPLANE_STORE_INGRESS_CLASS": "shops",
        "STOREPLANE_STORE_DENIED_CIDRS": "203.0.113.7, 2001:db8::/32",
    }
    async with serve(database, settings=settings) as api:
        body = await api.create()
        (row,) = await api.execute("SELECT spec FROM storeplane.operations")
        spec = row["spec"]
        traceparent = spec.pop("traceparent")
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", traceparent)
        host = spec["host"]
        assert host.startswith("shop-")
        medusa = CATALOGUE["medusa"]
        assert isinstance(medusa, Engine)
        plan = medusa.plans["small"]
        assert spec == {
            "version": 2,
            "engine": "medusa",
            "engine_version": "2.21.2",
            "chart": "medusa",
            "chart_version": "0.1.0",
            "preset": "default",
            "plan": "small",
            "plan_values": plan.values(),
            "quota": quota(plan),
            "limits": limit_range(plan),
            "secret": {key: dict(made) for key, made in medusa.secret.items()},
            "credentials": {
                "username": "ADMIN_EMAIL",
                "password": "ADMIN_PASSWORD",
                "publishable_key": "PUBLISHABLE_KEY",
            },
            "proof": {
                "service": "medusa",
                "port": 9000,
                "path": "/store/products",
                "items": "products",
                "headers": {"x-publishable-api-key": "{PUBLISHABLE_KEY}"},
            },
            "phase_seconds": {"setup": 420},
            "paths": {"storefront": None, "admin": "/app"},
            "ingress": {"className": "shops", "tlsSecret": "", "clusterIssuer": ""},
            "name": body["store"]["name"],
            "images": {
                "server": "storeplane.local/server:1",
                "postgres": "storeplane.local/postgres:1",
                "redis": "storeplane.local/redis:1",
            },
            "provisioner_image": "storeplane.local/provisioner:1",
            "namespace": body["store"]["namespace"],
            "host": host,
            "public_url": f"http://{host}:8081",
            "observer": {"namespace": "platform-ns", "service_account": "watcher"},
            "network": {
                "ingress_namespace": "ingress-nginx",
                "ingress_cidrs": [],
                "dns_cidr": None,
                "denied_cidrs": ["203.0.113.7/32", "2001:db8::/32"],
            },
        }
        assert body["store"]["urls"]["api"] == spec["public_url"]
        assert body["store"]["urls"]["storefront"] is None


async def test_storefront_is_frozen_and_told_where_the_setting_names_its_image(database: Database) -> None:
    reference = "storeplane.local/medusa-storefront:1"
    images = {"medusa": wishes.ENGINE_IMAGES["medusa"] | {"storefront": reference}}
    async with serve(database, settings={"STOREPLANE_ENGINE_IMAGES": json.dumps(images)}) as api:
        body = await api.create()
        (row,) = await api.execute("SELECT spec FROM storeplane.operations")

        assert row["spec"]["images"]["storefront"] == reference
        assert body["store"]["urls"]["storefront"] == row["spec"]["public_url"] + "/"


async def test_host_of_ones_own_is_nobody_elses_until_its_store_is_deleted(database: Database) -> None:
    async with serve(database) as api:
        stranger = await api.as_user()
        first = await api.create(wish={"host": "shop.example.com"})
        assert first["store"]["urls"]["api"] == "http://shop.example.com:8081"
        status, problem, _ = await stranger.call("POST", "/api/stores", json={**WISH, "host": "shop.example.com"})
        assert (status, problem["code"]) == (409, "HOST_TAKEN")
        await api.execute("UPDATE storeplane.stores SET state = 'deleted'")
        await stranger.create(wish={"host": "shop.example.com"})


async def test_platforms_own_hosts_are_no_stores(database: Database) -> None:
    async with serve(database, settings={"STOREPLANE_STORE_RESERVED_HOSTS": "api.example.com"}) as api:
        for host in ("api.example.com", "a.api.example.com", "b.localhost"):
            status, problem, _ = await api.call("POST", "/api/stores", json={**WISH, "host": host})
            assert (status, problem["detail"]) == (422, "Store host is reserved")


@pytest.mark.parametrize(
    ("wish", "has_tls"), [({"host": "a.example"}, True), ({}, False), ({"host": "a.example", "tls": False}, False)]
)
async def test_store_with_a_certificate_of_its_own_is_found_under_https(
    database: Database, wish: dict[str, Any], *, has_tls: bool
) -> None:
    async with serve(database, settings={"STOREPLANE_STORE_CLUSTER_ISSUER": "letsencrypt"}) as api:
        body = await api.create(wish=wish)
        (row,) = await api.execute("SELECT spec FROM storeplane.operations")
        assert body["store"]["urls"]["api"].startswith("https://") is has_tls
        secret, issuer = ("store-tls", "letsencrypt") if has_tls else ("", "")
        assert row["spec"]["ingress"] == {"className": "", "tlsSecret": secret, "clusterIssuer": issuer}


async def test_host_that_no_certificate_covers_is_refused_or_plain(database: Database) -> None:
    async with serve(database, settings={"STOREPLANE_STORE_URL_SCHEME": "https"}) as api:
        wish = {**WISH, "host": "shop.example.com"}
        status, problem, _ = await api.call("POST", "/api/stores", json=wish)
        assert (status, problem["errors"][0]["pointer"]) == (422, "#/tls")
        body = await api.create(wish=wish | {"tls": False})
        assert body["store"]["urls"]["api"] == "http://shop.example.com"


async def test_hosts_of_ones_own_can_be_switched_off(database: Database) -> None:
    async with serve(database, settings={"STOREPLANE_STORE_CUSTOM_HOSTS": "false"}) as api:
        status, problem, _ = await api.call("POST", "/api/stores", json={**WISH, "host": "shop.example.com"})
        assert (status, problem["detail"]) == (422, "Store host is not available")
        await api.create()


async def test_order_that_cannot_be_answered_is_not_there(api: Api, database_url: str) -> None:
    """Whoever is told to try again must not find a store that nobody has told them of."""
    owner = await asyncpg.connect(database_url)
    try:
        async with owner.transaction():
            # Read for the answer, not written by the order.
            await owner.execute("LOCK TABLE storeplane.attempts IN ACCESS EXCLUSIVE MODE")
            status, problem, _ = await api.call("POST", "/api/stores", json=WISH)
            assert (status, problem["code"]) == (503, "DATABASE_UNAVAILABLE")
        assert await owner.fetchval("SELECT count(*) FROM storeplane.stores") == 0
    finally:
        await owner.close()
    await api.create()


async def test_plan_decides_what_a_store_may_use(api: Api) -> None:
    body = await api.create(wish={"engine": "woocommerce", "plan": "large"})
    (row,) = await api.execute("SELECT spec FROM storeplane.operations")
    assert body["store"]["plan"] == "large"
    assert row["spec"]["plan_values"]["mariadb"]["storage"] == "20Gi"
    (container,) = [each for each in row["spec"]["limits"] if each["type"] == "Container"]
    # Above the usual largest container of 2 CPU and 2Gi.
    assert container["max"] == {"cpu": "4", "memory": "4Gi"}


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("not a trace", False),
    ],
)
async def test_trace_of_the_caller_goes_with_the_operation(api: Api, given: str, *, is_kept: bool) -> None:
    await api.create(headers={"traceparent": given})
    (row,) = await api.execute("SELECT spec ->> 'traceparent' AS trace FROM storeplane.operations")
    assert (row["trace"] == given) is is_kept


async def test_accepting_is_one_whole(api: Api) -> None:
    body = await api.create()
    assert await api.events(body) == ["created"]
    ((action, details),) = await api.audited()
    assert (action, details["operation_id"], details["name"]) == ("store.create", body["operation"]["id"], "Shop")
    (row,) = await api.execute(
        "SELECT u.store_count, s.waiting FROM storeplane.users AS u JOIN storeplane.user_slots AS s ON s.user_id = u.id"
    )
    assert (row["store_count"], row["waiting"]) == (1, 1)


async def test_user_keeps_the_limit_nobody_changes(database: Database) -> None:
    rows = UserRows(database)
    users = Users(rows)
    limits = []
    for given in (None, 7, None, 0):
        user_id = UUID(await users.add("somebody", Role.MEMBER, secrets.token_urlsafe(32), max_stores=given))
        left = await rows.allowance(user_id, 10)
        assert left is not None
        limits.append(left.max_stores)
        assert left.creates_left == 10
    assert limits == [5, 7, 7, 0]
    with pytest.raises(InvalidInputError):
        await users.add("somebody", Role.MEMBER, secrets.token_urlsafe(32), max_stores=100_001)
