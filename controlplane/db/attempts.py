"""Rows of attempts: claim, dispatch, end, harvest. Every write is guarded; none or stale means somebody else acted."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from controlplane.db.pool import Database
from controlplane.domain.attempt import AttemptFacts, ClaimedAttempt
from controlplane.domain.decision import EndAttempt
from controlplane.domain.errors import StaleLeaseError
from controlplane.domain.transitions import AttemptState

__all__ = ["AttemptRows", "EndedAttempt", "RenderedJob"]


@dataclass(frozen=True, slots=True)
class RenderedJob:
    """What the claim stores of a rendering."""

    manifest: str
    sha256: str
    token_hash: bytes
    token_key_id: str


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """A running operation whose newest attempt ended without success."""

    operation_id: UUID
    number: int
    outcome: str
    problem: dict[str, Any] | None


class AttemptRows:
    """What dispatcher and reconciler read and write; each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, holder: str, lease_seconds: int, render: Callable[[ClaimedAttempt], RenderedJob | None]
    ) -> ClaimedAttempt | None:
        """Claim the next operation; render its Job unless an earlier claim did; None when nothing is due.

        `render` is called inside the transaction, so it must be quick and touch nothing outside. When it returns
        None, the claim holds and has no manifest: the caller fails the operation.
        """
        async with self._database.transaction() as session:
            row = await session.fetch_one("claim_operation", holder, lease_seconds)
            if row is None:
                return None
            claimed = ClaimedAttempt(**dict(row))
            if claimed.manifest is not None:
                return claimed
            job = render(claimed)
            if job is None:
                return claimed
            stored = await session.fetch_one(
                "store_manifest",
                claimed.operation_id,
                claimed.number,
                claimed.fence,
                job.manifest,
                job.sha256,
                job.token_hash,
                job.token_key_id,
            )
            if stored is None:
                message = "store manifest"
                raise StaleLeaseError(message)
        return ClaimedAttempt(**(dict(row) | {"manifest": job.manifest}))

    async def change_token(self, claimed: ClaimedAttempt, token_hash: bytes, token_key_id: str) -> None:
        """Expect another token from the attempt's pod; `StaleLeaseError` when the claim was lost or it has a Job."""
        row = await self._database.fetch_one(
            "change_token", claimed.operation_id, claimed.number, claimed.fence, token_hash, token_key_id
        )
        if row is None:
            message = "change token"
            raise StaleLeaseError(message)

    async def record_job(self, operation_id: UUID, number: int, job_uid: str) -> None:
        """Record the created or adopted Job; already recorded, by us or by the pod's handshake, is fine.

        Raises
        ------
        StaleLeaseError
            The attempt has another Job or is over.
        """
        if await self._database.fetch_one("record_job", operation_id, number, job_uid) is not None:
            return
        row = await self._database.fetch_one("recorded_job", operation_id, number)
        if row is None or row["job_uid"] != job_uid:
            message = "record Job"
            raise StaleLeaseError(message)

    async def postpone(self, claimed: ClaimedAttempt, reason: str, seconds: float) -> None:
        """Give the claim back with a reason; `StaleLeaseError` when it was lost meanwhile."""
        if (
            await self._database.fetch_one("postpone_dispatch", claimed.operation_id, claimed.fence, reason, seconds)
            is None
        ):
            message = "postpone dispatch"
            raise StaleLeaseError(message)

    async def fail_unrenderable(self, claimed: ClaimedAttempt, problem: dict[str, Any]) -> None:
        """Fail an operation whose Job can never be created; `StaleLeaseError` when the claim was lost."""
        row = await self._database.fetch_one("fail_unrenderable", claimed.operation_id, claimed.fence, problem)
        if row is None:
            message = "fail operation"
            raise StaleLeaseError(message)

    async def list_to_reconcile(self, page: int) -> tuple[datetime | None, list[AttemptFacts]]:
        """Return the database's clock (None without rows) and the attempts that are open or not harvested.

        All of them, oldest first, read in pages of `page` rows: a limit would let the oldest hide the others.
        """
        rows: list[Any] = []
        while True:
            after = (rows[-1]["created_at"], rows[-1]["operation_id"], rows[-1]["number"]) if rows else (None,) * 3
            found = await self._database.fetch("list_attempts_to_reconcile", *after, page)
            rows += found
            if len(found) < page:
                break
        facts = [
            AttemptFacts(
                operation_id=row["operation_id"],
                number=row["number"],
                state=AttemptState(row["state"]),
                job_name=row["job_name"],
                job_uid=row["job_uid"],
                pod_uid=row["pod_uid"],
                lease_until=row["lease_until"],
                finished_at=row["finished_at"],
                end_seen_at=row["end_seen_at"],
                waiting_reason=row["waiting_reason"],
            )
            for row in rows
        ]
        return (rows[0]["now"] if rows else None), facts

    async def note_end(self, attempt: AttemptFacts) -> None:
        """Write down that its container or Job was seen ended; the first to say so sets the moment."""
        await self._database.fetch_one("note_end", attempt.operation_id, attempt.number)

    async def note_waiting(self, attempt: AttemptFacts, reason: str) -> None:
        """Write down why the pod does not start; nothing happens when it has begun meanwhile."""
        await self._database.fetch_one("note_waiting", attempt.operation_id, attempt.number, reason)

    async def end(self, attempt: AttemptFacts, end: EndAttempt) -> None:
        """End an attempt by what was observed; `StaleLeaseError` when its own report came first."""
        row = await self._database.fetch_one(
            "end_attempt",
            attempt.operation_id,
            attempt.number,
            attempt.state.value,
            end.state.value,
            end.outcome,
            end.exit_code,
            end.result,
            end.problem,
        )
        if row is None:
            message = "end attempt"
            raise StaleLeaseError(message)

    async def list_to_conclude(self, limit: int) -> list[EndedAttempt]:
        """Return running operations whose newest attempt ended without success."""
        rows = await self._database.fetch("list_operations_to_conclude", limit)
        return [EndedAttempt(row["operation_id"], row["attempt"], row["outcome"], row["problem"]) for row in rows]

    async def fail_operation(self, ended: EndedAttempt, error: dict[str, Any]) -> bool:
        """Fail the operation; False when somebody else concluded it first."""
        row = await self._database.fetch_one("fail_operation", ended.operation_id, ended.number, error)
        return row is not None

    async def expire(self, error: dict[str, Any], *, now: datetime | None = None) -> list[UUID]:
        """Fail every operation past its deadline and return their ids; `now` None for the database's clock."""
        return [row["id"] for row in await self._database.fetch("expire_operations", error, now)]

    async def harvest(self, attempt: AttemptFacts, exit_code: int | None, log: str | None) -> bool:
        """Keep the log (None when there is none) once; False when another process was first."""
        row = await self._database.fetch_one("harvest_attempt", attempt.operation_id, attempt.number, exit_code, log)
        return row is not None
