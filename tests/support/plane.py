"""A control plane for one test: its Jobs live in the test's own namespace and run the no-op image.

Step by step (`dispatch`, `reconcile`) for tests that stop between steps, or with all its loops (`running`).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from controlplane.app import Parts
from controlplane.dispatcher import Dispatcher
from controlplane.kube.client import KubeClient
from controlplane.kube.jobs import JobGateway
from tests.support import wishes
from tests.support.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from controlplane.config import Settings
    from controlplane.db.pool import Database
    from controlplane.domain.observation import JobView
    from tests.support.cluster import Namespace
    from tests.support.ledger import Order

__all__ = ["PASSWORD", "DiedError", "Plane", "open_plane"]

PASSWORD = "provisioner-password"
_SECONDS = 120.0
_POLL_SECONDS = 0.05


class DiedError(Exception):
    """The process would be gone."""


class _Mortal(JobGateway):
    """A gateway whose process dies at a chosen moment of the create."""

    def __init__(self, client: KubeClient, namespace: str, *, dies: str) -> None:
        super().__init__(client, namespace)
        self._dies = dies

    async def create(self, manifest: dict[str, Any], token_hash: bytes) -> JobView:
        if self._dies == "after the claim":
            raise DiedError
        made = await super().create(manifest, token_hash)
        if self._dies == "after the post":
            raise DiedError
        return made


class Plane:
    """The parts of one replica, and the tables and the namespace it works on."""

    def __init__(
        self, settings: Settings, database: Database, client: KubeClient, ledger: Ledger, namespace: Namespace
    ) -> None:
        self.settings = settings
        self.client = client
        self.ledger = ledger
        self.namespace = namespace
        self.parts = Parts(settings, database, client)

    async def dispatch(self, *, dies: str = "", key: str = wishes.KEY) -> bool:
        """Claim once and create what was claimed; False when nothing was due."""
        settings = self.settings.model_copy(update={"token_key": type(self.settings.token_key)(key)})
        gateway = _Mortal(self.client, self.settings.jobs_namespace, dies=dies)
        dispatcher = Dispatcher(self.parts.claims, gateway, settings, name=f"test {dies}")
        did = await dispatcher.run_once() is not None
        await dispatcher.drain(_SECONDS)
        return did

    async def reconcile(self) -> None:
        """Look at the cluster and at everything once."""
        await self.parts.observer.relist()
        await self.parts.reconciler.run_all()
        await self.parts.harvester.drain(_SECONDS)

    async def reconcile_until(self, probe: Callable[[], Awaitable[Any]], what: str) -> None:
        """Reconcile until something is so; on failure show what the cluster and the tables say."""
        await self._until(probe, what, self.reconcile)

    async def wait_until(self, probe: Callable[[], Awaitable[Any]], what: str) -> None:
        """Wait until something is so, while the loops run."""

        async def pause() -> None:
            await asyncio.sleep(_POLL_SECONDS)

        await self._until(probe, what, pause)

    async def _until(
        self, probe: Callable[[], Awaitable[Any]], what: str, between: Callable[[], Awaitable[None]]
    ) -> None:
        deadline = time.monotonic() + _SECONDS
        while not await probe():
            if time.monotonic() > deadline:
                rows = await self.ledger.connection.fetch("SELECT * FROM storeplane.attempts")
                shown = "\n".join(str({k: v for k, v in row.items() if k != "manifest"}) for row in rows)
                pods = self.namespace.do("get", "jobs,pods", "-o", "wide")
                raise AssertionError(f"not in time: {what}\n{shown}\n{pods}\n{self.namespace.do('events')}")
            await between()
            await asyncio.sleep(_POLL_SECONDS)

    def has(self, order: Order, state: str) -> Callable[[], Awaitable[bool]]:
        """Return a probe: the operation is in this state."""

        async def probe() -> bool:
            return bool((await self.ledger.operation(order))["state"] == state)

        return probe

    def is_settled(self, order: Order) -> Callable[[], Awaitable[bool]]:
        """Return a probe: the operation has ended and nothing of its attempts is left to do."""

        async def probe() -> bool:
            open_rows = await self.ledger.value(
                "SELECT count(*) FROM storeplane.attempts AS a JOIN storeplane.operations AS o ON o.id = a.operation_id"
                " WHERE o.id = $1 AND (o.finished_at IS NULL OR a.harvested_at IS NULL OR a.pods_ended_at IS NULL)",
                order.operation_id,
            )
            return bool(open_rows == 0 and (await self.ledger.operation(order))["finished_at"] is not None)

        return probe

    def attempt_is(self, order: Order, state: str, number: int = 1) -> Callable[[], Awaitable[bool]]:
        """Return a probe: the attempt is in this state."""

        async def probe() -> bool:
            row = await self.ledger.attempt(order, number)
            return row is not None and bool(row["state"] == state)

        return probe

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all the loops of the replica."""
        self.parts.background.start()
        try:
            yield
        finally:
            await self.parts.background.stop()

    def jobs(self) -> list[Any]:
        items: list[Any] = self.namespace.json("get", "jobs")["items"]
        return items

    def pods(self) -> list[Any]:
        items: list[Any] = self.namespace.json("get", "pods")["items"]
        return items


@asynccontextmanager
async def open_plane(
    *, database: Database, database_url: str, namespace: Namespace, image: str, address: tuple[str, int], **more: str
) -> AsyncIterator[Plane]:
    """Give a replica; `address` is where pods reach the database, `more` are settings."""
    host, port = address
    name = database_url.split("@/")[1].split("?", maxsplit=1)[0]
    settings = wishes.settings(
        STOREPLANE_JOBS_NAMESPACE=namespace.name,
        STOREPLANE_JOBS_SERVICE_ACCOUNT="default",
        STOREPLANE_PROVISIONER_IMAGE=image,
        STOREPLANE_PROVISIONER_DB_HOST=host,
        STOREPLANE_PROVISIONER_DB_PORT=str(port),
        STOREPLANE_PROVISIONER_DB_NAME=name,
        STOREPLANE_DISPATCH_INTERVAL_SECONDS="0.2",
        STOREPLANE_RECONCILE_INTERVAL_SECONDS="1",
        DATABASE_URL=database_url,
        **more,
    )
    client = await KubeClient.connect(namespace.kube.kubeconfig)
    ledger = await Ledger.open(database_url)
    try:
        yield Plane(settings, database, client, ledger, namespace)
        kept, real = await ledger.counters()
        assert kept == real, "the budget's counters are not what they count"
    finally:
        await ledger.close()
        await client.close()
