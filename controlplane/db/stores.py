"""Rows of stores and their history, as a caller may see them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from controlplane.db.idempotency import IdempotencyKey
from controlplane.db.pool import Statements
from controlplane.domain.store import Caller, Store, StoreEvent
from controlplane.domain.transitions import StoreState

__all__ = ["AcceptedCreate", "After", "NewDelete", "NewStore", "Page", "StoreRows"]

After = tuple[datetime, UUID]
"""`created_at` and id of the row before a page."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list, newest first."""

    after: After | None
    """None for the first page."""
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStore:
    """Everything a create writes in its one statement."""

    store_id: UUID
    operation_id: UUID
    owner_id: UUID
    cluster_id: str
    name: str
    slug: str
    engine: str
    plan: str
    namespace: str
    host: str
    urls: dict[str, str | None]
    spec: dict[str, Any]
    request_id: str
    ip: str | None
    creates_per_minute: int
    key: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True)
class AcceptedCreate:
    """The store as it was written, and what is left of its owner's rate."""

    store: Store
    creates_left: int
    reset_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelete:
    """Everything a delete writes."""

    store_id: UUID
    operation_id: UUID
    spec: dict[str, Any]
    request_id: str
    ip: str | None


class StoreRows:
    """Reads and writes on behalf of a caller; on a pool each method is a transaction of its own."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def submit_create(self, new: NewStore) -> AcceptedCreate | None:
        """Write store, operation, first event, audit row and key in one statement; None when a limit forbids it.

        Raises
        ------
        NameTakenError, HostTakenError
            The owner has a store with this slug, or somebody has one with this host, that is not deleted.
        KeyUsedError
            The key was used meanwhile.
        """
        key = new.key
        row = await self._statements.fetch_one(
            "submit_create",
            new.store_id,
            new.owner_id,
            new.cluster_id,
            new.name,
            new.slug,
            new.engine,
            new.namespace,
            new.urls,
            new.operation_id,
            new.spec,
            new.request_id,
            new.ip,
            new.creates_per_minute,
            None if key is None else key.route,
            None if key is None else key.key,
            None if key is None else key.fingerprint,
            new.plan,
            new.host,
        )
        if row is None:
            return None
        store = Store(
            id=new.store_id,
            owner_id=new.owner_id,
            name=new.name,
            slug=new.slug,
            engine=new.engine,
            engine_flavour=None,
            plan=new.plan,
            state=StoreState.PROVISIONING,
            namespace=new.namespace,
            urls=new.urls,
            created_at=row["created_at"],
            updated_at=row["created_at"],
            operation_id=new.operation_id,
        )
        return AcceptedCreate(store, row["creates_left"], row["reset_seconds"])

    async def get_store(self, store_id: UUID, caller: Caller) -> Store | None:
        """Return the store, or None when there is none for this caller."""
        row = await self._statements.fetch_one("get_store", store_id, caller.user_id, caller.role.value)
        return None if row is None else _store(row)

    async def newest_spec(self, store_id: UUID, caller: Caller) -> dict[str, Any] | None:
        """Return the spec of the store's newest operation, or None when there is no such store for this caller."""
        row = await self._statements.fetch_one("get_store", store_id, caller.user_id, caller.role.value)
        return None if row is None else row["spec"]

    async def list_stores(
        self, caller: Caller, page: Page, *, state: StoreState | None, engine: str | None
    ) -> list[Store]:
        """Return a page of stores, newest first; deleted ones only when that state is asked for."""
        rows = await self._statements.fetch(
            "list_stores",
            caller.user_id,
            caller.role.value,
            None if state is None else state.value,
            engine,
            *(page.after or (None, None)),
            page.limit,
        )
        return [_store(row) for row in rows]

    async def cancel_for_delete(self, store_id: UUID, caller: Caller) -> list[UUID]:
        """Ask what the store is busy with to end; return the ids of it."""
        rows = await self._statements.fetch("cancel_for_delete", store_id, caller.user_id, caller.role.value)
        return [row["id"] for row in rows]

    async def submit_delete(self, new: NewDelete, caller: Caller) -> bool:
        """Write a delete; False when the store is deleted by now.

        Raises
        ------
        OperationInProgressError
            It is being deleted.
        """
        row = await self._statements.fetch_one(
            "submit_delete",
            new.store_id,
            caller.user_id,
            caller.role.value,
            new.operation_id,
            new.spec,
            new.request_id,
            new.ip,
        )
        return row is not None

    async def list_events(self, store_id: UUID, caller: Caller, *, after: int, limit: int) -> list[StoreEvent]:
        """Return up to `limit` events with ids above `after`, oldest first."""
        rows = await self._statements.fetch(
            "list_store_events", store_id, caller.user_id, caller.role.value, after, limit
        )
        return [
            StoreEvent(row["id"], row["event_type"], row["message"], row["metadata"], row["created_at"]) for row in rows
        ]

    async def audit_foreign_id(self, asked: UUID, caller: Caller, ip: str | None) -> None:
        """Keep that the caller asked for another user's store or operation; nothing when there is none."""
        await self._statements.fetch_one("audit_foreign_id", asked, caller.user_id, ip)

    async def audit_credentials(self, store_id: UUID, caller: Caller, details: dict[str, Any], ip: str | None) -> bool:
        """Keep that the caller asked for a store's credentials; False when there is no such store at all."""
        row = await self._statements.fetch_one("audit_credentials", store_id, caller.user_id, details, ip)
        return row is not None

    async def schema_version(self) -> int:
        """Return the number of the newest migration applied; 0 before the first."""
        rows = await self._statements.fetch("schema_version")
        return int(rows[0]["number"])


def _store(row: Any) -> Store:
    return Store(
        id=row["id"],
        owner_id=row["owner_id"],
        name=row["name"],
        slug=row["slug"],
        engine=row["engine"],
        engine_flavour=row["engine_flavour"],
        plan=row["plan"],
        state=StoreState(row["state"]),
        namespace=row["namespace"],
        urls=row["urls"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        operation_id=row["operation_id"],
    )
