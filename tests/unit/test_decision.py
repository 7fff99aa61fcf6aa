from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

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
from controlplane.domain.observation import JobView, Observation, PodView
from controlplane.domain.transitions import AttemptState
from provisioner_job.contract import JobResult, Outcome, result_text

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OPERATION = UUID("0198c2a0-0000-7000-8000-000000000001")
EARLIER = NOW - timedelta(seconds=60)
JUST = NOW - timedelta(seconds=1)

CREATED = AttemptFacts(
    operation_id=OPERATION,
    number=1,
    state=AttemptState.CREATED,
    job_name="job-1",
    job_uid=None,
    pod_uid=None,
    lease_until=None,
    finished_at=None,
    end_seen_at=None,
    waiting_reason="",
)
DISPATCHED = replace(CREATED, state=AttemptState.DISPATCHED, job_uid="j")
RUNNING = replace(DISPATCHED, state=AttemptState.RUNNING, pod_uid="p", lease_until=NOW + timedelta(seconds=100))
ENDED = replace(RUNNING, state=AttemptState.FAILED, finished_at=JUST, lease_until=None)

LATE = replace(RUNNING, end_seen_at=EARLIER)
LATE_DISPATCHED = replace(DISPATCHED, end_seen_at=EARLIER)

JOB = JobView("job-1", "j", OPERATION, 1, None, "", is_terminating=False)
FAILED_JOB = replace(JOB, end="Failed", reason="DeadlineExceeded: too long")
COMPLETE_JOB = replace(JOB, end="Complete")
POD = PodView("pod", "p", "j", "Running", None, "", "")
STUCK = replace(POD, phase="Pending", waits="ErrImagePull: not found")
AGAIN = replace(POD, phase="Pending", waits="ImagePullBackOff: Back-off")


def pod(exit_code: int, *, said: JobResult | None = None, reason: str = "Error") -> PodView:
    message = "" if said is None else result_text(said)
    return replace(POD, phase="Failed", exit_code=exit_code, reason=reason, message=message)


def word(outcome: Outcome, *, operation: UUID = OPERATION, attempt: int = 1) -> JobResult:
    problem = None if outcome is Outcome.SUCCEEDED else {"code": "X", "title": "t", "detail": "d"}
    return JobResult(str(operation), attempt, outcome, {"product_count": 4}, problem)


def seen(job: JobView | None = JOB, pod: PodView | None = None, *, confirmed: bool = False) -> Observation:
    return Observation(job, pod, confirmed)


def ended(decision: Decision) -> tuple[str, str, str]:
    assert isinstance(decision, EndAttempt)
    return decision.state, decision.outcome, (decision.problem or {}).get("code", "")


@pytest.mark.parametrize(
    ("attempt", "observation", "decision"),
    [
        (CREATED, seen(None), Wait()),
        (CREATED, seen(), RecordJob("j")),
        (CREATED, seen(replace(JOB, is_terminating=True)), Wait()),
        (CREATED, seen(replace(JOB, attempt=2)), Wait()),
        (CREATED, seen(replace(JOB, operation_id=None)), Wait()),
        (DISPATCHED, seen(), Wait()),
        (DISPATCHED, seen(JOB, POD), Wait()),
        (DISPATCHED, seen(None), ConfirmAbsence()),
        (RUNNING, seen(JOB, POD), Wait()),
        (RUNNING, seen(None, POD), Wait()),
        (RUNNING, seen(None, None, confirmed=True), Wait()),
        # The grace begins when the end is seen, whatever the kubelet's clock says.
        (RUNNING, seen(JOB, pod(0)), NoteEnd()),
        (RUNNING, seen(FAILED_JOB), NoteEnd()),
        (replace(RUNNING, end_seen_at=JUST), seen(JOB, pod(0)), Wait()),
        (replace(RUNNING, end_seen_at=JUST), seen(FAILED_JOB), Wait()),
        (LATE_DISPATCHED, seen(JOB, pod(30)), Wait()),
        # Why a pod does not start is told once, and only before it has begun.
        (DISPATCHED, seen(JOB, STUCK), NoteWaiting("ErrImagePull: not found")),
        (replace(DISPATCHED, waiting_reason=STUCK.waits), seen(JOB, STUCK), Wait()),
        (replace(DISPATCHED, waiting_reason=STUCK.waits), seen(JOB, AGAIN), Wait()),
        (DISPATCHED, Observation(JOB, None, no_pod_because="FailedCreate: quota"), NoteWaiting("FailedCreate: quota")),
        (RUNNING, seen(JOB, STUCK), Wait()),
        (ENDED, seen(JOB, POD), Wait()),
        (ENDED, seen(JOB, pod(20)), Harvest("pod", is_last_try=False)),
        (ENDED, seen(None, None), Harvest(None, is_last_try=True)),
        (ENDED, seen(JOB, None), Wait()),
        (replace(ENDED, finished_at=EARLIER), seen(JOB, POD), Harvest("pod", is_last_try=True)),
        (replace(ENDED, finished_at=EARLIER), seen(JOB, pod(20)), Harvest("pod", is_last_try=True)),
        (replace(ENDED, finished_at=EARLIER), seen(JOB, None), Harvest(None, is_last_try=True)),
    ],
)
def test_next_step(attempt: AttemptFacts, observation: Observation, decision: Decision) -> None:
    assert decide(attempt, observation, NOW) == decision


