"""The tables as a test sees them: rows put there directly, read whole, and time bent.

For tests of the claim and of the reconciler, which begin behind the accepting.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from uuid_utils.compat import uuid7

from controlplane.db.claims import RenderedJob
from controlplane.domain.attempt import attempt_token, token_hash, token_key_id
from controlplane.kube.job_manifest import render_job, sha256_of
from tests.support import wishes

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from controlplane.config import Settings
    from controlplane.domain.attempt import ClaimedAttempt

__all__ = ["Ledger", "Order", "renderer"]

SPEC = {"version": 1, "engine": "medusa", "provisioner_image": "storeplane.local/provisioner:1"}


@dataclass(frozen=True, slots=True)
class Order:
    """A store and its operation."""

    operation_id: UUID
    store_id: UUID
    owner_id: UUID


class Ledger:
    """The database, as its owner sees it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    @classmethod
    async def open(cls, url: str) -> Ledger:
        return cls(await asyncpg.connect(url))

    async def close(self) -> None:
        await self.connection.close()

    async def user(self) -> UUID:
        user_id: UUID = uuid7()
        await self.connection.execute(
            "INSERT INTO storeplane.users (id, name, role, token_hash) VALUES ($1, $2, 'member', $3)",
            user_id,
            f"user-{user_id}",
            secrets.token_bytes(32),
        )
        return user_id

    async def order(
        self,
        owner_id: UUID | None = None,
        *,
        kind: str = "create",
        store_id: UUID | None = None,
        name: str | None = None,
        spec: dict[str, Any] | None = None,
    ) -> Order:
        """Order an operation; without `store_id` of a new store."""
        owner = owner_id or await self.user()
        if store_id is None:
            store_id = uuid7()
            slug = f"shop-{secrets.token_hex(4)}"
            await self.connection.execute(
                "INSERT INTO storeplane.stores"
                " (id, owner_id, cluster_id, name, slug, engine, state, namespace, urls)"
                " VALUES ($1, $2, 'default', $3, $4, 'medusa', 'provisioning', $5, '{\"api\": \"http://shop\"}')",
                store_id,
                owner,
                name or slug,
                slug,
                f"store-{slug}-abcdefg2",
            )
            await self.connection.execute(
                "UPDATE storeplane.users SET store_count = store_count + 1 WHERE id = $1", owner
            )
        operation_id: UUID = uuid7()
        await self.connection.execute(
            "INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id)"
            " VALUES ($1, $2, $3, 'default', $4, $5, 'request-1')",
            operation_id,
            store_id,
            owner,
            kind,
            json.dumps(SPEC | (spec or {})),
        )
        return Order(operation_id, store_id, owner)

    async def execute(self, statement: str, *arguments: object) -> None:
        await self.connection.execute(statement, *arguments)

    async def value(self, statement: str, *arguments: object) -> Any:
        return await self.connection.fetchval(statement, *arguments)

    async def operation(self, order: Order) -> Any:
        return await self.connection.fetchrow("SELECT * FROM storeplane.operations WHERE id = $1", order.operation_id)

    async def store(self, order: Order) -> Any:
        return await self.connection.fetchrow("SELECT * FROM storeplane.stores WHERE id = $1", order.store_id)

    async def attempt(self, order: Order, number: int = 1) -> Any:
        return await self.connection.fetchrow(
            "SELECT * FROM storeplane.attempts WHERE operation_id = $1 AND number = $2", order.operation_id, number
        )

    async def events(self, order: Order) -> list[str]:
        rows = await self.connection.fetch(
            "SELECT event_type FROM storeplane.store_events WHERE store_id = $1 ORDER BY id", order.store_id
        )
        return [row["event_type"] for row in rows]

    async def audited(self, action: str) -> int:
        return int(await self.value("SELECT count(*) FROM storeplane.audit_log WHERE action = $1", action))

    async def leases_run_out(self) -> None:
        """Let every lease and every wait be over."""
        await self.execute("UPDATE storeplane.operations SET lease_until = now() - interval '1 second'")
        await self.execute(
            "UPDATE storeplane.operations SET next_dispatch_at = now() WHERE next_dispatch_at IS NOT NULL"
        )

    async def until_it_waits(self, task: asyncio.Future[Any]) -> None:
        """Return once a statement of this task waits for a lock of this database."""
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        deadline = asyncio.get_running_loop().time() + 10
        while not await self.value(waits):
            assert not task.done(), "it did not wait"
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)

    async def counters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the budget rows count, and what there is to count."""
        kept = await self.connection.fetchrow(
            "SELECT (SELECT sum(in_flight) FROM storeplane.clusters) AS cluster,"
            " (SELECT sum(in_flight) FROM storeplane.user_slots) AS users,"
            " (SELECT sum(waiting) FROM storeplane.user_slots) AS waiting"
        )
        real = await self.connection.fetchrow(
            "SELECT (SELECT count(*) FROM storeplane.attempts WHERE finished_at IS NULL) AS cluster,"
            " (SELECT count(*) FROM storeplane.attempts WHERE finished_at IS NULL) AS users,"
            " (SELECT count(*) FROM storeplane.operations WHERE next_dispatch_at IS NOT NULL) AS waiting"
        )
        return {key: value or 0 for key, value in kept.items()}, dict(real)


def renderer(settings: Settings | None = None, key: str = wishes.KEY) -> Callable[[ClaimedAttempt], RenderedJob]:
    """Return a function that renders claimed attempts as the dispatcher does."""
    chosen = settings or wishes.settings()

    def render(claimed: ClaimedAttempt) -> RenderedJob:
        manifest = render_job(claimed, chosen)
        token = attempt_token(key.encode(), claimed.operation_id, claimed.number)
        return RenderedJob(manifest, sha256_of(manifest), token_hash(token), token_key_id(key.encode()))

    return render
