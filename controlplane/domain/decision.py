"""decide(): from what Postgres knows and what the cluster shows to what has to be done.

Pure; the reconciler observes before and applies after. The rules that matter most: absence of news is never a
result, and a container that ended with 0 and said nothing has not succeeded.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from controlplane.domain.attempt import AttemptFacts
from controlplane.domain.observation import JobView, Observation, PodView
from controlplane.domain.transitions import AttemptState
from provisioner_job.contract import ExitCode, JobResult, Outcome, parse_result

__all__ = [
    "HARVEST_PATIENCE",
    "REPORT_GRACE",
    "ConfirmAbsence",
    "Decision",
    "EndAttempt",
    "Harvest",
    "NoteEnd",
    "NoteWaiting",
    "RecordJob",
    "Wait",
    "decide",
]

REPORT_GRACE: Final = timedelta(seconds=10)
"""How long after its end was seen a container's own report may still be on its way to Postgres."""
HARVEST_PATIENCE: Final = timedelta(seconds=30)
"""How long a harvest waits for the container's end and for a log that can be read; then what is there must do."""
LEASE_MARGIN: Final = timedelta(seconds=15)
"""Added to a pod's lease before anybody else concludes that it is gone."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now."""


@dataclass(frozen=True, slots=True)
class RecordJob:
    """The Job exists and its uid was never recorded: the dispatcher died in between."""

    job_uid: str


@dataclass(frozen=True, slots=True)
class ConfirmAbsence:
    """The list has no such Job: read it live, then decide again."""


@dataclass(frozen=True, slots=True)
class NoteEnd:
    """Container or Job ended without a word: write down when that was seen, which begins the grace.

    The kubelet's own time is not used: its clock may be an hour off, and then the grace would be over at once or
    never.
    """


@dataclass(frozen=True, slots=True)
class NoteWaiting:
    """Tell the user why the pod does not start."""

    reason: str


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """The attempt is over."""

    state: AttemptState
    outcome: str
    """Class of the end: `succeeded`, `retryable`, `permanent`, `refused`, `lost`."""
    exit_code: int | None = None
    result: dict[str, Any] = field(default_factory=dict)
    problem: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Harvest:
    """Store the log tail, then let the Job go."""

    pod_name: str | None
    """None when there is no log to be had any more."""
    is_last_try: bool
    """A log that cannot be read now is unavailable for good; before that, the next pass tries again."""


Decision = Wait | RecordJob | ConfirmAbsence | NoteEnd | NoteWaiting | EndAttempt | Harvest


def decide(attempt: AttemptFacts, seen: Observation, now: datetime) -> Decision:
    """Return the one next step for this attempt.

    `now` is the database's clock, and so is every moment it is compared with. An attempt that ended is harvested; one
    whose dispatcher has not finished is left to the dispatcher; a living one ends only through its own word or a
    terminal fact of the cluster.
    """
    if attempt.state in (AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.LOST, AttemptState.CANCELLED):
        return _after_end(attempt, seen, now)
    if attempt.state is AttemptState.CREATED:
        # Without a Job the dispatcher's lease decides; posting again is its business, not ours.
        if seen.job is not None and _is_ours(attempt, seen.job):
            return RecordJob(seen.job.uid)
        return Wait()
    return _while_alive(attempt, seen, now)


def _is_ours(attempt: AttemptFacts, job: JobView) -> bool:
    return job.operation_id == attempt.operation_id and job.attempt == attempt.number and not job.is_terminating


def _while_alive(attempt: AttemptFacts, seen: Observation, now: datetime) -> Decision:
    pod, job = seen.pod, seen.job
    if pod is not None and pod.exit_code is not None:
        said = _own_word(attempt, pod)
        if said is not None:
            return _end_from_word(said, pod.exit_code)
        if pod.exit_code == ExitCode.OTHER_POD and attempt.pod_uid != pod.uid:
            return Wait()
        return _after_grace(attempt, now) or _end_without_word(pod)
    if job is None:
        return _without_job(attempt, seen, now)
    if job.end is not None:
        title = f"The Job ended ({job.end}) and neither a report nor its pod is left"
        return _after_grace(attempt, now) or _lost(title, job.reason)
    return _while_starting(attempt, seen)


