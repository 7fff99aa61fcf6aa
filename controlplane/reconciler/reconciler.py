"""The reconciler: observe every attempt that is not settled, decide, apply.

Level-triggered: a pass reads its attempts anew and is safe to repeat, to miss and to run twice at once; every write is
guarded in the database. News from the cluster brings a pass over the operations concerned at once; a pass over all of
them on a timer is the guarantee. The decision itself is `domain.decision.decide`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson

from controlplane.db.attempts import AttemptRows
from controlplane.db.claims import ClaimRows, MadeJob
from controlplane.domain.attempt import AttemptFacts
from controlplane.domain.decision import decide
from controlplane.domain.diagnosis import diagnose
from controlplane.domain.errors import ControlPlaneError, DatabaseUnavailableError, JobConflictError, StaleLeaseError
from controlplane.domain.observation import Observation
from controlplane.domain.step import (
    ConfirmAbsence,
    Decision,
    DeleteJob,
    EndAttempt,
    ForceDeletePod,
    Harvest,
    NoteEnd,
    NoteLateJob,
    NotePodsEnded,
    NoteWaiting,
    RecordJob,
    Wait,
)
from controlplane.domain.transitions import AttemptState
from controlplane.kube.errors import KubeError
from controlplane.kube.jobs import JobGateway
from controlplane.reconciler.conclude import Conclusions
from controlplane.reconciler.harvest import Harvester
from controlplane.reconciler.observer import Observer
from controlplane.telemetry import bound, get_logger

__all__ = ["Reconciler"]

_PAGE: Final = 1000
_QUIET_SECONDS: Final = 20.0
"""A pod that has not begun by then and gives no reason is asked for by its events."""
_QUESTIONS: Final = 10
"""Pods whose events are read in a pass: they only explain, and each costs a call."""
_BREATHE: Final = 50
"""Decisions between two looks of the event loop at its other work."""

_log = get_logger(__name__)


class Reconciler:
    """Follows Jobs to their end; any number of them may run, in any number of processes."""

    def __init__(  # noqa: PLR0913 -- the composition root hands it its parts by name
        self,
        rows: AttemptRows,
        jobs: JobGateway,
        observer: Observer,
        *,
        claims: ClaimRows,
        conclusions: Conclusions,
        harvester: Harvester,
    ) -> None:
        self._rows = rows
        self._claims = claims
        self._jobs = jobs
        self._observer = observer
        self._conclusions = conclusions
        self._harvester = harvester
        self._questions_left = _QUESTIONS
        self._news: set[UUID] = set()
        self._timers: dict[UUID, asyncio.TimerHandle] = {}
        self.woken = asyncio.Event()
        """Set while there is news that no pass has looked at."""
        observer.tell(self.mark)
        harvester.tell(self.mark)

    def mark(self, operation_id: UUID) -> None:
        """Say that something concerns this operation."""
        self._news.add(operation_id)
        self.woken.set()

    async def run_news(self) -> bool:
        """Look at the operations there is news of; True when the ends it found may let others be dispatched.

        Raises
        ------
        DatabaseUnavailableError, KubeError
            The pass over all of them looks again.
        """
        news, self._news = list(self._news), set()
        if not news:
            return False
        now, attempts = await self._rows.list_unsettled(_PAGE, operations=news)
        # Of all news little is an end, and of the ends most are successes: nothing follows, so nothing is asked for.
        ended = [each.operation_id for each in attempts if each.may_be_concluded]
        concluded = await self._conclusions.conclude(ended) if ended else []
        if concluded:
            # The operations are in other states now.
            now, attempts = await self._rows.list_unsettled(_PAGE, operations=news)
        did_end = await self._reconcile_all(now, attempts, None)
        return bool(concluded) or did_end

    async def run_all(self) -> bool:
        """Look at everything. What needs no cluster comes first, so that deadlines hold while Kubernetes is down.

        Raises
        ------
        DatabaseUnavailableError, KubeError
            The pass ends; the next one begins anew.
        """
        await self._conclusions.expire()
        concluded = await self._conclusions.conclude()
        if not self._observer.is_current:
            _log.warning("cluster not seen", jobs_age=self._observer.jobs.age_seconds())
            return bool(concluded)
        self._questions_left = _QUESTIONS
        refused = await self._refused_pods()
        did_end = await self._reconcile_all(*await self._rows.list_unsettled(_PAGE), refused)
        return bool(concluded) or did_end

    async def _refused_pods(self) -> dict[str, str]:
        """Return why Jobs have no pod; one call, and none when all have theirs."""
        lacking = any(
            job.end is None and not self._observer.pods.of_job(uid)
            for uid, job in self._observer.jobs.snapshot().items()
        )
        if not lacking:
            return {}
        try:
            return await self._jobs.list_refused_pods()
        except KubeError as error:
            # It only explains a wait.
            _log.warning("reasons for missing pods not read", error=str(error))
            return {}

    async def _reconcile_all(
        self, now: datetime | None, attempts: Sequence[AttemptFacts], refused: dict[str, str] | None
    ) -> bool:
        """Look at each attempt; `refused` None leaves out why pods do not start, which costs calls."""
        if now is None:
            return False
        ended = []
        for count, attempt in enumerate(attempts):
            if count % _BREATHE == _BREATHE - 1:
                await asyncio.sleep(0)
            seen = self._observer.observe(attempt)
            if refused is not None:
                seen = await self._explained(attempt, seen, now, refused)
            if await self._reconcile(attempt, seen, now):
                ended.append(attempt.operation_id)
        if ended:
            await self._conclusions.conclude(ended)
        return bool(ended)

    async def _explained(
        self, attempt: AttemptFacts, seen: Observation, now: datetime, refused: dict[str, str]
    ) -> Observation:
        """Add why a pod does not start, where neither its own state nor its absence says so."""
        if attempt.state is not AttemptState.DISPATCHED or attempt.dispatched_at is None:
            return seen
        pod = seen.pod
        if pod is None:
            return seen if seen.job is None else replace(seen, no_pod_because=refused.get(seen.job.uid, ""))
        is_quiet = (now - attempt.dispatched_at).total_seconds() > _QUIET_SECONDS
        if pod.started or pod.waits or pod.has_ended or not is_quiet or self._questions_left <= 0:
            return seen
        self._questions_left -= 1
        try:
            found = diagnose(pod, await self._jobs.pod_events(pod.uid), job=seen.job)
        except KubeError as error:
            _log.info("events not read", error=str(error))
            return seen
        return replace(seen, pod=replace(pod, waits=found.detail))

    async def _reconcile(self, attempt: AttemptFacts, seen: Observation, now: datetime) -> bool:
        """Decide and apply; True when something ended that others may wait for."""
        with bound(operation_id=attempt.operation_id, attempt=attempt.number, job_name=attempt.job_name):
            try:
                decision = decide(attempt, seen, now)
                if isinstance(decision, ConfirmAbsence):
                    seen = await self._observer.observe_live(attempt, seen)
                    decision = decide(attempt, seen, now)
                if isinstance(decision, RecordJob | NoteLateJob) and not await self._is_ours(attempt, decision.job_uid):
                    return False
                return await self._apply(attempt, seen, decision)
            except StaleLeaseError:
                _log.info("attempt moved on")
            except DatabaseUnavailableError:
                raise
            except ControlPlaneError as error:
                # One attempt's trouble must not hold up the others.
                _log.warning("attempt not reconciled", error=str(error), error_code=error.code)
            except Exception:  # noqa: BLE001 -- nor must a fault of ours that one pod's words bring to light
                _log.exception("attempt not reconciled, unexpectedly")
        return False

    async def _is_ours(self, attempt: AttemptFacts, job_uid: str) -> bool:
        """Return whether a Job that nobody recorded is what was rendered; labels are easily written by anybody."""
        rendered = await self._rows.rendered_job(attempt)
        reason = "no Job was rendered for its attempt"
        if rendered is not None:
            manifest, token_hash = rendered
            try:
                found = await self._jobs.find(orjson.loads(manifest), token_hash)
            except JobConflictError as error:
                reason = str(error)
            else:
                # Gone or replaced since the list: the watch will tell.
                return found is not None and found.uid == job_uid
        self._observer.disown(attempt, job_uid)
        _log.error("foreign Job of an attempt's name", job_uid=job_uid, reason=reason)
        details = {"operation_id": str(attempt.operation_id), "job": attempt.job_name, "reason": reason}
        await self._rows.audit("security.foreign_job", details | {"job_uid": job_uid})
        # The next decision sees the attempt without it.
        self.mark(attempt.operation_id)
        return False

    async def _apply(self, attempt: AttemptFacts, seen: Observation, decision: Decision) -> bool:
        match decision:
            case Wait():
                self._look_again(attempt.operation_id, decision)
            case ConfirmAbsence():
                # The live read found what the lists did not know yet; they will.
                pass
            case Harvest():
                self._harvester.offer(attempt, seen, decision)
            case DeleteJob() | ForceDeletePod():
                await self._remove(attempt, decision)
            case NoteEnd() | NoteWaiting() | NoteLateJob() | RecordJob():
                await self._note(attempt, decision)
            case EndAttempt() | NotePodsEnded():
                return await self._settle(attempt, decision)
        return False

    async def _remove(self, attempt: AttemptFacts, decision: DeleteJob | ForceDeletePod) -> None:
        if isinstance(decision, DeleteJob):
            await self._jobs.delete_job(attempt.job_name, decision.job_uid)
            _log.info("job deleted", job_uid=decision.job_uid, why=decision.why)
            return
        # Audited first: what was removed must be on record whatever happens next.
        details = {"operation_id": str(attempt.operation_id), "attempt": attempt.number, "pod": decision.name}
        await self._rows.audit("pod.force_deleted", details)
        await self._jobs.force_delete_pod(decision.name, decision.uid)
        _log.warning("pod of a lost node removed", pod=decision.name)

    async def _note(self, attempt: AttemptFacts, decision: NoteEnd | NoteWaiting | NoteLateJob | RecordJob) -> None:
        match decision:
            case NoteEnd():
                await self._rows.note_end(attempt)
            case NoteWaiting(reason):
                await self._rows.note_waiting(attempt, reason)
                _log.info("pod waits", reason=reason)
                return
            case NoteLateJob(job_uid):
                await self._rows.note_late_job(attempt, job_uid)
                _log.warning("job of an ended attempt found", job_uid=job_uid)
            case RecordJob(job_uid):
                await self._claims.record_job(MadeJob(attempt.operation_id, attempt.number, job_uid))
                _log.info("job reattached", job_uid=job_uid)
        # What was noted may change the decision at once.
        self.mark(attempt.operation_id)

    async def _settle(self, attempt: AttemptFacts, decision: EndAttempt | NotePodsEnded) -> bool:
        if isinstance(decision, NotePodsEnded):
            await self._rows.note_pods_ended(attempt)
            _log.info("pods ended")
            self.mark(attempt.operation_id)
            return True
        await self._rows.end(attempt, decision)
        self.mark(attempt.operation_id)
        say = _log.info if decision.state is AttemptState.SUCCEEDED else _log.warning
        say("attempt ended", state=decision.state.value, outcome=decision.outcome.value, exit_code=decision.exit_code)
        return True

    def _look_again(self, operation_id: UUID, wait: Wait) -> None:
        """Wake up when time alone may have changed the decision; the pass over all would do so later."""
        if wait.look_again is None or operation_id in self._timers:
            return
        seconds = max(0.05, wait.look_again.total_seconds())
        self._timers[operation_id] = asyncio.get_running_loop().call_later(seconds, self._due, operation_id)

    def _due(self, operation_id: UUID) -> None:
        self._timers.pop(operation_id, None)
        self.mark(operation_id)
