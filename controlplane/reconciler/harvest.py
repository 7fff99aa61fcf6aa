"""Harvest: keep an ended attempt's log and diagnosis, then let its Job go.

Once per attempt, by whichever process takes it first (`begin_harvest`); beside the passes, because a log may be long in
coming and nobody's state waits for it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from controlplane.config import Settings
from controlplane.db.attempts import AttemptRows
from controlplane.domain.attempt import AttemptFacts, AttemptOutcome
from controlplane.domain.decision import HARVEST_PATIENCE
from controlplane.domain.diagnosis import diagnose
from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.observation import EventView, Observation
from controlplane.domain.step import Harvest
from controlplane.kube.errors import KubeError
from controlplane.kube.evidence import StoreEvidence
from controlplane.kube.jobs import JobGateway
from controlplane.telemetry import bound, get_logger, redacted

__all__ = ["Harvester"]

_AT_ONCE: Final = 4
"""Logs read at once: a dead node's take ten seconds each, and the API server keeps a connection for every one."""
_HOLD_SECONDS: Final = HARVEST_PATIENCE.total_seconds()
"""How long a process may take before another may try."""
_RETRY_SECONDS: Final = 2.0
"""After a log that could not be read, while there is still time for it."""

_EVENTS: Final = 20

_log = get_logger(__name__)
_Key = tuple[UUID, int]