@pytest.mark.parametrize(
    ("attempt", "observation", "end"),
    [
        # Its own word in the termination message counts at once.
        (RUNNING, seen(JOB, pod(0, said=word(Outcome.SUCCEEDED))), ("succeeded", "succeeded", "")),
        (RUNNING, seen(JOB, pod(20, said=word(Outcome.PERMANENT))), ("failed", "permanent", "X")),
        (RUNNING, seen(JOB, pod(10, said=word(Outcome.RETRYABLE))), ("failed", "retryable", "X")),
        (DISPATCHED, seen(JOB, pod(31, said=word(Outcome.REFUSED))), ("failed", "refused", "X")),
        # Exit 0 without a word is never a success.
        (LATE, seen(JOB, pod(0)), ("lost", "lost", "ATTEMPT_LOST")),
        (LATE, seen(COMPLETE_JOB, None), ("lost", "lost", "ATTEMPT_LOST")),
        # Nor is a success that was never begun, or that speaks of another attempt.
        (LATE_DISPATCHED, seen(JOB, pod(0, said=word(Outcome.SUCCEEDED))), ("lost", "lost", "ATTEMPT_LOST")),
        (LATE, seen(JOB, pod(0, said=word(Outcome.SUCCEEDED, attempt=2))), ("lost", "lost", "ATTEMPT_LOST")),
        (
            LATE,
            seen(JOB, pod(0, said=word(Outcome.SUCCEEDED, operation=UUID(int=1)))),
            ("lost", "lost", "ATTEMPT_LOST"),
        ),
        # A container that died says why by its code and reason.
        (LATE, seen(JOB, pod(137, reason="OOMKilled")), ("failed", "retryable", "OUT_OF_MEMORY")),
        (LATE, seen(JOB, pod(1)), ("failed", "retryable", "PROVISIONER_DIED")),
        (LATE, seen(JOB, pod(20)), ("failed", "permanent", "PROVISIONER_DIED")),
        (LATE_DISPATCHED, seen(JOB, pod(-1, reason="Evicted")), ("failed", "retryable", "PROVISIONER_DIED")),
        # The Job ended or is gone, and nobody is left to ask.
        (LATE_DISPATCHED, seen(FAILED_JOB, None), ("lost", "lost", "ATTEMPT_LOST")),
        (DISPATCHED, seen(None, None, confirmed=True), ("lost", "lost", "ATTEMPT_LOST")),
        (
            replace(RUNNING, lease_until=NOW - timedelta(seconds=16)),
            seen(None, None, confirmed=True),
            ("lost", "lost", "ATTEMPT_LOST"),
        ),
    ],
)
def test_end(attempt: AttemptFacts, observation: Observation, end: tuple[str, str, str]) -> None:
    assert ended(decide(attempt, observation, NOW)) == end


def test_reason_of_the_job_is_told() -> None:
    decision = decide(LATE_DISPATCHED, seen(FAILED_JOB, None), NOW)
    assert isinstance(decision, EndAttempt)
    assert decision.problem is not None
    assert "DeadlineExceeded" in decision.problem["detail"]


@pytest.mark.parametrize("state", list(AttemptState))
@pytest.mark.parametrize("job", [None, JOB, FAILED_JOB, COMPLETE_JOB])
@pytest.mark.parametrize("the_pod", [None, POD, pod(0), pod(10), pod(20), pod(30), pod(31), pod(137)])
@pytest.mark.parametrize("confirmed", [False, True])
def test_every_combination_has_a_sane_step(
    state: AttemptState, job: JobView | None, the_pod: PodView | None, *, confirmed: bool
) -> None:
    attempt = replace(ENDED if state.value in ("succeeded", "failed", "lost", "cancelled") else LATE, state=state)
    decision = decide(attempt, Observation(job, the_pod, confirmed), NOW)
    if isinstance(decision, EndAttempt):
        # Without the pod's own word nothing ever succeeds.
        assert decision.state in (AttemptState.FAILED, AttemptState.LOST)
        assert state in (AttemptState.DISPATCHED, AttemptState.RUNNING)
    if isinstance(decision, Harvest):
        assert attempt.finished_at is not None