def _after_grace(attempt: AttemptFacts, now: datetime) -> Decision | None:
    """Return what to do while a report may still come, or None once it is too late for one."""
    if attempt.end_seen_at is None:
        return NoteEnd()
    return Wait() if now - attempt.end_seen_at < REPORT_GRACE else None


def _while_starting(attempt: AttemptFacts, seen: Observation) -> Decision:
    reason = seen.no_pod_because if seen.pod is None else seen.pod.waits
    if attempt.state is not AttemptState.DISPATCHED or not reason or reason == attempt.waiting_reason:
        return Wait()
    # The two alternate every few seconds, and only the first names the cause.
    if reason.startswith("ImagePullBackOff") and attempt.waiting_reason.startswith("ErrImagePull"):
        return Wait()
    return NoteWaiting(reason)


def _own_word(attempt: AttemptFacts, pod: PodView) -> JobResult | None:
    """Return the pod's termination message if it speaks for this attempt and its pod is the one that began."""
    if attempt.pod_uid not in (None, pod.uid):
        return None
    said = parse_result(pod.message)
    if said is None or said.operation_id != str(attempt.operation_id) or said.attempt != attempt.number:
        return None
    # Without a handshake nothing can have been done.
    if attempt.pod_uid is None and said.outcome is Outcome.SUCCEEDED:
        return None
    return said


def _end_from_word(said: JobResult, exit_code: int) -> EndAttempt:
    if said.outcome is Outcome.SUCCEEDED:
        return EndAttempt(AttemptState.SUCCEEDED, said.outcome, exit_code, said.result)
    return EndAttempt(AttemptState.FAILED, said.outcome, exit_code, said.result, said.problem)


def _end_without_word(pod: PodView) -> EndAttempt:
    if pod.exit_code == ExitCode.DONE:
        return _lost("The provisioner ended without a report", "exit code 0, no result in Postgres nor in the pod")
    permanent = pod.exit_code == ExitCode.PERMANENT
    detail = f"exit code {pod.exit_code}" + (f", {pod.reason}" if pod.reason else "")
    return EndAttempt(
        AttemptState.FAILED,
        Outcome.PERMANENT if permanent else Outcome.RETRYABLE,
        pod.exit_code,
        problem={
            "code": "OUT_OF_MEMORY" if pod.reason == "OOMKilled" else "PROVISIONER_DIED",
            "title": "The provisioner ended without a report",
            "detail": detail,
        },
    )


def _without_job(attempt: AttemptFacts, seen: Observation, now: datetime) -> Decision:
    has_session = attempt.pod_uid is not None
    if has_session and (attempt.lease_until is None or now < attempt.lease_until + LEASE_MARGIN):
        # The Job object may be gone while its pod still works and reports.
        return Wait()
    if not seen.absence_confirmed:
        return ConfirmAbsence()
    return _lost("The Job is gone without a trace", "it was deleted before its end was seen")


def _lost(title: str, detail: str) -> EndAttempt:
    return EndAttempt(AttemptState.LOST, "lost", problem={"code": "ATTEMPT_LOST", "title": title, "detail": detail})


def _after_end(attempt: AttemptFacts, seen: Observation, now: datetime) -> Decision:
    is_late = attempt.finished_at is None or now - attempt.finished_at >= HARVEST_PATIENCE
    if seen.pod is None:
        # A Job without its pod may be seen a moment before the pod.
        return Harvest(None, is_last_try=True) if is_late or seen.job is None else Wait()
    if seen.pod.exit_code is not None or is_late:
        return Harvest(seen.pod.name, is_late)
    return Wait()
