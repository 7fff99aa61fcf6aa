"""decide(): from what Postgres knows and what the cluster shows to the one next step for an attempt.

Pure; the reconciler observes before and applies after, then asks again. The rules that matter most: absence of news is
never a result, a container that ended with 0 and said nothing has not succeeded, and nothing of a store goes on before
no pod of it can do anything any more.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from controlplane.domain.attempt import AttemptFacts, AttemptOutcome
from controlplane.domain.diagnosis import diagnose
from controlplane.domain.observation import JobView, Observation, PodView
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
from controlplane.domain.transitions import AttemptState, is_final
from provisioner_job.contract import ExitCode, JobResult, Outcome, parse_result

__all__ = [
    "CANCEL_PATIENCE",
    "HARVEST_PATIENCE",
    "LATE_JOB_PATIENCE",
    "LEASE_MARGIN",
    "PENDING_LIMIT",
    "POD_LEASE",
    "REPORT_GRACE",
    "decide",
]

REPORT_GRACE: Final = timedelta(seconds=10)
"""How long after its end was seen a container's own report may still be on its way to Postgres."""
HARVEST_PATIENCE: Final = timedelta(seconds=30)
"""How long a harvest waits for the container's end and for a log that can be read; then what is there must do."""
CANCEL_PATIENCE: Final = timedelta(seconds=30)
"""One heartbeat: a pod that has begun hears of a cancel and ends in order; then its Job is deleted."""
PENDING_LIMIT: Final = timedelta(minutes=5)
"""A pod that has not begun by then is given up; the next one may meet another node and a fresh pull."""
POD_LEASE: Final = timedelta(seconds=180)
LEASE_MARGIN: Final = timedelta(seconds=15)
"""Added to a pod's lease before anybody else concludes that it is gone."""
LATE_JOB_PATIENCE: Final = timedelta(seconds=35)
"""The dispatcher's lease and a margin: a create that was under way when its attempt ended is over by then."""
_LOOK_AGAIN: Final = timedelta(seconds=5)

_STOPPED_FROM_OUTSIDE: Final = frozenset(
    {AttemptOutcome.TIMEOUT, AttemptOutcome.CANCELLED, AttemptOutcome.RETRIED, AttemptOutcome.NOT_STARTED}
)
"""Ends that the pod did not bring about itself: it is told to stop rather than waited for."""


def decide(attempt: AttemptFacts, seen: Observation, now: datetime) -> Decision:
    """Return the one next step for this attempt.

    `now` is the database's clock, and so is every moment it is compared with. An attempt that ended is harvested and
    its pods are seen out; one whose dispatcher has not finished is left to the dispatcher; a living one ends only
    through its own word, a terminal fact of the cluster, or a cancel.
    """
    if seen.job is not None and not _is_ours(attempt, seen.job):
        # Somebody else's, under our name: so are its pods.
        seen = replace(seen, job=None, pod=None, living=())
    if attempt.finished_at is not None:
        return _after_end(attempt, seen, now, attempt.finished_at)
    if is_final(attempt.operation_state):
        # Left open by an end that did not know of it.
        return _cancelled()
    if attempt.state is AttemptState.CREATED:
        return _before_job(attempt, seen, now)
    word = _own_word(attempt, seen.pod)
    if word is not None and seen.pod is not None:
        return _end_from_word(word, seen.pod.exit_code)
    if attempt.cancel_requested_at is not None:
        return _cancelling(attempt, seen, now, attempt.cancel_requested_at)
    return _while_alive(attempt, seen, now)


def _before_job(attempt: AttemptFacts, seen: Observation, now: datetime) -> Decision:
    """Leave it to the dispatcher while its lease holds; then to the Job that is there, or to a cancel."""
    if attempt.lease_until is not None and now < attempt.lease_until:
        # A create may be under way, and whoever is at it records the Job.
        return Wait(attempt.lease_until - now)
    if seen.job is not None:
        return RecordJob(seen.job.uid)
    if attempt.cancel_requested_at is None:
        # Posting again is the dispatcher's business, not ours.
        return Wait()
    return _cancelled() if seen.absence_confirmed else ConfirmAbsence()


