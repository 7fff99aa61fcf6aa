"""Rows of operations and their attempts, as a caller may see them, and what callers ask of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from controlplane.db.pool import Statements
from controlplane.db.stores import Page
from controlplane.domain.operation import Attempt, Operation, OperationKind, Phase
from controlplane.domain.store import Caller
from controlplane.domain.transitions import AttemptState, OperationState, StoreState
from controlplane.domain.waiting import Busy, WaitFacts, explained

__all__ = ["ActiveOperation", "AttemptLog", "NewRetry", "OpenAttempt", "OperationRows", "RetryFacts"]

_COUNTED_FOR_ONE: Final = 100_000
"""Of an owner's operations, to find the place of one: some ten milliseconds at most."""
_COUNTED_FOR_MANY: Final = 1_000
"""The same for each row of a page."""


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """Where the log of an attempt is to be had."""

    number: int
    """0 before the first attempt."""
    is_known: bool
    """False when the operation has no attempt of this number."""
    job_uid: str | None
    state: str | None
    """`stored`, `unavailable`, or None before the harvest."""
    content: str | None


@dataclass(frozen=True, slots=True)
class ActiveOperation:
    """What a store is busy with."""

    id: UUID
    kind: OperationKind
    retry_of: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryFacts:
    """What decides whether and how an operation may be tried again."""

    store_id: UUID
    owner_id: UUID
    kind: OperationKind
    state: OperationState
    spec: dict[str, Any]
    store_state: StoreState
    is_cancelling: bool
    newer_id: UUID | None
    """The store's newest operation after this one, clean-ups aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRetry:
    """Everything the retry of an ended operation writes."""

    retry_of: UUID
    operation_id: UUID
    spec: dict[str, Any]
    urls: dict[str, str | None] | None
    """Of the store, if the spec makes it."""
    spec_changes: list[dict[str, Any]]
    request_id: str
    ip: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAttempt:
    """The newest attempt of an operation; whether it is open, `state` says."""

    store_id: UUID
    operation_state: OperationState
    number: int | None
    state: AttemptState | None
    job_name: str | None
    job_uid: str | None
    manifest: str | None
    """Its rendered Job; None before the first rendering."""
    token_hash: bytes | None


class OperationRows:
    """Reads and writes on behalf of a caller; on a pool each method is a transaction of its own."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def get_operation(self, operation_id: UUID, caller: Caller) -> Operation | None:
        """Return the operation, or None when there is none for this caller."""
        found = await self.read([operation_id], caller)
        return found[0] if found else None

    async def read(self, ids: Sequence[UUID], caller: Caller) -> list[Operation]:
        """Return the operations with these ids that the caller may see, newest first."""
        most = _COUNTED_FOR_ONE if len(ids) == 1 else _COUNTED_FOR_MANY
        rows = await self._statements.fetch("read_operations", list(ids), caller.user_id, caller.role.value, most)
        return [_operation(row) for row in rows]

    async def list_operations(
        self,
        caller: Caller,
        page: Page,
        *,
        store_id: UUID | None,
        state: OperationState | None,
        kind: OperationKind | None,
    ) -> list[Operation]:
        """Return a page of operations, newest first."""
        rows = await self._statements.fetch(
            "list_operations",
            caller.user_id,
            caller.role.value,
            store_id,
            None if state is None else state.value,
            None if kind is None else kind.value,
            *(page.after or (None, None)),
            page.limit,
        )
        return await self.read([row["id"] for row in rows], caller) if rows else []

    async def attempts(self, operation_id: UUID, caller: Caller) -> list[Attempt]:
        """Return every attempt with its phases, oldest first."""
        rows = await self._statements.fetch("operation_attempts", operation_id, caller.user_id, caller.role.value)
        return [_attempt(row) for row in rows]

    async def attempt_log(self, operation_id: UUID, caller: Caller, number: int | None) -> AttemptLog | None:
        """Return where an attempt's log is (None for the newest), or None when there is no such operation for them."""
        row = await self._statements.fetch_one("attempt_log", operation_id, caller.user_id, caller.role.value, number)
        if row is None:
            return None
        return AttemptLog(row["number"], row["is_known"], row["job_uid"], row["log_state"], row["content"])

    async def active_of_store(self, store_id: UUID, caller: Caller) -> ActiveOperation | None:
        """Return what the store is busy with, its delete first."""
        row = await self._statements.fetch_one("active_operation", store_id, caller.user_id, caller.role.value)
        return None if row is None else ActiveOperation(row["id"], OperationKind(row["kind"]), row["retry_of"])

    async def cancel(self, operation_id: UUID, caller: Caller, ip: str | None) -> bool:
        """Ask the operation to end; False when it may not be cancelled, is over, or was asked before."""
        row = await self._statements.fetch_one("cancel_operation", operation_id, caller.user_id, caller.role.value, ip)
        return row is not None

    async def finish_cancel(self, operation_id: UUID, cleanup_id: UUID) -> None:
        """End a cancelled operation at once when it has no open attempt; otherwise the reconciler will."""
        await self._statements.fetch_one("finish_cancel", operation_id, cleanup_id)

    async def retry_facts(self, operation_id: UUID, caller: Caller) -> RetryFacts | None:
        """Return what decides about a retry, or None when there is no such operation for this caller."""
        row = await self._statements.fetch_one("retry_facts", operation_id, caller.user_id, caller.role.value)
        if row is None:
            return None
        typed = {
            "kind": OperationKind(row["kind"]),
            "state": OperationState(row["state"]),
            "store_state": StoreState(row["store_state"]),
        }
        return RetryFacts(**(dict(row) | typed))

    async def submit_retry(self, new: NewRetry, caller: Caller) -> bool:
        """Write a new operation; False when the ended one is not the store's newest or the store moved on.

        Raises
        ------
        OperationInProgressError
            The store is busy.
        """
        row = await self._statements.fetch_one(
            "submit_retry",
            new.retry_of,
            caller.user_id,
            caller.role.value,
            new.operation_id,
            new.spec,
            new.request_id,
            new.ip,
            new.spec_changes,
            new.urls,
        )
        return row is not None

    async def supersede_attempt(self, operation_id: UUID, caller: Caller, ip: str | None) -> int | None:
        """Raise the fence of a running operation; return its open attempt's number, or None when it has none."""
        row = await self._statements.fetch_one("supersede_attempt", operation_id, caller.user_id, caller.role.value, ip)
        return None if row is None else row["attempt"]

    async def end_as_retried(self, operation_id: UUID, number: int, problem: dict[str, Any]) -> bool:
        """End the open attempt for a person's retry; False when it ended meanwhile."""
        row = await self._statements.fetch_one(
            "end_attempt", operation_id, number, None, "failed", "retried", None, None, problem
        )
        return row is not None and row["is_ended"]

    async def open_attempt(self, operation_id: UUID, caller: Caller) -> OpenAttempt | None:
        """Return the newest attempt, or None when there is no such operation for this caller."""
        row = await self._statements.fetch_one("open_attempt", operation_id, caller.user_id, caller.role.value)
        if row is None:
            return None
        state = None if row["attempt_state"] is None else AttemptState(row["attempt_state"])
        return OpenAttempt(
            store_id=row["store_id"],
            operation_state=OperationState(row["state"]),
            number=row["number"],
            state=state,
            job_name=row["job_name"],
            job_uid=row["job_uid"],
            manifest=row["manifest"],
            token_hash=row["token_hash"],
        )

    async def note_reattached(
        self, operation_id: UUID, number: int, job: tuple[str, str], caller: Caller, ip: str | None
    ) -> None:
        """Write event and audit row; `job` is name and uid."""
        await self._statements.fetch_one("note_reattached", operation_id, number, *job, caller.user_id, ip)

    async def audit_refusal(
        self, caller: Caller, store_id: UUID | None, action: str, details: dict[str, Any], ip: str | None
    ) -> None:
        """Keep that something was refused for a reason a security officer wants to know."""
        await self._statements.fetch_one("audit_refusal", caller.user_id, store_id, action, details, ip)


