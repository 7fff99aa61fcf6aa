"""Who is told a store's credentials, what is kept of it, and that they are nowhere but in the answer."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from aiohttp import web

from controlplane.domain.store import Role
from controlplane.kube.jobs import JobGateway
from controlplane.services import credentials
from tests.support.api import Api, FakeJobs, serve
from tests.support.faulty_cluster import FaultyCluster, faulty_cluster, refusal
from tests.support.service import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from uuid import UUID

    from controlplane.db.pool import Database
    from tests.support.service import Service

pytestmark = pytest.mark.db

CANARY = "canary-2f9c1e"
TEXTS = {"username": "admin@example.org", "password": f"{CANARY} ü", "publishable_key": f"pk_{CANARY}"}


class World:
    """A store, its owner's view of the API, and the cluster the API asks."""

    def __init__(self, api: Api, cluster: FaultyCluster, url: str, body: Any) -> None:
        self.api = api
        self.cluster = cluster
        self.url = url
        """The cluster's."""
        self.body = body
        self.store_id: str = body["store"]["id"]
        self.path = f"/api/stores/{self.store_id}/credentials"
        self.namespace_path = f"/api/v1/namespaces/{body['store']['namespace']}"
        self.secret_path = f"{self.namespace_path}/secrets/store-credentials"

    def keeps(self, texts: dict[str, str] | None = None, *, store_id: str | None = None) -> None:
        """Let the cluster have the store's Secret."""
        self.cluster.says("GET", self.secret_path, secret(texts or TEXTS, store_id or self.store_id))
        self.has_namespace()

    def has_namespace(self, **metadata: str) -> None:
        self.cluster.says("GET", self.namespace_path, {"kind": "Namespace", "metadata": metadata})

    def refuses(self, status: int, reason: str) -> None:
        self.cluster.says("GET", self.secret_path, refusal(reason, "no"), status=status)

    @property
    def has_asked(self) -> bool:
        """Whether the cluster was asked for the Secret."""
        return self.cluster.calls["GET", self.secret_path] > 0

    async def audited(self) -> list[dict[str, Any]]:
        rows = await self.api.execute(
            "SELECT actor_id, store_id, details, ip, created_at <= now() AS is_past FROM storeplane.audit_log "
            "WHERE action = 'credentials_read' ORDER BY id"
        )
        return [dict(row) for row in rows]

    async def refused(self) -> str:
        """Return the code of the one refusal that was audited."""
        (row,) = await self.audited()
        assert (str(row["store_id"]), row["details"]["outcome"]) == (self.store_id, "refused")
        code: str = row["details"]["code"]
        return code


def secret(texts: dict[str, str], store_id: str) -> dict[str, Any]:
    return {
        "kind": "Secret",
        "metadata": {"name": "store-credentials", "labels": {"storeplane.dev/store-id": store_id}},
        "data": {name: _base64(text) for name, text in texts.items()},
    }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """Give a store that is ready, in a cluster that has nothing of it yet."""
    async with (
        faulty_cluster() as (cluster, client),
        serve(database, jobs=JobGateway(client, "storeplane-jobs")) as api,
    ):
        made = World(api, cluster, client._base_url, await api.create())  # noqa: SLF001 -- its address
        await api.bring(made.body, "ready")
        yield made


async def test_owner_is_told_all_the_secret_holds_and_it_is_written_down(world: World) -> None:
    world.keeps()
    status, body, headers = await world.api.call("GET", world.path)
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert body == {"store_id": world.store_id, "credentials": TEXTS, "urls": world.body["store"]["urls"]}
    (row,) = await world.audited()
    details = row.pop("details")
    assert row == {
        "actor_id": world.api.caller.user_id,
        "store_id": _uuid(world.store_id),
        "ip": "127.0.0.1",
        "is_past": True,
    }
    assert details == {
        "outcome": "read",
        "names": sorted(TEXTS),
        "role": "member",
        "request_id": headers["X-Request-ID"],
    }


