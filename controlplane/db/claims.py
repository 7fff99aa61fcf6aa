"""The dispatcher's rows: claim within the cluster's budget, record the Job, give a claim back, the cluster's circuit.

Every write is guarded by the claim's fence; `StaleLeaseError` means that somebody else acted and the result is dropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from controlplane.db.pool import Database, Session, Statements
from controlplane.domain.attempt import ClaimedAttempt
from controlplane.domain.errors import StaleLeaseError

__all__ = ["Claim", "ClaimRows", "MadeJob", "RenderedJob", "record_jobs"]


@dataclass(frozen=True, slots=True)
class RenderedJob:
    """What the claim stores of a rendering."""

    manifest: str
    sha256: str
    token_hash: bytes
    token_key_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What one claim found."""

    attempts: Sequence[ClaimedAttempt] = ()
    seconds_to_token: float = 0.0
    """How long the rate of Job creations makes the next claim wait; 0 when it does not."""
    is_probe: bool = False
    """The cluster refused the Job of before: this one tells whether it is well again."""


@dataclass(frozen=True, slots=True)
class MadeJob:
    """The Job of an attempt as the cluster has it."""

    operation_id: UUID
    number: int
    job_uid: str


class ClaimRows:
    """What the dispatcher reads and writes; each method is one transaction of its own."""

    def __init__(self, database: Database, cluster_id: str) -> None:
        self._database = database
        self._cluster_id = cluster_id

    async def claim(
        self, holder: str, lease_seconds: int, most: int, render: Callable[[ClaimedAttempt], RenderedJob | None]
    ) -> Claim:
        """Claim up to `most` operations within the cluster's budget; render their Jobs unless an earlier claim did.

        `render` is called inside the transaction, so it must be quick and touch nothing outside. An attempt for which
        it returns None is claimed and has no manifest: the caller fails its operation.
        """
        due = await self._database.fetch_one("has_due", self._cluster_id)
        if due is None or not due["is_due"]:
            return Claim()
        async with self._database.transaction() as session:
            budget = await session.fetch_one("refill_budget", self._cluster_id)
            if budget is None or budget["is_open"]:
                return Claim()
            if budget["tokens"] < 1:
                return Claim(seconds_to_token=max(0.0, budget["seconds_to_token"]))
            # After a failure one claim alone tries whether the cluster is well again.
            most = 1 if budget["is_broken"] else min(most, budget["tokens"])
            rows = await session.fetch(
                "claim_operations", self._cluster_id, holder, lease_seconds, most, budget["free"]
            )
            claimed = [ClaimedAttempt(**dict(row)) for row in rows]
            if claimed and budget["is_broken"]:
                await session.fetch_one("begin_probe", self._cluster_id, lease_seconds)
            made = [(each, job) for each in claimed if each.manifest is None and (job := render(each)) is not None]
            if made:
                await _store(session, made)
        rendered = {each.operation_id: job for each, job in made}
        attempts = [_with(each, rendered.get(each.operation_id)) for each in claimed]
        return Claim(attempts, is_probe=budget["is_broken"])

    async def change_token(self, claimed: ClaimedAttempt, token_hash: bytes, token_key_id: str) -> None:
        """Expect another token from the attempt's pod; `StaleLeaseError` when the claim was lost or it has a Job."""
        await self._guarded(
            "change_token", claimed.operation_id, claimed.number, claimed.fence, token_hash, token_key_id
        )

    async def record_job(self, made: MadeJob) -> None:
        """Record one Job as `record_jobs` does; `StaleLeaseError` when the attempt has another Job or is over."""
        if not await record_jobs(self._database, [made]):
            message = "record Job"
            raise StaleLeaseError(message)

    async def record_jobs(self, made: Sequence[MadeJob]) -> set[MadeJob]:
        """Record created or adopted Jobs in one commit.

        Returns those that their attempts have now, also where it was recorded before, by us or by the pod's handshake.
        The attempt of one that is missing has another Job or is over.
        """
        return await record_jobs(self._database, made)

    async def postpone(self, claimed: ClaimedAttempt, reason: str, seconds: float) -> None:
        """Give the claim back with a reason; `StaleLeaseError` when it was lost meanwhile."""
        await self._guarded("postpone_dispatch", claimed.operation_id, claimed.fence, reason, seconds)

    async def fail(self, claimed: ClaimedAttempt, problem: dict[str, Any]) -> None:
        """Fail an operation whose Job can never be created; `StaleLeaseError` when the claim was lost."""

        async def fail(session: Session) -> Any | None:
            await session.fetch_one("lock_operation", claimed.operation_id)
            return await session.fetch_one("fail_before_job", claimed.operation_id, claimed.fence, problem)

        if await self._database.run(fail) is None:
            message = "fail before Job"
            raise StaleLeaseError(message)

    async def open_circuit(self, reason: str, seconds: float | None, *, is_probe: bool = False) -> bool:
        """Leave the cluster alone, for `seconds` or for longer each time; True when that is news."""
        row = await self._database.fetch_one("open_circuit", self._cluster_id, reason, seconds, is_probe)
        return row is not None and bool(row["is_new"])

    async def close_circuit(self) -> bool:
        """Say that the cluster took a Job; True when it was left alone before."""
        return await self._database.fetch_one("close_circuit", self._cluster_id) is not None

    async def _guarded(self, name: str, *arguments: object) -> None:
        if await self._database.fetch_one(name, *arguments) is None:
            raise StaleLeaseError(name.replace("_", " "))


async def _store(session: Any, made: list[tuple[ClaimedAttempt, RenderedJob]]) -> None:
    kept = await session.fetch(
        "store_manifests",
        [each.operation_id for each, _ in made],
        [each.number for each, _ in made],
        [job.manifest for _, job in made],
        [job.sha256 for _, job in made],
        [job.token_hash for _, job in made],
        [job.token_key_id for _, job in made],
    )
    if len(kept) != len(made):
        message = "store manifests"
        raise StaleLeaseError(message)


async def record_jobs(statements: Statements, made: Sequence[MadeJob]) -> set[MadeJob]:
    """Record Jobs of open attempts; return those that their attempts have, by now or from before."""
    operations, numbers = [each.operation_id for each in made], [each.number for each in made]
    rows = await statements.fetch("record_jobs", operations, numbers, [each.job_uid for each in made])
    recorded = {MadeJob(**dict(row)) for row in rows}
    if not recorded.issuperset(made):
        rows = await statements.fetch("recorded_jobs", operations, numbers)
        recorded |= {MadeJob(**dict(row)) for row in rows}.intersection(made)
    return recorded


def _with(claimed: ClaimedAttempt, job: RenderedJob | None) -> ClaimedAttempt:
    if job is None:
        return claimed
    return replace(claimed, manifest=job.manifest, token_hash=job.token_hash, token_key_id=job.token_key_id)
