"""A client of the real application on a real socket, and a stand-in for the cluster's Jobs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.test_utils import TestServer

from controlplane.api.application import make_application
from controlplane.api.context import Services
from controlplane.kube.errors import KubeUnavailableError
from tests.support import wishes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
        self.pods: list[PodView] = []
        self.text: str | None = None
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.open_streams = 0

    def _answer(self) -> None:
        if self.is_away:
            message = "no answer"
            raise KubeUnavailableError(message)

    async def get(self, name: str) -> JobView | None:
        self._answer()
        return self.jobs.get(name)

    async def list_pods(self, job_uid: str) -> list[PodView]:
        self._answer()
        return [pod for pod in self.pods if pod.job_uid == job_uid]

    async def logs(self, pod_name: str) -> str | None:
        self._answer()
        assert pod_name
        return self.text

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

    async def create(self, name: str = "Shop", **more: Any) -> Any:
        """Order a store that is accepted; return the body."""
        status, body, _ = await self.call("POST", "/api/stores", json={"name": name, "engine": "medusa"}, **more)
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


@asynccontextmanager
async def serve(database: Database, *, settings: dict[str, str] | None = None, **user: Any) -> AsyncIterator[Api]:
    """Serve the application on `database` and give it as a new user sees it."""
    caller, token = await wishes.add_user(database, **user)
    given = {"STOREPLANE_CREATE_RATE_PER_MINUTE": "1000000"} | (settings or {})
    async with aiohttp.ClientSession() as session:
        api = Api(session, "", token, caller, database)
        services = Services.on(database, api.jobs, wishes.settings(**given), lambda: api.wakes.append(None))
        async with TestServer(make_application(services)) as server:
            api.url = str(server.make_url("")).rstrip("/")
            yield api