def _uuid(text: str) -> UUID:
    return asyncpg.pgproto.pgproto.UUID(text)  # type: ignore[no-any-return]  # as the driver returns them


async def test_each_reading_is_written_down(world: World) -> None:
    world.keeps()
    for _ in range(3):
        assert (await world.api.call("GET", world.path))[0] == 200
    assert [row["details"]["outcome"] for row in await world.audited()] == ["read"] * 3


async def test_admin_is_told_too_and_named(world: World) -> None:
    world.keeps()
    admin = await world.api.as_user(role=Role.ADMIN)
    status, body, _ = await admin.call("GET", world.path)
    assert (status, body["credentials"]) == (200, TEXTS)
    (row,) = await world.audited()
    assert (row["actor_id"], row["details"]["role"]) == (admin.caller.user_id, "admin")


async def test_operator_may_look_at_the_store_and_not_at_these(world: World) -> None:
    world.keeps()
    operator = await world.api.as_user(role=Role.OPERATOR)
    assert (await operator.call("GET", f"/api/stores/{world.store_id}"))[0] == 200
    status, problem, _ = await operator.call("GET", world.path)
    assert (status, problem["code"], world.has_asked) == (403, "FORBIDDEN", False)
    assert await world.refused() == "FORBIDDEN"


async def test_stranger_gets_the_answer_of_every_other_route_and_is_written_down(world: World) -> None:
    world.keeps()
    stranger = await world.api.as_user()
    answers = [await stranger.call("GET", path) for path in (f"/api/stores/{world.store_id}", world.path)]
    told = [(status, body["code"], body["detail"]) for status, body, _ in answers]
    assert (told[0], told[0][:2], world.has_asked) == (told[1], (404, "STORE_NOT_FOUND"), False)
    assert await world.refused() == "STORE_NOT_FOUND"
    assert (await world.audited())[0]["actor_id"] == stranger.caller.user_id
    assert [action for action, _ in await world.api.audited()].count("security.foreign_id") == 2


async def test_store_that_never_was_is_not_found_and_leaves_no_row(world: World) -> None:
    path = "/api/stores/0198c2a0-0000-7000-8000-000000000000/credentials"
    status, problem, _ = await world.api.call("GET", path)
    assert (status, problem["code"], await world.audited()) == (404, "STORE_NOT_FOUND", [])


async def test_without_a_token_nothing_is_told(world: World) -> None:
    world.keeps()
    assert (await world.api.call("GET", world.path, headers={"Authorization": ""}))[0] == 401
    assert not world.has_asked


async def test_store_in_the_making_names_the_operation_to_follow(world: World) -> None:
    world.keeps()
    await world.api.bring(world.body, "provisioning")
    status, problem, _ = await world.api.call("GET", world.path)
    assert (status, problem["code"], world.has_asked) == (409, "CREDENTIALS_UNAVAILABLE", False)
    assert problem["operation_id"] == world.body["operation"]["id"]
    assert "until it is ready" in problem["detail"]
    assert await world.refused() == "CREDENTIALS_UNAVAILABLE"


async def test_deleted_store_is_gone(world: World) -> None:
    world.keeps()
    await world.api.bring(world.body, "deleting")
    assert (await world.api.call("GET", world.path))[0] == 200
    await world.api.bring(world.body, "deleted")
    status, problem, _ = await world.api.call("GET", world.path)
    assert (status, problem["code"]) == (410, "STORE_DELETED")
    assert [row["details"]["outcome"] for row in await world.audited()] == ["read", "refused"]