def _is_ours(attempt: AttemptFacts, job: JobView) -> bool:
    return job.operation_id == attempt.operation_id and job.attempt == attempt.number


def _cancelling(attempt: AttemptFacts, seen: Observation, now: datetime, asked_at: datetime) -> Decision:
    if seen.living:
        patience = CANCEL_PATIENCE - (now - asked_at)
        if attempt.pod_uid is not None and patience > timedelta():
            return Wait(patience)
        return _remove(attempt, seen, now, "the operation is being cancelled")
    if seen.job is not None and seen.job.end is None and not seen.job.is_terminating and seen.pod is None:
        # Its pod may be created at any moment.
        return DeleteJob(seen.job.uid, "the operation is being cancelled")
    if _may_still_live(attempt, seen, now):
        return Wait(_LOOK_AGAIN)
    if seen.pod is not None or seen.absence_confirmed:
        return _cancelled(None if seen.pod is None else seen.pod.exit_code)
    return ConfirmAbsence()


def _cancelled(exit_code: int | None = None) -> EndAttempt:
    return EndAttempt(AttemptState.CANCELLED, AttemptOutcome.CANCELLED, exit_code)


def _remove(attempt: AttemptFacts, seen: Observation, now: datetime, why: str) -> Decision:
    """Have living pods removed: their Job first, a pod by force only after its lease."""
    if seen.job is not None and not seen.job.is_terminating:
        # It would keep a pod that never told its end: only without its Job does a pod lose its finalizer.
        return DeleteJob(seen.job.uid, why)
    if attempt.finished_at is not None:
        # Nobody renews after the end; a lease in the facts is then not this pod's.
        lease_end: datetime | None = attempt.finished_at + POD_LEASE
    else:
        asked_at = attempt.cancel_requested_at
        lease_end = attempt.lease_until or (None if asked_at is None else asked_at + POD_LEASE)
    if lease_end is not None and now >= lease_end + LEASE_MARGIN:
        # On a lost node, or left behind by its Job: nobody else will remove it.
        return ForceDeletePod(seen.living[0].name, seen.living[0].uid)
    return Wait(_LOOK_AGAIN)


def _while_alive(attempt: AttemptFacts, seen: Observation, now: datetime) -> Decision:
    pod = seen.pod
    if pod is None:
        return _without_pod(attempt, seen, now)
    if pod.has_ended:
        if pod.exit_code == ExitCode.OTHER_POD and attempt.pod_uid is None:
            # It speaks of another pod, whose handshake is news to come or was lost with the database that heard it.
            return _without_pod(attempt, replace(seen, pod=None), now)
        return _after_grace(attempt, now) or _end_without_word(attempt, pod, seen.job)
    if attempt.pod_uid is not None and pod.is_terminating and _lease_is_over(attempt, now):
        # Asked to go long ago and never renewed.
        return _remove(attempt, seen, now, "the node of its pod is lost")
    return _while_starting(attempt, seen, now)


def _without_pod(attempt: AttemptFacts, seen: Observation, now: datetime) -> Decision:
    job = seen.job
    if _may_still_live(attempt, seen, now):
        # The Job object may be gone while its pod still works and reports.
        return Wait(_LOOK_AGAIN)
    if attempt.pod_uid is None and seen.living:
        # An older pod, which may still shake hands.
        return _while_starting(attempt, seen, now)
    if job is not None and job.end is not None and not job.is_terminating:
        title = f"The Job ended ({job.end}) and neither a report nor its pod is left"
        detail = job.reason or "its pod was removed before its end was seen"
        return _after_grace(attempt, now) or _lost(attempt, title, detail)
    is_job_gone = job is None or job.is_terminating
    if attempt.pod_uid is None and not is_job_gone:
        return _while_starting(attempt, seen, now)
    # Once a pod has begun, no other pod of its Job will work: without it the attempt is over.
    if not seen.living and not seen.absence_confirmed:
        return ConfirmAbsence()
    what = "Job" if is_job_gone else "pod"
    return _lost(attempt, f"The {what} is gone without a trace", f"the {what} was deleted before its end was seen")


