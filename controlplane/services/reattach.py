"""Bind a living Job to its open attempt again, on an admin's word; the cluster is asked, not believed from memory."""

import asyncio
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from controlplane.db.claims import MadeJob, record_jobs
from controlplane.db.operations import OpenAttempt, OperationRows
from controlplane.db.pool import Database, Session
from controlplane.domain.errors import DependencyUnavailableError, JobConflictError, OperationNotFoundError
from controlplane.domain.observation import JobView
from controlplane.domain.refusals import NotReattachableError
from controlplane.domain.store import Origin
from controlplane.domain.transitions import is_final
from controlplane.services.access import check_admin

__all__ = ["JobSource", "Reattach"]

_CLUSTER_SECONDS: Final = 10.0


class JobSource(Protocol):
    """Where a Job is read live."""

    async def find(self, manifest: dict[str, Any], token_hash: bytes) -> JobView | None:
        """Return the Job that was made of this manifest, or None; `JobConflictError` when its name is another's."""


class Reattach:
    """Reattaching on behalf of an admin."""

    def __init__(self, database: Database, jobs: JobSource) -> None:
        self._database = database
        self._rows = OperationRows(database)
        self._jobs = jobs

    async def reattach(self, operation_id: UUID, origin: Origin) -> None:
        """Record the attempt's Job as it is in the cluster now; repeating is harmless.

        Raises
        ------
        ForbiddenError
            The caller is no admin.
        OperationNotFoundError
            There is no such operation.
        NotReattachableError
            No attempt is open, its Job is gone, or the Job of its name is another's; with the reason.
        DependencyUnavailableError
            The cluster does not answer.
        """
        check_admin(origin)
        attempt = await self._rows.open_attempt(operation_id, origin.caller)
        if attempt is None:
            raise OperationNotFoundError(operation_id)
        if attempt.number is None or attempt.state is None or attempt.job_name is None:
            raise NotReattachableError(operation_id, f"it is {attempt.operation_state} and has no attempt yet")
        if is_final(attempt.state):
            reason = f"attempt {attempt.number} has ended ({attempt.state}); retry it instead"
            raise NotReattachableError(operation_id, reason)
        if attempt.manifest is None or attempt.token_hash is None:
            raise NotReattachableError(operation_id, f"attempt {attempt.number} has no Job yet; it is about to get one")
        job = await self._job(operation_id, attempt, orjson.loads(attempt.manifest), attempt.token_hash, origin)
        if job.is_terminating:
            raise NotReattachableError(operation_id, f"the Job {job.name} is being deleted; retry it instead")
        await self._bind(operation_id, attempt.number, job, origin)

    async def _job(
        self, operation_id: UUID, attempt: OpenAttempt, manifest: dict[str, Any], token_hash: bytes, origin: Origin
    ) -> JobView:
        try:
            async with asyncio.timeout(_CLUSTER_SECONDS):
                job = await self._jobs.find(manifest, token_hash)
        except TimeoutError as error:
            message = f"the cluster did not answer within {_CLUSTER_SECONDS:.0f} s; try again shortly"
            raise DependencyUnavailableError(message) from error
        except JobConflictError as error:
            await self._refuse(operation_id, attempt, str(error), origin)
            raise NotReattachableError(operation_id, str(error)) from error
        if job is None:
            reason = f"there is no Job {attempt.job_name} in the cluster; retry it instead"
            raise NotReattachableError(operation_id, reason)
        if attempt.job_uid not in (None, job.uid):
            reason = f"the Job {job.name} has the uid {job.uid}, and {attempt.job_uid} is the one recorded"
            await self._refuse(operation_id, attempt, reason, origin)
            raise NotReattachableError(operation_id, reason)
        return job

    async def _refuse(self, operation_id: UUID, attempt: OpenAttempt, reason: str, origin: Origin) -> None:
        details = {"operation_id": str(operation_id), "job": attempt.job_name, "reason": reason}
        await self._rows.audit_refusal(origin.caller, attempt.store_id, "security.foreign_job", details, origin.ip)

    async def _bind(self, operation_id: UUID, number: int, job: JobView, origin: Origin) -> None:
        async def work(session: Session) -> None:
            if not await record_jobs(session, [MadeJob(operation_id, number, job.uid)]):
                raise NotReattachableError(operation_id, "the attempt moved on meanwhile; read it again")
            await OperationRows(session).note_reattached(
                operation_id, number, (job.name, job.uid), origin.caller, origin.ip
            )

        await self._database.run(work)
