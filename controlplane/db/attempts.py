"""The reconciler's rows: attempts that are not settled, their ends, what follows, and what is swept.

Every write is guarded: none or stale means that somebody else acted first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from controlplane.db.pool import Database, Session
from controlplane.domain.attempt import AttemptFacts, AttemptOutcome
from controlplane.domain.errors import StaleLeaseError
from controlplane.domain.step import EndAttempt
from controlplane.domain.transitions import AttemptState, OperationState

__all__ = ["AttemptRows", "KnownAttempt", "Overdue", "ToConclude"]


@dataclass(frozen=True, slots=True)
class ToConclude:
    """An active operation without an open attempt: something has to follow."""

    operation_id: UUID
    kind: str
    number: int
    """Of its newest attempt; 0 when it has none."""
    is_cancelled: bool
    memory_mib: int
    seconds_left: float | None
    """Until its deadline; None before the first dispatch."""
    problem: dict[str, Any] | None
    """Of the newest attempt."""
    outcomes: Sequence[AttemptOutcome]
    """Of every attempt, the newest last."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """An operation that is out of time."""

    operation_id: UUID
    kind: str
    state: OperationState


@dataclass(frozen=True, slots=True)
class KnownAttempt:
    """What Postgres knows of a Job's name."""

    job_uid: str | None
    state: AttemptState
    is_harvested: bool