@pytest.mark.parametrize(
    ("state", "status", "has_namespace", "detail"),
    [
        ("ready", 404, True, "the Secret store-credentials in the namespace"),
        ("ready", 404, False, "and all of the store with it; delete the store"),
        ("ready", 403, False, "and all of the store with it; delete the store"),
        ("suspended", 404, True, "restores the Secret from a copy"),
        ("failed", 403, True, "failed before the store had any; retry it"),
        ("failed", 404, True, "failed before the store had any; retry it"),
        ("deleting", 403, False, "is being deleted, and they are gone already"),
        ("deleting", 403, True, "is being deleted, and they are gone already"),
    ],
)
async def test_secret_that_is_not_there_is_told_by_the_state_of_its_store(
    world: World, state: str, status: int, *, has_namespace: bool, detail: str
) -> None:
    world.refuses(status, "Forbidden" if status == 403 else "NotFound")
    if has_namespace:
        world.has_namespace()
    await world.api.bring(world.body, state)
    answered, problem, _ = await world.api.call("GET", world.path)
    assert (answered, problem["code"]) == (409, "CREDENTIALS_UNAVAILABLE")
    assert detail in problem["detail"]
    assert ("operation_id" in problem) is (state in {"failed", "deleting"})
    assert await world.refused() == "CREDENTIALS_UNAVAILABLE"


async def test_namespace_that_goes_counts_as_gone(world: World) -> None:
    world.refuses(403, "Forbidden")
    world.has_namespace(deletionTimestamp="2026-01-01T00:00:00Z")
    _, problem, _ = await world.api.call("GET", world.path)
    assert "and all of the store with it" in problem["detail"]


async def test_missing_right_names_the_binding_and_the_command(world: World) -> None:
    world.refuses(403, "Forbidden")
    world.has_namespace()
    status, problem, headers = await world.api.call("GET", world.path)
    assert (status, problem["code"]) == (503, "CREDENTIALS_RIGHT_MISSING")
    # Asking again changes nothing until somebody has bound it.
    assert "Retry-After" not in headers
    assert (
        f"`kubectl --namespace={world.body['store']['namespace']} create rolebinding store-observer "
        "--clusterrole=storeplane-store-observer --serviceaccount=storeplane:storeplane`"
    ) in problem["detail"]
    assert await world.refused() == "CREDENTIALS_RIGHT_MISSING"


async def test_secret_of_somebody_else_is_kept_back(world: World) -> None:
    world.keeps(store_id="0198c2a0-0000-7000-8000-000000000000")
    status, problem, _ = await world.api.call("GET", world.path)
    assert (status, problem["code"]) == (409, "CREDENTIALS_UNAVAILABLE")
    assert "does not carry this store's id" in problem["detail"]


@pytest.mark.parametrize("data", [None, {}, {"password": base64.b64encode(b"\xff\xfe").decode()}])
async def test_secret_that_holds_no_text_is_told(world: World, data: dict[str, str] | None) -> None:
    world.cluster.says("GET", world.secret_path, secret({}, world.store_id) | {"data": data})
    status, problem, _ = await world.api.call("GET", world.path)
    assert (status, problem["code"]) == (409, "CREDENTIALS_UNAVAILABLE")
    assert "is empty or holds what is no text" in problem["detail"]


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (500, refusal("InternalError", CANARY), "KUBERNETES"),
        (429, refusal("TooManyRequests", CANARY), "KUBERNETES"),
        (401, refusal("Unauthorized", CANARY), "KUBERNETES"),
        (200, refusal("Odd", CANARY), "KUBERNETES"),
        (200, [CANARY], "KUBERNETES"),
        (200, {"kind": "Secret", "metadata": {}, "data": {"password": f"{CANARY}!"}}, "KUBERNETES"),
    ],
)
async def test_cluster_that_does_not_answer_as_it_should_is_away(
    world: World, status: int, body: Any, code: str
) -> None:
    world.cluster.says("GET", world.secret_path, body, status=status)
    answered, problem, headers = await world.api.call("GET", world.path)
    assert (answered, problem["code"], headers["Retry-After"]) == (503, code, "5")
    assert CANARY not in str(problem)
    assert await world.refused() == code


