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
    operation_ended=False,
    harvested=False,
    lease_until=None,
    deadline_at=None,
    finished_at=None,
)
DISPATCHED = replace(CREATED, state=AttemptState.DISPATCHED, job_uid="j")
RUNNING = replace(DISPATCHED, state=AttemptState.RUNNING, pod_uid="p", lease_until=NOW + timedelta(seconds=100))
ENDED = replace(RUNNING, state=AttemptState.FAILED, finished_at=JUST, lease_until=None)

JOB = JobView("job-1", "j", OPERATION, 1, None, None, "", is_terminating=False, ttl_seconds=86400)
FAILED_JOB = replace(JOB, end="Failed", end_at=EARLIER, reason="DeadlineExceeded: too long")
COMPLETE_JOB = replace(JOB, end="Complete", end_at=EARLIER)
POD = PodView("pod", "p", "j", "Running", None, "", "", None)


def pod(exit_code: int, *, said: JobResult | None = None, at: datetime = EARLIER, reason: str = "Error") -> PodView:
    message = "" if said is None else result_text(said)
    return replace(POD, phase="Failed", exit_code=exit_code, reason=reason, message=message, ended_at=at)


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
        (RUNNING, seen(JOB, pod(0, at=JUST)), Wait()),
        (RUNNING, seen(replace(FAILED_JOB, end_at=JUST)), Wait()),
        (DISPATCHED, seen(JOB, pod(30)), Wait()),
        (ENDED, seen(JOB, POD), Wait()),
        (ENDED, seen(JOB, pod(20)), Harvest("pod", job_exists=True)),
        (ENDED, seen(None, None), Harvest(None, job_exists=False)),
        (ENDED, seen(JOB, None), Wait()),
        (replace(ENDED, finished_at=EARLIER), seen(JOB, POD), Harvest("pod", job_exists=True)),
        (replace(ENDED, finished_at=EARLIER), seen(JOB, None), Harvest(None, job_exists=True)),
        (replace(ENDED, harvested=True), seen(JOB, pod(20)), Wait()),
    ],
)
def test_next_step(attempt: AttemptFacts, observation: Observation, decision: Decision) -> None:
    assert decide(attempt, observation, NOW) == decision


@pytest.mark.parametrize(
    ("attempt", "observation", "end"),
    [
        # Its own word in the termination message counts at once.
        (RUNNING, seen(JOB, pod(0, said=word(Outcome.SUCCEEDED), at=JUST)), ("succeeded", "succeeded", "")),
        (RUNNING, seen(JOB, pod(20, said=word(Outcome.PERMANENT), at=JUST)), ("failed", "permanent", "X")),
        (RUNNING, seen(JOB, pod(10, said=word(Outcome.RETRYABLE), at=JUST)), ("failed", "retryable", "X")),
        (DISPATCHED, seen(JOB, pod(31, said=word(Outcome.REFUSED), at=JUST)), ("failed", "refused", "X")),
        # Exit 0 without a word is never a success.
        (RUNNING, seen(JOB, pod(0)), ("lost", "lost", "ATTEMPT_LOST")),
        (RUNNING, seen(COMPLETE_JOB, None), ("lost", "lost", "ATTEMPT_LOST")),
        # Nor is a success that was never begun, or that speaks of another attempt.
        (DISPATCHED, seen(JOB, pod(0, said=word(Outcome.SUCCEEDED))), ("lost", "lost", "ATTEMPT_LOST")),
        (RUNNING, seen(JOB, pod(0, said=word(Outcome.SUCCEEDED, attempt=2))), ("lost", "lost", "ATTEMPT_LOST")),
        (
            RUNNING,
            seen(JOB, pod(0, said=word(Outcome.SUCCEEDED, operation=UUID(int=1)))),
            ("lost", "lost", "ATTEMPT_LOST"),
        ),
        # A container that died says why by its code and reason.
        (RUNNING, seen(JOB, pod(137, reason="OOMKilled")), ("failed", "retryable", "OUT_OF_MEMORY")),
        (RUNNING, seen(JOB, pod(1)), ("failed", "retryable", "PROVISIONER_DIED")),
        (RUNNING, seen(JOB, pod(20)), ("failed", "permanent", "PROVISIONER_DIED")),
        (DISPATCHED, seen(JOB, pod(-1, reason="Evicted")), ("failed", "retryable", "PROVISIONER_DIED")),
        # The Job ended or is gone, and nobody is left to ask.
        (DISPATCHED, seen(FAILED_JOB, None), ("lost", "lost", "ATTEMPT_LOST")),
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
    decision = decide(DISPATCHED, seen(FAILED_JOB, None), NOW)
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
    attempt = replace(ENDED if state.value in ("succeeded", "failed", "lost", "cancelled") else RUNNING, state=state)
    decision = decide(attempt, Observation(job, the_pod, confirmed), NOW)
    if isinstance(decision, EndAttempt):
        # Without the pod's own word nothing ever succeeds.
        assert decision.state in (AttemptState.FAILED, AttemptState.LOST)
        assert state in (AttemptState.DISPATCHED, AttemptState.RUNNING)
    if isinstance(decision, Harvest):
        assert attempt.finished_at is not None