def _lease_is_over(attempt: AttemptFacts, now: datetime) -> bool:
    return attempt.lease_until is not None and now >= attempt.lease_until + LEASE_MARGIN


def _may_still_live(attempt: AttemptFacts, seen: Observation, now: datetime) -> bool:
    """Return whether the pod that shook hands may be at work though no list shows it: its node may be cut off."""
    if attempt.pod_uid is None or seen.is_pod_gone or (seen.pod is not None and seen.pod.has_ended):
        return False
    return not _lease_is_over(attempt, now)


def _after_grace(attempt: AttemptFacts, now: datetime) -> Decision | None:
    """Return what to do while a report may still come, or None once it is too late for one."""
    if attempt.end_seen_at is None:
        return NoteEnd()
    left = REPORT_GRACE - (now - attempt.end_seen_at)
    return Wait(left) if left > timedelta() else None


def _while_starting(attempt: AttemptFacts, seen: Observation, now: datetime) -> Decision:
    if attempt.state is not AttemptState.DISPATCHED or attempt.dispatched_at is None:
        return Wait()
    reason = seen.no_pod_because if seen.pod is None else seen.pod.waits
    left = PENDING_LIMIT - (now - attempt.dispatched_at)
    if left <= timedelta():
        return _not_started(seen)
    if not reason or reason == attempt.waiting_reason:
        return Wait(left)
    # The two alternate every few seconds, and only the first names the cause.
    if reason.startswith("ImagePullBackOff") and attempt.waiting_reason.startswith("ErrImagePull"):
        return Wait(left)
    return NoteWaiting(reason)


def _not_started(seen: Observation) -> EndAttempt:
    found = diagnose(seen.pod, job=seen.job, no_pod_because=seen.no_pod_because)
    return EndAttempt(
        AttemptState.FAILED,
        AttemptOutcome.NOT_STARTED,
        problem={
            "code": "POD_NOT_STARTED",
            "title": "The pod did not start in time",
            "detail": found.detail,
            "remedy": found.remedy,
            "category": found.category,
        },
    )


def _own_word(attempt: AttemptFacts, pod: PodView | None) -> JobResult | None:
    """Return the pod's termination message if it speaks for this attempt and its pod is the one that began."""
    if pod is None or pod.exit_code is None or attempt.pod_uid not in (None, pod.uid):
        return None
    said = parse_result(pod.message)
    if said is None or said.operation_id != str(attempt.operation_id) or said.attempt != attempt.number:
        return None
    # Without a handshake nothing can have been done.
    if attempt.pod_uid is None and said.outcome is Outcome.SUCCEEDED:
        return None
    # A refused pod of a cancelled operation is the cancel's success, not an end of its own.
    if said.outcome is Outcome.REFUSED and attempt.cancel_requested_at is not None:
        return None
    return said


def _end_from_word(said: JobResult, exit_code: int | None) -> EndAttempt:
    if said.outcome is Outcome.SUCCEEDED:
        return EndAttempt(AttemptState.SUCCEEDED, AttemptOutcome.SUCCEEDED, exit_code, said.result)
    return EndAttempt(AttemptState.FAILED, AttemptOutcome(said.outcome), exit_code, said.result, said.problem)


