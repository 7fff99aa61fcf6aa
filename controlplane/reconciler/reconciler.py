"""The reconciler: observe every open or unharvested attempt, decide, apply.

Level-triggered: a pass reads everything anew and is safe to repeat, to miss and to run twice at once; every write is
guarded in the database. The decision itself is `domain.decision.decide`.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from controlplane.config import Settings
from controlplane.db.attempts import AttemptRows
from controlplane.domain.attempt import AttemptFacts
from controlplane.domain.decision import ConfirmAbsence, Decision, EndAttempt, Harvest, RecordJob, Wait, decide
from controlplane.domain.errors import ControlPlaneError, DatabaseUnavailableError, StaleLeaseError
from controlplane.domain.observation import JobView, Observation, PodView
from controlplane.domain.operation import TIMEOUT_SENTENCE
from controlplane.kube.errors import KubeError
from controlplane.kube.jobs import JobGateway
from controlplane.telemetry import bound, get_logger

__all__ = ["Reconciler", "observe"]

_BATCH: Final = 1000
"""Attempts looked at in one pass; the rest follow in the next."""
_TIMEOUT: Final = {
    "code": "OPERATION_TIMEOUT",
    "title": TIMEOUT_SENTENCE,
    "detail": "the operation did not end within 15 minutes of its first dispatch",
}

_log = get_logger(__name__)


class Reconciler:
    """Follows Jobs to their end; any number of them may run."""

    def __init__(self, rows: AttemptRows, jobs: JobGateway, settings: Settings) -> None:
        self._rows = rows
        self._jobs = jobs
        self._settings = settings

    async def run_once(self) -> None:
        """Make one pass. What needs no cluster comes first, so that deadlines hold while Kubernetes is down.

        Raises
        ------
        DatabaseUnavailableError, KubeError
            The pass ends; the next one begins anew.
        """
        for operation_id in await self._rows.expire(_TIMEOUT):
            _log.warning("operation timed out", operation_id=str(operation_id))
        await self._conclude()
        now, attempts = await self._rows.list_to_reconcile(_BATCH)
        if now is None:
            return
        # Pods first: a pod that ends between the two lists then has its Job's newer state beside it, not an older one.
        pods = await self._jobs.list_pods()
        jobs = {job.name: job for job in await self._jobs.list_jobs()}
        for attempt in attempts:
            with bound(operation_id=attempt.operation_id, attempt=attempt.number, job_name=attempt.job_name):
                await self._reconcile(attempt, observe(attempt, jobs, pods), now)
        await self._conclude()

    async def _reconcile(self, attempt: AttemptFacts, seen: Observation, now: datetime) -> None:
        try:
            decision = decide(attempt, seen, now)
            if isinstance(decision, ConfirmAbsence):
                seen = replace(seen, job=await self._jobs.get(attempt.job_name), absence_confirmed=True)
                decision = decide(attempt, seen, now)
            await self._apply(attempt, seen, decision)
        except StaleLeaseError:
            _log.info("attempt moved on")
        except DatabaseUnavailableError:
            raise
        except ControlPlaneError as error:
            # One attempt's trouble must not hold up the others.
            _log.warning("attempt not reconciled", error=str(error), error_code=error.code)

    async def _apply(self, attempt: AttemptFacts, seen: Observation, decision: Decision) -> None:
        match decision:
            case Wait() | ConfirmAbsence():
                pass
            case RecordJob(job_uid):
                await self._rows.record_job(attempt.operation_id, attempt.number, job_uid)
                _log.info("job reattached", job_uid=job_uid)
            case EndAttempt():
                await self._rows.end(attempt, decision)
                _log.info("attempt ended", state=decision.state, outcome=decision.outcome, exit_code=decision.exit_code)
            case Harvest():
                await self._harvest(attempt, seen, decision)

    async def _harvest(self, attempt: AttemptFacts, seen: Observation, harvest: Harvest) -> None:
        log = None if harvest.pod_name is None else await self._jobs.logs(harvest.pod_name)
        exit_code = seen.pod.exit_code if seen.pod is not None else None
        if not await self._rows.harvest(attempt, exit_code, log):
            return
        _log.info("attempt harvested", log_characters=len(log or ""), exit_code=exit_code)
        if seen.job is not None:
            await self._shorten_ttl(seen.job)

    async def _shorten_ttl(self, job: JobView) -> None:
        try:
            await self._jobs.shorten_ttl(job.name, job.uid, self._settings.harvested_ttl_seconds)
        except KubeError as error:
            # The TTL of the manifest removes it a day later.
            _log.warning("ttl not shortened", error=str(error))

    async def _conclude(self) -> None:
        for ended in await self._rows.list_to_conclude(_BATCH):
            error: dict[str, Any] = dict(ended.problem or {})
            error.setdefault("code", "ATTEMPT_FAILED")
            error.setdefault("title", "Provisioning failed")
            error.setdefault("detail", f"the attempt ended as {ended.outcome}")
            if await self._rows.fail_operation(ended, error):
                _log.warning(
                    "operation failed",
                    operation_id=str(ended.operation_id),
                    attempt=ended.number,
                    error_code=error["code"],
                    detail=error["detail"],
                )


def observe(attempt: AttemptFacts, jobs: dict[str, JobView], pods: list[PodView]) -> Observation:
    """Return what concerns this attempt; `pods` is newest first.

    A Job of the attempt's name with another uid than the recorded one is somebody else's and not seen.
    """
    job = jobs.get(attempt.job_name)
    if job is not None and attempt.job_uid not in (None, job.uid):
        job = None
    job_uid = attempt.job_uid or (job.uid if job is not None else None)
    mine = [pod for pod in pods if job_uid is not None and pod.job_uid == job_uid]
    began = next((pod for pod in mine if pod.uid == attempt.pod_uid), None)
    if attempt.pod_uid is not None:
        return Observation(job, began)
    return Observation(job, mine[0] if mine else None)