class AttemptRows:
    """What the reconciler reads and writes; each method is one transaction of its own."""

    def __init__(self, database: Database, cluster_id: str) -> None:
        self._database = database
        self._cluster_id = cluster_id

    async def list_unsettled(
        self, page: int, *, operations: Sequence[UUID] | None = None
    ) -> tuple[datetime | None, list[AttemptFacts]]:
        """Return the database's clock (None without rows) and the attempts that are open, unharvested or alive.

        All of them, or those of the named operations, oldest first, read in pages of `page` rows: a limit would let
        the oldest hide the others.
        """
        rows: list[Any] = []
        while True:
            after = (rows[-1]["created_at"], rows[-1]["operation_id"], rows[-1]["number"]) if rows else (None,) * 3
            found = await self._database.fetch("list_unsettled_attempts", *after, page, operations, self._cluster_id)
            rows += found
            if len(found) < page:
                return (rows[0]["now"] if rows else None), [_facts(row) for row in rows]

    async def note_end(self, attempt: AttemptFacts) -> None:
        """Write down that its container or Job was seen ended; the first to say so sets the moment."""
        await self._database.fetch_one("note_end", attempt.operation_id, attempt.number)

    async def note_waiting(self, attempt: AttemptFacts, reason: str) -> None:
        """Write down why the pod does not start; nothing happens when it has begun meanwhile."""
        await self._database.fetch_one("note_waiting", attempt.operation_id, attempt.number, reason)

    async def rendered_job(self, attempt: AttemptFacts) -> tuple[str, bytes] | None:
        """Return the attempt's rendered Job and its token's hash, or None when none was ever rendered."""
        row = await self._database.fetch_one("rendered_job", attempt.operation_id, attempt.number)
        return None if row is None else (row["manifest"], row["token_hash"])

    async def note_late_job(self, attempt: AttemptFacts, job_uid: str) -> None:
        """Write down the Job of an attempt that had ended before its Job was recorded."""
        await self._database.fetch_one("note_late_job", attempt.operation_id, attempt.number, job_uid)

    async def note_pods_ended(self, attempt: AttemptFacts) -> None:
        """Write down that no pod of the attempt can do anything any more."""
        await self._database.fetch_one("note_pods_ended", attempt.operation_id, attempt.number)

    async def end(self, attempt: AttemptFacts, end: EndAttempt) -> None:
        """End an attempt by what was observed; `StaleLeaseError` when its own report came first."""
        row = await self._database.fetch_one(
            "end_attempt",
            attempt.operation_id,
            attempt.number,
            attempt.state.value,
            end.state.value,
            end.outcome.value,
            end.exit_code,
            end.result,
            end.problem,
        )
        if row is None or not row["is_ended"]:
            message = "end attempt"
            raise StaleLeaseError(message)

    async def list_to_conclude(self, limit: int, *, operations: Sequence[UUID] | None = None) -> list[ToConclude]:
        """Return active operations, or of the named ones, whose newest attempt ended and which wait for nothing."""
        return [
            ToConclude(
                operation_id=row["operation_id"],
                kind=row["kind"],
                number=row["attempt"],
                is_cancelled=row["is_cancelled"],
                memory_mib=row["memory_mib"],
                seconds_left=row["seconds_left"],
                problem=row["problem"],
                outcomes=[AttemptOutcome(each) for each in row["outcomes"]],
            )
            for row in await self._database.fetch("list_operations_to_conclude", limit, operations, self._cluster_id)
        ]

    async def fail_operation(self, ended: ToConclude, error: dict[str, Any]) -> bool:
        """Fail the operation; False when somebody else concluded it first."""
        return await self._database.fetch_one("fail_operation", ended.operation_id, ended.number, error) is not None

    async def retry_operation(self, ended: ToConclude, seconds: float, reason: str, memory_mib: int) -> bool:
        """Schedule the next attempt; False when somebody else concluded it first."""
        row = await self._database.fetch_one(
            "retry_operation", ended.operation_id, ended.number, seconds, reason, memory_mib
        )
        return row is not None

    async def finish_cancel(self, operation_id: UUID, cleanup_id: UUID) -> bool:
        """End a cancelled operation without open attempt, with its clean-up; False when there was nothing to end."""
        return await self._database.fetch_one("finish_cancel", operation_id, cleanup_id) is not None

    async def list_overdue(self, queue_seconds: float, limit: int) -> list[Overdue]:
        """Return operations past their deadline or their time in the queue."""
        rows = await self._database.fetch("list_overdue", self._cluster_id, queue_seconds, limit)
        return [Overdue(row["id"], row["kind"], OperationState(row["state"])) for row in rows]

    async def expire(self, overdue: Overdue, error: dict[str, Any], cleanup_id: UUID) -> bool:
        """Fail an operation that is out of time; False when it ended meanwhile."""

        async def expire(session: Session) -> Any | None:
            await session.fetch_one("lock_operation", overdue.operation_id)
            return await session.fetch_one(
                "expire_operation", overdue.operation_id, overdue.state.value, error, cleanup_id
            )

        return await self._database.run(expire) is not None

    async def begin_harvest(self, attempt: AttemptFacts, seconds: float) -> bool:
        """Take the harvest for `seconds`; False when another process has it or it is done."""
        row = await self._database.fetch_one("begin_harvest", attempt.operation_id, attempt.number, seconds)
        return row is not None

    async def harvest(
        self,
        attempt: AttemptFacts,
        *,
        exit_code: int | None,
        log: str | None,
        diagnosis: dict[str, Any] | None,
        have_pods_ended: bool,
    ) -> bool | None:
        """Keep the log (None when there is none) and the diagnosis once.

        Returns whether another attempt follows, or None when another process was first.
        """
        row = await self._database.fetch_one(
            "harvest_attempt", attempt.operation_id, attempt.number, exit_code, log, diagnosis, have_pods_ended
        )
        return None if row is None else bool(row["is_followed"])

    async def give_harvest_back(self, attempt: AttemptFacts) -> None:
        """Let anybody take a harvest again that could not be done."""
        await self._database.fetch("give_harvest_back", attempt.operation_id, attempt.number)

    async def known(self, job_names: Sequence[str]) -> dict[str, KnownAttempt]:
        """Return what is known of these Jobs' names; a name without an attempt is absent."""
        rows = await self._database.fetch("known_attempts", job_names)
        return {
            row["job_name"]: KnownAttempt(row["job_uid"], AttemptState(row["state"]), row["is_harvested"])
            for row in rows
        }

    async def audit(self, action: str, details: dict[str, Any]) -> None:
        """Keep an audit row of something the system did by itself."""
        await self._database.fetch("audit", action, details)

    async def submit_overdue_cleanups(self, retention_seconds: float, ids: Sequence[UUID]) -> int:
        """Order the clean-up of stores that failed longer ago than `retention_seconds`; return how many."""
        return len(await self._database.fetch("submit_overdue_cleanups", retention_seconds, ids, self._cluster_id))

    async def keep_partitions(self, event_months: int, log_months: int) -> None:
        """Make the coming months' partitions and drop those kept long enough."""
        await self._database.fetch_one("keep_partitions", event_months, log_months)

    async def forget_idempotency_keys(self, seconds: float) -> None:
        """Forget idempotency keys that are older than `seconds`."""
        await self._database.fetch("forget_idempotency_keys", seconds)


def _facts(row: Any) -> AttemptFacts:
    return AttemptFacts(
        operation_id=row["operation_id"],
        number=row["number"],
        kind=row["kind"],
        state=AttemptState(row["state"]),
        operation_state=OperationState(row["operation_state"]),
        is_newest=row["is_newest"],
        namespace=row["namespace"],
        job_name=row["job_name"],
        job_uid=row["job_uid"],
        pod_uid=row["pod_uid"],
        outcome=None if row["outcome"] is None else AttemptOutcome(row["outcome"]),
        created_at=row["created_at"],
        dispatched_at=row["dispatched_at"],
        lease_until=row["lease_until"],
        finished_at=row["finished_at"],
        end_seen_at=row["end_seen_at"],
        harvested_at=row["harvested_at"],
        pods_ended_at=row["pods_ended_at"],
        cancel_requested_at=row["cancel_requested_at"],
        waiting_reason=row["waiting_reason"],
    )