def _operation(row: Any) -> Operation:
    busy = None
    if row["busy_operation_id"] is not None:
        busy = Busy(row["busy_operation_id"], row["busy_kind"], row["busy_number"])
    waiting = explained(
        WaitFacts(
            state=OperationState(row["state"]),
            now=row["now"],
            since=row["waiting_since"],
            next_dispatch_at=row["next_dispatch_at"],
            noted_reason=row["waiting_reason"],
            is_own=row["is_own"],
            is_cancelling=row["is_cancelling"],
            is_leased=row["is_leased"],
            attempt=row["attempt"],
            attempt_state=None if row["attempt_state"] is None else AttemptState(row["attempt_state"]),
            circuit_reason=row["circuit_reason"],
            cluster_in_flight=row["cluster_in_flight"],
            cluster_limit=row["cluster_limit"],
            tokens=row["tokens"],
            own_in_flight=row["own_in_flight"],
            own_slots=row["own_slots"],
            busy=busy,
            position=None if row["position"] is None else int(row["position"]),
        )
    )
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
        deadline_at=row["deadline_at"],
        retry_of=row["retry_of"],
        result=row["result"],
    )


def _attempt(row: Any) -> Attempt:
    phases = tuple(
        Phase(each["phase"], _moment(each["started_at"]), _moment(each["finished_at"]), each["detail"])
        for each in row["phases"]
    )
    known = {name: value for name, value in dict(row).items() if name != "job_uid"}
    return Attempt(**(known | {"state": AttemptState(row["state"]), "phases": phases}))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