class Harvester:
    """Harvests attempts beside the reconciler's passes."""

    def __init__(
        self,
        rows: AttemptRows,
        jobs: JobGateway,
        settings: Settings,
        *,
        on_done: Callable[[UUID], None] = lambda _operation_id: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = rows
        self._jobs = jobs
        self._settings = settings
        self._on_done = on_done
        self._clock = clock
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._not_before: dict[_Key, float] = {}

    def tell(self, on_done: Callable[[UUID], None]) -> None:
        """Say from now on which operation's attempt was harvested while there is something left to do for it."""
        self._on_done = on_done

    def offer(self, attempt: AttemptFacts, seen: Observation, decision: Harvest) -> None:
        """Harvest an attempt soon, unless that is under way."""
        key = attempt.operation_id, attempt.number
        if key in self._tasks or self._clock() < self._not_before.get(key, 0.0):
            return
        task = asyncio.create_task(self._harvest_one(attempt, seen, decision))
        self._tasks[key] = task
        task.add_done_callback(lambda _task: self._tasks.pop(key, None))

    async def drain(self, seconds: float) -> None:
        """Wait for the harvests that are under way; what is left then is cancelled, for another process to take."""
        tasks = set(self._tasks.values())
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=seconds)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)

    async def _harvest_one(self, attempt: AttemptFacts, seen: Observation, decision: Harvest) -> None:
        key = attempt.operation_id, attempt.number
        with bound(operation_id=attempt.operation_id, attempt=attempt.number, job_name=attempt.job_name):
            try:
                async with self._places, asyncio.timeout(_HOLD_SECONDS):
                    is_done = await self._harvest(attempt, seen, decision)
            except ControlPlaneError as error:
                _log.warning("attempt not harvested", error=str(error), error_code=error.code)
                is_done = False
            except TimeoutError:
                _log.warning("attempt not harvested", error="it took too long")
                is_done = False
            except Exception:  # noqa: BLE001 -- the top of a task nobody awaits; the next pass tries again
                _log.exception("harvest failed unexpectedly")
                is_done = False
        if is_done:
            self._not_before.pop(key, None)
        else:
            self._not_before[key] = self._clock() + _RETRY_SECONDS
            with suppress(ControlPlaneError):
                # Without it the next try waits until the hold is over.
                await self._rows.give_harvest_back(attempt)

    async def _harvest(self, attempt: AttemptFacts, seen: Observation, decision: Harvest) -> bool:
        if not await self._rows.begin_harvest(attempt, _HOLD_SECONDS):
            return False
        log = None
        if decision.pod_name is not None:
            log = await self._log(decision.pod_name)
            # A container that has just begun is not yet known to have a log.
            if log is None and _has_run(attempt, seen) and not decision.is_last_try:
                return False
        diagnosis = await self._diagnosis(attempt, seen)
        exit_code = seen.pod.exit_code if seen.pod is not None else None
        have_ended = seen.pod is not None and seen.pod.has_ended and not seen.living
        is_followed = await self._rows.harvest(
            attempt, exit_code=exit_code, log=log, diagnosis=diagnosis, have_pods_ended=have_ended
        )
        if is_followed is None:
            return True
        _log.info("attempt harvested", log_characters=len(log or ""), exit_code=exit_code)
        await self._let_go(attempt, seen, is_followed=is_followed)
        if not have_ended:
            # Its pods have yet to be seen out.
            self._on_done(attempt.operation_id)
        return True

    async def _log(self, pod_name: str) -> str | None:
        try:
            return await self._jobs.logs(pod_name)
        except KubeError as error:
            _log.warning("log not read", error=str(error))
            return None

    async def _diagnosis(self, attempt: AttemptFacts, seen: Observation) -> dict[str, Any] | None:
        """Return what tells why it failed; None for a success, which needs no reason."""
        if attempt.outcome in (AttemptOutcome.SUCCEEDED, AttemptOutcome.CANCELLED, AttemptOutcome.RETRIED):
            return None
        events: tuple[EventView, ...] = ()
        if seen.pod is not None:
            try:
                events = await self._jobs.pod_events(seen.pod.uid)
            except KubeError as error:
                # They only explain.
                _log.info("events not read", error=str(error))
        found = diagnose(seen.pod, events, job=seen.job, no_pod_because=seen.no_pod_because)
        told: dict[str, Any] = {
            "category": found.category.value,
            "detail": found.detail,
            "remedy": found.remedy,
            "events": [_told(event) for event in events[:_EVENTS]],
        }
        if attempt.pod_uid is not None:
            # It had begun: the cause is usually in the store's own pods.
            told["store"] = _told_of_store(await self._jobs.store_evidence(attempt.namespace))
        return told

    async def _let_go(self, attempt: AttemptFacts, seen: Observation, *, is_followed: bool) -> None:
        job = seen.job
        if job is None:
            return
        try:
            if attempt.outcome is AttemptOutcome.SUCCEEDED:
                await self._jobs.shorten_ttl(job.name, job.uid, self._settings.harvested_ttl_seconds)
            elif is_followed:
                # A retry waits for its store: the finished Job has no reader, its log is stored.
                await self._jobs.delete_job(job.name, job.uid)
            else:
                await self._jobs.shorten_ttl(job.name, job.uid, self._settings.failed_ttl_seconds)
        except KubeError as error:
            # The TTL of the manifest removes it a day later.
            _log.warning("job not let go", error=str(error))


def _has_run(attempt: AttemptFacts, seen: Observation) -> bool:
    return attempt.pod_uid is not None or (seen.pod is not None and seen.pod.started)


def _told(event: EventView) -> dict[str, Any]:
    return {
        "object": f"{event.object_kind}/{event.object_name}",
        "reason": event.reason,
        "message": redacted(event.message),
        "count": event.count,
        "at": event.last_at.isoformat() if event.last_at is not None else None,
    }


def _told_of_store(evidence: StoreEvidence) -> dict[str, Any]:
    return {
        "pods": [
            {
                "name": pod.name,
                "state": pod.state,
                "logs": [
                    {
                        "container": log.container,
                        "is_previous": log.is_previous,
                        "text": redacted(log.text),
                        "unreadable": log.unreadable,
                    }
                    for log in pod.logs
                ],
            }
            for pod in evidence.pods
        ],
        "events": [_told(event) for event in evidence.events],
        "unreadable": list(evidence.unreadable),
    }