def _end_without_word(attempt: AttemptFacts, pod: PodView, job: JobView | None) -> EndAttempt:
    if pod.exit_code == ExitCode.DONE:
        return _lost(
            attempt, "The provisioner ended without a report", "exit code 0, no result in Postgres nor in the pod"
        )
    if pod.is_evicted:
        outcome = AttemptOutcome.EVICTED
    elif pod.reason == "OOMKilled":
        outcome = AttemptOutcome.OUT_OF_MEMORY
    elif attempt.pod_uid is None and not pod.started:
        outcome = AttemptOutcome.NOT_STARTED
    elif pod.exit_code == ExitCode.PERMANENT:
        outcome = AttemptOutcome.PERMANENT
    elif pod.exit_code == ExitCode.REFUSED:
        outcome = AttemptOutcome.REFUSED
    else:
        outcome = AttemptOutcome.RETRYABLE
    found = diagnose(pod, job=job)
    return EndAttempt(
        AttemptState.FAILED,
        outcome,
        pod.exit_code,
        problem={
            "code": "OUT_OF_MEMORY" if outcome is AttemptOutcome.OUT_OF_MEMORY else "PROVISIONER_DIED",
            "title": "The provisioner ended without a report",
            "detail": found.detail,
            "remedy": found.remedy,
            "category": found.category,
        },
    )


def _lost(attempt: AttemptFacts, title: str, detail: str) -> EndAttempt:
    # A Job that was gone before its pod began has done nothing: that costs no try.
    outcome = AttemptOutcome.NOT_STARTED if attempt.pod_uid is None else AttemptOutcome.LOST
    return EndAttempt(
        AttemptState.LOST,
        outcome,
        problem={
            "code": "ATTEMPT_LOST",
            "title": title,
            "detail": detail,
            "remedy": "the next attempt goes on where this one stopped; if it repeats, see who deletes Jobs",
        },
    )


def _after_end(attempt: AttemptFacts, seen: Observation, now: datetime, finished_at: datetime) -> Decision:
    age = now - finished_at
    if attempt.job_uid is None:
        late = _late_job(seen, age)
        if late is not None:
            return late
    if attempt.harvested_at is None:
        return _harvest(attempt, seen, age)
    return _see_pods_out(attempt, seen, now, age)


def _late_job(seen: Observation, age: timedelta) -> Decision | None:
    """Return what to do about a Job that may still come into being, or None once it cannot."""
    if seen.job is not None:
        return NoteLateJob(seen.job.uid)
    if age < LATE_JOB_PATIENCE:
        return Wait(LATE_JOB_PATIENCE - age)
    return None if seen.absence_confirmed else ConfirmAbsence()


def _harvest(attempt: AttemptFacts, seen: Observation, age: timedelta) -> Decision:
    is_late = age >= HARVEST_PATIENCE
    if seen.pod is None:
        # A Job without its pod may be seen a moment before the pod.
        if is_late or (seen.job is not None and seen.job.end is not None) or seen.absence_confirmed:
            return Harvest(None, is_last_try=True)
        # The lists may lag behind a pod that ended the attempt itself: without its Job in them, look.
        return ConfirmAbsence() if seen.job is None else Wait(HARVEST_PATIENCE - age)
    if seen.pod.has_ended:
        return Harvest(seen.pod.name, is_late)
    if is_late or attempt.outcome in _STOPPED_FROM_OUTSIDE:
        return Harvest(seen.pod.name, is_late)
    return Wait(HARVEST_PATIENCE - age)


def _see_pods_out(attempt: AttemptFacts, seen: Observation, now: datetime, age: timedelta) -> Decision:
    if seen.living:
        if attempt.outcome in _STOPPED_FROM_OUTSIDE or age >= HARVEST_PATIENCE:
            return _remove(attempt, seen, now, f"its attempt has ended ({attempt.outcome})")
        return Wait(HARVEST_PATIENCE - age)
    if seen.job is not None and seen.job.end is None and not seen.job.is_terminating and seen.pod is None:
        # It would still make a pod.
        return DeleteJob(seen.job.uid, f"its attempt has ended ({attempt.outcome})")
    if seen.pod is not None and seen.pod.has_ended:
        return NotePodsEnded()
    if attempt.pod_uid is not None and not seen.is_pod_gone and age < POD_LEASE + LEASE_MARGIN:
        # Ended from outside, and no list shows its pod: a node that is cut off may still run it.
        return Wait(POD_LEASE + LEASE_MARGIN - age)
    return NotePodsEnded() if seen.absence_confirmed else ConfirmAbsence()
