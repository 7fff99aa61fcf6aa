"""Rows of users, stores, their operations and history, as a caller may see them."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from controlplane.db.pool import Database
from controlplane.domain.operation import Operation, OperationKind, Waiting
from controlplane.domain.store import Caller, Role, Store, StoreEvent
from controlplane.domain.transitions import OperationState, StoreState

__all__ = ["AttemptLog", "NewStore", "StoreRows"]


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
    namespace: str
    urls: dict[str, str | None]
    spec: dict[str, Any]
    request_id: str
    ip: str | None


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """Where the log of an operation's newest attempt is to be had."""

    number: int
    """0 before the first attempt."""
    job_uid: str | None
    job_name: str | None
    state: str | None
    """`stored`, `unavailable`, or None before the harvest."""
    content: str | None


class StoreRows:
    """Reads and writes on behalf of a caller; each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user_by_token(self, token_hash: bytes) -> Caller | None:
        """Return whose token this is, or None."""
        row = await self._database.fetch_one("user_by_token", token_hash)
        return None if row is None else Caller(row["id"], Role(row["role"]))

    async def add_user(self, user_id: UUID, name: str, role: Role, token_hash: bytes) -> UUID:
        """Add a user, or change role and token of the one with this name; return the id."""
        row = await self._database.fetch_one("add_user", user_id, name, role.value, token_hash)
        return _present(row)["id"]  # type: ignore[no-any-return]  # rows are untyped

    async def submit_create(self, new: NewStore) -> None:
        """Write store, operation, first event and audit row in one statement.

        Raises
        ------
        NameTakenError
            The owner has a store with this slug that is not deleted.
        """
        await self._database.fetch_one(
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
        )

    async def get_store(self, store_id: UUID, caller: Caller) -> Store | None:
        """Return the store, or None when there is none for this caller."""
        row = await self._database.fetch_one("get_store", store_id, caller.user_id, caller.role.value)
        return None if row is None else _store(row)

    async def get_operation(self, operation_id: UUID, caller: Caller) -> Operation | None:
        """Return the operation, or None when there is none for this caller."""
        row = await self._database.fetch_one("get_operation", operation_id, caller.user_id, caller.role.value)
        return None if row is None else _operation(row)

    async def latest_operation(self, store_id: UUID, caller: Caller) -> Operation | None:
        """Return the store's newest operation, or None when there is none for this caller."""
        row = await self._database.fetch_one("latest_operation", store_id, caller.user_id, caller.role.value)
        return None if row is None else await self.get_operation(row["id"], caller)

    async def list_events(self, store_id: UUID, caller: Caller, *, after: int, limit: int) -> list[StoreEvent]:
        """Return up to `limit` events with ids above `after`, oldest first."""
        rows = await self._database.fetch(
            "list_store_events", store_id, caller.user_id, caller.role.value, after, limit
        )
        return [
            StoreEvent(row["id"], row["event_type"], row["message"], row["metadata"], row["created_at"]) for row in rows
        ]

    async def attempt_log(self, operation_id: UUID, caller: Caller) -> AttemptLog | None:
        """Return where the log is, or None when there is no such operation for this caller."""
        row = await self._database.fetch_one("attempt_log", operation_id, caller.user_id, caller.role.value)
        if row is None:
            return None
        return AttemptLog(row["attempt"], row["job_uid"], row["job_name"], row["log_state"], row["content"])

    async def schema_version(self) -> int:
        """Return the number of the newest migration applied; 0 before the first."""
        return int(_present(await self._database.fetch_one("schema_version"))["number"])


def _present(row: Any | None) -> Any:
    if row is None:
        message = "a statement that always returns a row returned none"
        raise RuntimeError(message)
    return row


def _store(row: Any) -> Store:
    return Store(
        id=row["id"],
        owner_id=row["owner_id"],
        name=row["name"],
        slug=row["slug"],
        engine=row["engine"],
        state=StoreState(row["state"]),
        namespace=row["namespace"],
        urls=row["urls"],
        created_at=row["created_at"],
    )


def _operation(row: Any) -> Operation:
    waiting = None
    if row["is_waiting"]:
        waiting = Waiting(row["waiting_reason"], row["position"], row["waiting_since"])
    return Operation(
        id=row["id"],
        store_id=row["store_id"],
        kind=OperationKind(row["kind"]),
        state=OperationState(row["state"]),
        attempt=row["attempt"],
        waiting=waiting,
        error=row["error"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )
