"""The reconciler: observe every open or unharvested attempt, decide, apply.

Level-triggered: a pass reads everything anew and is safe to repeat, to miss and to run twice at once; every write is
guarded in the database. The decision itself is `domain.decision.decide`.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from controlplane.config import Settings
from controlplane.db.attempts import AttemptRows
from controlplane.domain.attempt import AttemptFacts
from controlplane.domain.decision import (
    ConfirmAbsence,
    Decision,
    EndAttempt,
    Harvest,
    NoteEnd,
    NoteWaiting,
    RecordJob,
    Wait,
    decide,
)
from controlplane.domain.errors import ControlPlaneError, DatabaseUnavailableError, StaleLeaseError
from controlplane.domain.observation import JobView, Observation, PodView
from controlplane.domain.operation import TIMEOUT_SENTENCE
from controlplane.domain.transitions import AttemptState
from controlplane.kube.errors import KubeError
from controlplane.kube.jobs import JobGateway
from controlplane.telemetry import bound, get_logger

__all__ = ["Reconciler", "observe"]

_PAGE: Final = 1000
_DECIDE_SECONDS: Final = 30.0
"""After that a pass reads no single Job any more: each reading may take ten seconds when the cluster is ill."""
_HARVEST_SECONDS: Final = 30.0
"""After that a pass begins no further harvest; the next one goes on behind the last that was begun."""
_HARVESTERS: Final = 4
"""Logs read at once: a dead node's take ten seconds each, and the API server keeps a connection for every one."""
_TIMEOUT: Final = {
    "code": "OPERATION_TIMEOUT",
    "title": TIMEOUT_SENTENCE,
    "detail": "the operation did not end within 15 minutes of its first dispatch",
}

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Ripe:
    """An ended attempt whose log is to be stored."""

    attempt: AttemptFacts
    seen: Observation
    harvest: Harvest

    @property
    def key(self) -> tuple[str, int]:
        return str(self.attempt.operation_id), self.attempt.number


class Reconciler:
    """Follows Jobs to their end; any number of them may run."""

    def __init__(self, rows: AttemptRows, jobs: JobGateway, settings: Settings) -> None:
        self._rows = rows
        self._jobs = jobs
        self._settings = settings
        self._harvested_last: tuple[str, int] | None = None

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
        now, attempts = await self._rows.list_to_reconcile(_PAGE)
        if now is None:
            return
        # Pods first: a pod that ends between the two lists then has its Job's newer state beside it, not an older one.
        pods = await self._jobs.list_pods()
        jobs = {job.name: job for job in await self._jobs.list_jobs()}
        observed = await self._with_refused_pods([(attempt, observe(attempt, jobs, pods)) for attempt in attempts])
        until = time.monotonic() + _DECIDE_SECONDS
        ripe = [each for attempt, seen in observed if (each := await self._reconcile(attempt, seen, now, until))]
        await self._conclude()
        # Last, because a log may be long in coming, and nobody's state waits for it.
        await self._harvest_all(ripe)

    async def _with_refused_pods(
        self, observed: list[tuple[AttemptFacts, Observation]]
    ) -> list[tuple[AttemptFacts, Observation]]:
        """Add what the Job controller says where a Job has no pod; one call, and none when all have theirs."""
        if not any(attempt.state is AttemptState.DISPATCHED and _lacks_pod(seen) for attempt, seen in observed):
            return observed
        try:
            refused = await self._jobs.list_refused_pods()
        except KubeError as error:
            # It only explains a wait.
            _log.warning("reasons for missing pods not read", error=str(error))
            return observed
        return [
            (attempt, replace(seen, no_pod_because=refused.get(seen.job.uid, "")) if seen.job is not None else seen)
            for attempt, seen in observed
        ]

    async def _reconcile(self, attempt: AttemptFacts, seen: Observation, now: datetime, until: float) -> _Ripe | None:
        """Decide and apply; a harvest is returned instead, to be done when all others have been served."""
        with bound(operation_id=attempt.operation_id, attempt=attempt.number, job_name=attempt.job_name):
            try:
                decision = decide(attempt, seen, now)
                if isinstance(decision, ConfirmAbsence) and time.monotonic() < until:
                    seen = replace(seen, job=await self._jobs.get(attempt.job_name), absence_confirmed=True)
                    decision = decide(attempt, seen, now)
                if isinstance(decision, Harvest):
                    return _Ripe(attempt, seen, decision)
                await self._apply(attempt, decision)
            except StaleLeaseError:
                _log.info("attempt moved on")
            except DatabaseUnavailableError:
                raise
            except ControlPlaneError as error:
                # One attempt's trouble must not hold up the others.
                _log.warning("attempt not reconciled", error=str(error), error_code=error.code)
        return None

    async def _apply(self, attempt: AttemptFacts, decision: Decision) -> None:
        match decision:
            case Wait() | ConfirmAbsence() | Harvest():
                pass
            case NoteEnd():
                await self._rows.note_end(attempt)
            case NoteWaiting(reason):
                await self._rows.note_waiting(attempt, reason)
                _log.warning("pod does not start", reason=reason)
            case RecordJob(job_uid):
                await self._rows.record_job(attempt.operation_id, attempt.number, job_uid)
                _log.info("job reattached", job_uid=job_uid)
            case EndAttempt():
                await self._rows.end(attempt, decision)
                _log.info("attempt ended", state=decision.state, outcome=decision.outcome, exit_code=decision.exit_code)

    async def _harvest_all(self, ripe: list[_Ripe]) -> None:
        """Harvest, a few at once, for a limited time, beginning behind where the pass before stopped."""
        begin = next((place + 1 for place, each in enumerate(ripe) if each.key == self._harvested_last), 0)
        queue = iter(ripe[begin:] + ripe[:begin])
        until = time.monotonic() + _HARVEST_SECONDS
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_HARVESTERS, len(ripe))):
                    group.create_task(self._harvest_from(queue, until))
        except ExceptionGroup as group_of_errors:
            # One is enough: without a database the others failed for the same reason.
            raise group_of_errors.exceptions[0] from None

    async def _harvest_from(self, queue: Iterable[_Ripe], until: float) -> None:
        for each in queue:
            self._harvested_last = each.key
            attempt = each.attempt
            with bound(operation_id=attempt.operation_id, attempt=attempt.number, job_name=attempt.job_name):
                try:
                    await self._harvest(each)
                except DatabaseUnavailableError:
                    raise
                except ControlPlaneError as error:
                    _log.warning("attempt not harvested", error=str(error), error_code=error.code)
            if time.monotonic() > until:
                return

    async def _harvest(self, ripe: _Ripe) -> None:
        attempt, seen, harvest = ripe.attempt, ripe.seen, ripe.harvest
        log = None
        if harvest.pod_name is not None:
            try:
                log = await self._jobs.logs(harvest.pod_name)
            except KubeError as error:
                _log.warning("log not read", error=str(error), is_last_try=harvest.is_last_try)
                if not harvest.is_last_try:
                    return
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
        for ended in await self._rows.list_to_conclude(_PAGE):
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


def _lacks_pod(seen: Observation) -> bool:
    return seen.job is not None and seen.job.end is None and seen.pod is None


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
