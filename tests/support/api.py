"""A client of the real application on a real socket, and a stand-in for the cluster's Jobs."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from controlplane.api.application import make_application
from controlplane.api.context import Services
from controlplane.api.server import Runner
from controlplane.domain.credentials import Credentials
from controlplane.domain.errors import JobConflictError
from controlplane.kube.errors import KubeUnavailableError
from tests.support import wishes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from controlplane.api.context import Jobs
    from controlplane.db.pool import Database
    from controlplane.domain.observation import JobView, PodView
    from controlplane.domain.store import Caller

__all__ = ["WISH", "Api", "FakeJobs", "serve"]

WISH = {"name": "Shop", "engine": "medusa"}


class FakeJobs:
    """Jobs and pods as a test says they are; `is_away` for a cluster that does not answer."""

    def __init__(self) -> None:
        self.is_away = True
        self.jobs: dict[str, JobView] = {}
        self.strangers: set[str] = set()
        """Names that Jobs of somebody else have."""
        self.pods: list[PodView] = []
        self.text: str | None = None
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.open_streams = 0
        self.credentials = {"username": "admin"}
        """What the Secret of every store holds."""

    def _answer(self) -> None:
        if self.is_away:
            message = "no answer"
            raise KubeUnavailableError(message)

    async def find(self, manifest: dict[str, Any], token_hash: bytes) -> JobView | None:
        self._answer()
        assert token_hash
        name = manifest["metadata"]["name"]
        if name in self.strangers:
            raise JobConflictError(name, "it differs at /spec")
        return self.jobs.get(name)

    async def list_pods(self, job_uid: str) -> list[PodView]:
        self._answer()
        return [pod for pod in self.pods if pod.job_uid == job_uid]

    async def logs(self, pod_name: str) -> str | None:
        self._answer()
        assert pod_name
        return self.text

    async def store_credentials(self, namespace: str, store_id: UUID) -> Credentials:
        self._answer()
        assert namespace.startswith("store-"), store_id
        return Credentials(self.credentials)

    @asynccontextmanager
    async def follow_log(self, pod_name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self._answer()
        assert pod_name
        self.open_streams += 1
        try:
            yield self._follow()
        finally:
            self.open_streams -= 1

    async def _follow(self) -> AsyncIterator[bytes]:
        while (piece := await self.pieces.get()) is not None:
            yield piece


class Api:
    """One user's view of the running application."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, token: str, caller: Caller, database: Database
    ) -> None:
        self.session = session
        self.url = url
        self.token = token
        self.caller = caller
        self.database = database
        self.jobs = FakeJobs()
        self.wakes: list[None] = []

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
        """Return status, body and headers; an error has to be a whole problem."""
        headers = {"Authorization": f"Bearer {self.token}"} | more.pop("headers", {})
        headers = {name: value for name, value in headers.items() if value}
        async with self.session.request(method, self.url + path, headers=headers, **more) as response:
            kind = response.content_type
            body: Any = await response.json() if kind.endswith("json") else await response.text()
            assert response.headers["X-Request-ID"]
            if response.status >= 400:
                assert kind == "application/problem+json"
                assert body["status"] == response.status
                assert body["type"] == "/problems/" + body["code"].lower().replace("_", "-")
                assert body["request_id"] == response.headers["X-Request-ID"]
            return response.status, body, response.headers

    async def create(self, name: str = "Shop", wish: dict[str, Any] | None = None, **more: Any) -> Any:
        """Order a store that is accepted, a Medusa one unless the wish says otherwise; return the body."""
        asked = WISH | {"name": name} | (wish or {})
        status, body, _ = await self.call("POST", "/api/stores", json=asked, **more)
        assert status == 202, body
        return body

    async def as_user(self, **more: Any) -> Api:
        """Return the same application seen by another, new user."""
        caller, token = await wishes.add_user(self.database, **more)
        other = Api(self.session, self.url, token, caller, self.database)
        other.jobs, other.wakes = self.jobs, self.wakes
        return other

    async def execute(self, statement: str, *arguments: object) -> list[Any]:
        """Run a statement of the test's own, with the service's rights."""
        async with self.database.transaction() as session:
            rows: list[Any] = await session._connection.fetch(statement, *arguments)  # noqa: SLF001 -- test's own SQL
            return rows

    async def open_attempt(self, body: Any, *, state: str = "running", job_uid: str | None = "job-uid") -> str:
        """Give an accepted operation an open attempt, as dispatcher and pod would; return its Job's name."""
        operation, kind = body["operation"]["id"], body["operation"]["kind"]
        (row,) = await self.execute(
            "UPDATE storeplane.operations SET state = $2, attempt = attempt + 1, started_at = now(), "
            "next_dispatch_at = CASE WHEN $2 = 'queued' THEN now() END WHERE id = $1 RETURNING attempt, store_id",
            operation,
            "queued" if state == "created" else "running",
        )
        name = f"store-{kind}-{operation}-{row['attempt']}"
        await self.execute(
            "INSERT INTO storeplane.attempts (operation_id, number, store_id, state, job_name, memory_mib, job_uid, "
            "dispatched_at, manifest, manifest_sha256, token_hash, token_key_id) "
            "VALUES ($1, $2, $3, $4, $5, 512, $6, now(), $7, 'hash', sha256('token'), 'key')",
            operation,
            row["attempt"],
            row["store_id"],
            state,
            name,
            job_uid,
            json.dumps({"metadata": {"name": name}}),
        )
        return name

    async def fail(self, body: Any, *, state: str = "failed") -> None:
        """End an accepted operation without success, and its create's store with it."""
        await self.execute(
            "UPDATE storeplane.attempts SET state = 'failed', outcome = 'permanent', finished_at = now(), "
            "pods_ended_at = now() WHERE operation_id = $1 AND finished_at IS NULL",
            body["operation"]["id"],
        )
        await self.execute(
            "UPDATE storeplane.operations SET state = $2, finished_at = now(), next_dispatch_at = NULL, "
            "error = CASE WHEN $2 = 'failed' THEN '{\"code\": \"HELM_FAILED\"}'::jsonb END WHERE id = $1",
            body["operation"]["id"],
            state,
        )
        await self.execute(
            "UPDATE storeplane.stores SET state = 'failed' WHERE id = $1 AND state = 'provisioning'",
            body["store"]["id"],
        )

    async def bring(self, body: Any, state: str) -> None:
        """Bring a store into a state by hand, as the operations of its life would."""
        await self.execute("UPDATE storeplane.stores SET state = $2 WHERE id = $1", body["store"]["id"], state)

    async def audited(self) -> list[tuple[str, Any]]:
        """Return action and details of the audit log, oldest first."""
        rows = await self.execute("SELECT action, details FROM storeplane.audit_log ORDER BY id")
        return [(row["action"], row["details"]) for row in rows]

    async def events(self, body: Any) -> list[str]:
        """Return the types of a store's events, oldest first."""
        _, page, _ = await self.call("GET", f"/api/stores/{body['store']['id']}/events")
        return [item["event_type"] for item in page["items"]]


@asynccontextmanager
async def serve(
    database: Database, *, settings: dict[str, str] | None = None, jobs: Jobs | None = None, **user: Any
) -> AsyncIterator[Api]:
    """Serve the application on `database` and give it as a new user sees it; `jobs` instead of the stand-in."""
    caller, token = await wishes.add_user(database, **user)
    given = {"STOREPLANE_CREATE_RATE_PER_MINUTE": "1000000"} | (settings or {})
    async with aiohttp.ClientSession() as session:
        api = Api(session, "", token, caller, database)
        services = Services.on(
            database, jobs or api.jobs, wishes.settings(**given), wake=lambda: api.wakes.append(None), look=lambda: None
        )
        # What is left open when a test ends, nobody reads to its end.
        runner = Runner(make_application(services), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield api
        finally:
            await runner.cleanup()