class _Silent(FakeJobs):
    """A cluster that says nothing for as long as it is asked."""

    async def store_credentials(self, namespace: str, store_id: UUID) -> Any:
        await asyncio.Event().wait()
        raise AssertionError(namespace, store_id)


async def test_silent_cluster_is_left_after_a_limit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_CLUSTER_SECONDS", 0.05)
    async with serve(database, jobs=_Silent()) as api:
        body = await api.create()
        await api.bring(body, "ready")
        status, problem, headers = await api.call("GET", f"/api/stores/{body['store']['id']}/credentials")
    assert (status, problem["code"], headers["Retry-After"]) == (503, "DEPENDENCY_UNAVAILABLE", "5")


async def test_nobody_is_told_what_cannot_be_written_down(world: World, database_url: str) -> None:
    world.keeps()
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute("REVOKE INSERT ON storeplane.audit_log FROM storeplane_app")
    finally:
        await owner.close()
    status, problem, _ = await world.api.call("GET", world.path)
    assert (status, problem["code"], world.has_asked) == (503, "DATABASE_RIGHT_MISSING", True)
    assert CANARY not in str(problem)


@contextmanager
def _process(world: World, database_url: str, folder: Path) -> Iterator[Service]:
    """Run the program itself on the store's database and cluster, telling all it has to tell."""
    config = folder / "kubeconfig"
    named = {"name": "it", "cluster": {"server": world.url}}
    context = {"name": "it", "context": {"cluster": "it", "user": "it"}}
    user = {"name": "it", "user": {"token": "t"}}
    config.write_text(
        json.dumps({"current-context": "it", "clusters": [named], "contexts": [context], "users": [user]})
    )
    settings = {"DATABASE_URL": database_url, "STOREPLANE_KUBECONFIG": str(config), "STOREPLANE_LOG_LEVEL": "debug"}
    with serving(settings, folder, "process") as service:
        yield service


def _break_off(request: web.Request) -> web.StreamResponse:
    """Answer what is no HTTP from the middle of a value on."""
    assert request.transport is not None
    request.transport.write(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}\r\n".encode())
    request.transport.close()
    return web.Response()


async def test_values_are_in_the_answer_and_nowhere_else(world: World, database_url: str, tmp_path: Path) -> None:
    text = json.dumps(secret(TEXTS, world.store_id))
    with _process(world, database_url, tmp_path) as service:

        async def status() -> int:
            answer = await service.aask("GET", world.path, world.api.token)
            assert (CANARY in str(answer.body)) is (answer.status == 200)
            return answer.status

        world.keeps()
        assert await status() == 200
        # What is read and not told has to go nowhere as well: another store's, cut in the middle, broken off.
        world.keeps(store_id="0198c2a0-0000-7000-8000-000000000000")
        assert await status() == 409
        world.cluster.answers["GET", world.secret_path] = lambda _request: web.Response(text=f'{text[:-9]}"{CANARY}')
        assert await status() == 503
        world.cluster.answers["GET", world.secret_path] = _break_off
        assert await status() == 503
        logged = service.log.read_text()
    told = [line for line in map(json.loads, logged.splitlines()) if line.get("route", "").endswith("/credentials")]
    assert [line["status"] for line in told] == [200, 409, 503, 503]
    kept = await _whole_database(database_url)
    assert kept.count("credentials_read") == 4
    for value in (CANARY, *(form for text in TEXTS.values() for form in (text, _base64(text)))):
        assert value not in logged
        assert value not in kept


async def _whole_database(url: str) -> str:
    """Return every row of every table as text."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'storeplane'")
        rows = [
            await connection.fetch(f'SELECT t::text FROM storeplane."{table["tablename"]}" AS t')  # noqa: S608 -- its own
            for table in tables
        ]
    finally:
        await connection.close()
    return "\n".join(row["t"] for table in rows for row in table)
