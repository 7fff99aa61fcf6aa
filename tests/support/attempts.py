"""Attempts, Jobs and pods as a decision sees them, for tests: plain values around one moment, `NOW`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from controlplane.domain.attempt import AttemptFacts, AttemptOutcome
from controlplane.domain.observation import JobView, Observation, PodView
from controlplane.domain.transitions import AttemptState, OperationState
from provisioner_job.contract import JobResult, Outcome, result_text

__all__ = [
    "ALIVE",
    "COMPLETE",
    "CREATED",
    "DISPATCHED",
    "FAILED",
    "FOREIGN",
    "NOW",
    "OPERATION",
    "OTHER",
    "RUNNING",
    "TERMINATING",
    "WORKING",
    "ago",
    "ended",
    "ended_pod",
    "in_seconds",
    "seen",
    "word",
]

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OPERATION = UUID("0198c2a0-0000-7000-8000-000000000001")
_STRANGER = UUID("0198c2a0-0000-7000-8000-0000000000ff")


def ago(seconds: float) -> datetime:
    """Return the moment `seconds` before `NOW`."""
    return NOW - timedelta(seconds=seconds)


def in_seconds(seconds: float) -> datetime:
    """Return the moment `seconds` after `NOW`."""
    return NOW + timedelta(seconds=seconds)


CREATED = AttemptFacts(
    operation_id=OPERATION,
    number=1,
    kind="create",
    state=AttemptState.CREATED,
    operation_state=OperationState.QUEUED,
    is_newest=True,
    namespace="store-shop-abcdefg2",
    job_name=f"store-create-{OPERATION}-1",
    job_uid=None,
    pod_uid=None,
    outcome=None,
    created_at=ago(60),
    dispatched_at=None,
    lease_until=None,
    finished_at=None,
    end_seen_at=None,
    harvested_at=None,
    pods_ended_at=None,
    cancel_requested_at=None,
    waiting_reason="",
)
"""No Job that anybody knows of."""
DISPATCHED = replace(
    CREATED,
    state=AttemptState.DISPATCHED,
    operation_state=OperationState.RUNNING,
    job_uid="job",
    dispatched_at=ago(50),
)
"""Its Job is recorded, its pod has not begun."""
RUNNING = replace(DISPATCHED, state=AttemptState.RUNNING, pod_uid="session", lease_until=in_seconds(100))
"""The pod `session` has shaken hands and holds the lease."""

_STATES = {
    AttemptOutcome.SUCCEEDED: AttemptState.SUCCEEDED,
    AttemptOutcome.CANCELLED: AttemptState.CANCELLED,
    AttemptOutcome.LOST: AttemptState.LOST,
}


def ended(outcome: AttemptOutcome, seconds: float = 1.0, **changes: Any) -> AttemptFacts:
    """Return an attempt that had begun and ended `seconds` ago."""
    state = _STATES.get(outcome, AttemptState.FAILED)
    given: dict[str, Any] = {"state": state, "outcome": outcome, "finished_at": ago(seconds), "lease_until": None}
    return replace(RUNNING, **(given | changes))


ALIVE = JobView(CREATED.job_name, "job", OPERATION, 1, None, "", is_terminating=False)
TERMINATING = replace(ALIVE, is_terminating=True)
COMPLETE = replace(ALIVE, end="Complete")
FAILED = replace(ALIVE, end="Failed", reason="BackoffLimitExceeded: Job has reached the specified backoff limit")
FOREIGN = replace(ALIVE, uid="foreign-job", operation_id=_STRANGER)
"""Somebody else's, under our name."""

WORKING = PodView("pod-session", "session", "job", "Running", None, "", "", started=True)
OTHER = replace(WORKING, name="pod-other", uid="other")
"""Another pod of the same Job."""


def ended_pod(exit_code: int, said: JobResult | None = None, reason: str = "Error", **changes: Any) -> PodView:
    """Return the pod `session` after its end."""
    phase = "Succeeded" if exit_code == 0 else "Failed"
    message = "" if said is None else result_text(said)
    given: dict[str, Any] = {"phase": phase, "exit_code": exit_code, "reason": reason, "message": message}
    return replace(WORKING, **(given | changes))


def word(outcome: Outcome, *, operation: UUID = OPERATION, attempt: int = 1) -> JobResult:
    """Return what a pod writes into its termination message."""
    problem = None if outcome is Outcome.SUCCEEDED else {"code": "X", "title": "t", "detail": "d"}
    return JobResult(str(operation), attempt, outcome, {"product_count": 4}, problem)


def seen(job: JobView | None = None, pod: PodView | None = None, *others: PodView, **more: Any) -> Observation:
    """Return an observation; `living` follows from the pods, as the observer has it."""
    living = tuple(each for each in (pod, *others) if each is not None and not each.has_ended)
    return Observation(job, pod, living, **more)
