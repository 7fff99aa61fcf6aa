"""The decision case by case, for the reader; what holds for all of them stands in test_decision_product.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.domain.attempt import AttemptOutcome
from controlplane.domain.decision import decide
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
from provisioner_job.contract import Outcome
from tests.support.attempts import (
    ALIVE,
    COMPLETE,
    CREATED,
    DISPATCHED,
    FAILED,
    FOREIGN,
    NOW,
    OPERATION,
    OTHER,
    RUNNING,
    TERMINATING,
    WORKING,
    ago,
    ended,
    ended_pod,
    in_seconds,
    seen,
    word,
)

if TYPE_CHECKING:
    from controlplane.domain.attempt import AttemptFacts
    from controlplane.domain.observation import Observation

pytestmark = pytest.mark.unit

STUCK = replace(WORKING, phase="Pending", started=False, waits="ErrImagePull: not found")
BACK_OFF = replace(STUCK, waits="ImagePullBackOff: Back-off")
CUT_OFF = replace(WORKING, is_terminating=True)
"""Its node does not answer: it was asked to go and stays."""
EVICTED = ended_pod(143, disruption="EvictionByEvictionAPI")

OLD = replace(DISPATCHED, dispatched_at=ago(301))
UNHEARD = replace(RUNNING, lease_until=ago(16))
"""Its lease and the margin are over."""
CANCELLED = replace(RUNNING, cancel_requested_at=ago(31))
CREATED_CANCELLED = replace(CREATED, cancel_requested_at=ago(1))
TOLD = replace(DISPATCHED, waiting_reason=STUCK.waits)
TIMED_OUT = ended(AttemptOutcome.TIMEOUT, harvested_at=NOW)
RETRYABLE = ended(AttemptOutcome.RETRYABLE)
HARVESTED = replace(RETRYABLE, harvested_at=NOW)
NO_JOB = ended(AttemptOutcome.CANCELLED, job_uid=None, pod_uid=None)
BEING_CANCELLED = "the operation is being cancelled"


def seconds(number: float) -> Wait:
    return Wait(timedelta(seconds=number))


def late(attempt: AttemptFacts) -> AttemptFacts:
    """Return the attempt with the grace of its report over."""
    return replace(attempt, end_seen_at=ago(10))


def older(attempt: AttemptFacts, age: float) -> AttemptFacts:
    return replace(attempt, finished_at=ago(age))


@pytest.mark.parametrize(
    ("attempt", "look", "decision"),
    [
        # Before the Job is recorded it is the dispatcher's.
        (CREATED, seen(), Wait()),
        # Whoever holds the lease is at it.
        (replace(CREATED, lease_until=in_seconds(20)), seen(ALIVE), seconds(20)),
        (CREATED, seen(ALIVE), RecordJob("job")),
        (CREATED, seen(TERMINATING), RecordJob("job")),
        (CREATED, seen(FOREIGN), Wait()),
        (CREATED, seen(replace(ALIVE, attempt=2)), Wait()),
        (CREATED, seen(replace(ALIVE, operation_id=None)), Wait()),
        (CREATED_CANCELLED, seen(), ConfirmAbsence()),
        (CREATED_CANCELLED, seen(ALIVE), RecordJob("job")),
        (replace(CREATED_CANCELLED, lease_until=in_seconds(20)), seen(), seconds(20)),
        # A Job without its pod, or a pod that does not begin, is waited for with the reason told once.
        (DISPATCHED, seen(ALIVE), seconds(250)),
        (DISPATCHED, seen(ALIVE, WORKING), seconds(250)),
        (DISPATCHED, seen(ALIVE, STUCK), NoteWaiting("ErrImagePull: not found")),
        (TOLD, seen(ALIVE, STUCK), seconds(250)),
        (TOLD, seen(ALIVE, BACK_OFF), seconds(250)),
        (DISPATCHED, seen(ALIVE, no_pod_because="FailedCreate: quota"), NoteWaiting("FailedCreate: quota")),
        (DISPATCHED, seen(), ConfirmAbsence()),
        (DISPATCHED, seen(TERMINATING), ConfirmAbsence()),
        # The second pod of a Job says nothing about the attempt.
        (DISPATCHED, seen(ALIVE, ended_pod(30)), seconds(250)),
        (DISPATCHED, seen(COMPLETE, ended_pod(30)), NoteEnd()),
        # A pod at work ends by its own word, or by what the cluster shows for certain.
        (RUNNING, seen(ALIVE, WORKING), Wait()),
        (RUNNING, seen(None, WORKING), Wait()),
        (RUNNING, seen(ALIVE, STUCK), Wait()),
        (RUNNING, seen(), seconds(5)),
        (RUNNING, seen(FAILED), seconds(5)),
        (RUNNING, seen(ALIVE, None, OTHER), seconds(5)),
        (RUNNING, seen(ALIVE, CUT_OFF), Wait()),
        (UNHEARD, seen(ALIVE, WORKING), Wait()),
        (UNHEARD, seen(), ConfirmAbsence()),
        (UNHEARD, seen(ALIVE), ConfirmAbsence()),
        # Of a lost node: only without its Job can the pod be removed.
        (UNHEARD, seen(ALIVE, CUT_OFF), DeleteJob("job", "the node of its pod is lost")),
        (UNHEARD, seen(TERMINATING, CUT_OFF), ForceDeletePod("pod-session", "session")),
        (UNHEARD, seen(None, CUT_OFF), ForceDeletePod("pod-session", "session")),
        # The grace begins when the end is seen, whatever the kubelet's clock says.
        (RUNNING, seen(ALIVE, ended_pod(0)), NoteEnd()),
        (DISPATCHED, seen(FAILED), NoteEnd()),
        (UNHEARD, seen(FAILED), NoteEnd()),
        (replace(RUNNING, end_seen_at=ago(1)), seen(ALIVE, ended_pod(0)), seconds(9)),
        (replace(DISPATCHED, end_seen_at=ago(1)), seen(FAILED), seconds(9)),
    ],
)
def test_open_attempt(attempt: AttemptFacts, look: Observation, decision: Decision) -> None:
    assert decide(attempt, look, NOW) == decision


@pytest.mark.parametrize(
    ("attempt", "look", "decision"),
    [
        # A pod that has begun hears of the cancel itself; one that has not is refused by the handshake.
        (replace(CANCELLED, cancel_requested_at=ago(1)), seen(ALIVE, WORKING), seconds(29)),
        (CANCELLED, seen(ALIVE, WORKING), DeleteJob("job", BEING_CANCELLED)),
        (replace(DISPATCHED, cancel_requested_at=ago(1)), seen(ALIVE, WORKING), DeleteJob("job", BEING_CANCELLED)),
        (replace(DISPATCHED, cancel_requested_at=ago(1)), seen(ALIVE), DeleteJob("job", BEING_CANCELLED)),
        # Deleted is not gone: the operation waits for its pods.
        (CANCELLED, seen(TERMINATING, CUT_OFF), seconds(5)),
        (CANCELLED, seen(None, CUT_OFF), seconds(5)),
        (CANCELLED, seen(None, None, OTHER), seconds(5)),
        (CANCELLED, seen(), seconds(5)),
        (replace(CANCELLED, lease_until=ago(16)), seen(), ConfirmAbsence()),
        (replace(CANCELLED, lease_until=ago(14)), seen(None, CUT_OFF), seconds(5)),
        (replace(CANCELLED, lease_until=ago(16)), seen(None, CUT_OFF), ForceDeletePod("pod-session", "session")),
        (replace(DISPATCHED, cancel_requested_at=ago(194)), seen(None, CUT_OFF), seconds(5)),
        (
            replace(DISPATCHED, cancel_requested_at=ago(195)),
            seen(None, CUT_OFF),
            ForceDeletePod("pod-session", "session"),
        ),
        # A success that came first wins, also when only the pod tells it.
        (
            CANCELLED,
            seen(COMPLETE, ended_pod(0, word(Outcome.SUCCEEDED))),
            EndAttempt(AttemptState.SUCCEEDED, AttemptOutcome.SUCCEEDED, 0, {"product_count": 4}),
        ),
        (
            CANCELLED,
            seen(FAILED, ended_pod(31, word(Outcome.REFUSED))),
            EndAttempt(AttemptState.CANCELLED, AttemptOutcome.CANCELLED, 31),
        ),
        (CANCELLED, seen(None, ended_pod(143)), EndAttempt(AttemptState.CANCELLED, AttemptOutcome.CANCELLED, 143)),
        (
            replace(CREATED_CANCELLED, lease_until=ago(1)),
            seen(absence_confirmed=True),
            EndAttempt(AttemptState.CANCELLED, AttemptOutcome.CANCELLED),
        ),
    ],
)
def test_cancelled_attempt(attempt: AttemptFacts, look: Observation, decision: Decision) -> None:
    assert decide(attempt, look, NOW) == decision


@pytest.mark.parametrize(
    ("attempt", "look", "decision"),
    [
        # First the log, once the container has ended or will not end in time.
        (RETRYABLE, seen(FAILED, ended_pod(10)), Harvest("pod-session", is_last_try=False)),
        (RETRYABLE, seen(ALIVE, WORKING), seconds(29)),
        (RETRYABLE, seen(ALIVE), seconds(29)),
        (RETRYABLE, seen(), ConfirmAbsence()),
        (RETRYABLE, seen(absence_confirmed=True), Harvest(None, is_last_try=True)),
        (RETRYABLE, seen(FAILED), Harvest(None, is_last_try=True)),
        (older(RETRYABLE, 30), seen(FAILED, ended_pod(10)), Harvest("pod-session", is_last_try=True)),
        (older(RETRYABLE, 30), seen(ALIVE, WORKING), Harvest("pod-session", is_last_try=True)),
        (older(RETRYABLE, 30), seen(ALIVE), Harvest(None, is_last_try=True)),
        # Who ended it from outside tells the pod to stop instead of waiting for it.
        (ended(AttemptOutcome.TIMEOUT), seen(ALIVE, WORKING), Harvest("pod-session", is_last_try=False)),
        (TIMED_OUT, seen(ALIVE, WORKING), DeleteJob("job", "its attempt has ended (timeout)")),
        # Then its pods are seen out: the store is nobody's before that.
        (HARVESTED, seen(ALIVE, WORKING), seconds(29)),
        (older(HARVESTED, 30), seen(ALIVE, WORKING), DeleteJob("job", "its attempt has ended (retryable)")),
        (HARVESTED, seen(FAILED, ended_pod(10)), NotePodsEnded()),
        (HARVESTED, seen(FAILED, ended_pod(10), OTHER), seconds(29)),
        (HARVESTED, seen(ALIVE), DeleteJob("job", "its attempt has ended (retryable)")),
        (HARVESTED, seen(), seconds(194)),
        (older(HARVESTED, 195), seen(), ConfirmAbsence()),
        (older(HARVESTED, 195), seen(absence_confirmed=True), NotePodsEnded()),
        (HARVESTED, seen(None, ended_pod(10), is_pod_gone=True), NotePodsEnded()),
        (replace(HARVESTED, pod_uid=None), seen(FAILED), ConfirmAbsence()),
        # By force only after the last lease it can have had, whatever lease the facts show.
        (older(TIMED_OUT, 194), seen(None, CUT_OFF), seconds(5)),
        (replace(older(TIMED_OUT, 194), lease_until=ago(86400)), seen(None, CUT_OFF), seconds(5)),
        (older(TIMED_OUT, 195), seen(None, CUT_OFF), ForceDeletePod("pod-session", "session")),
        (
            replace(older(TIMED_OUT, 195), lease_until=in_seconds(30)),
            seen(None, OTHER),
            ForceDeletePod("pod-other", "other"),
        ),
        # A create that was under way when its attempt ended may still bring a Job.
        (NO_JOB, seen(ALIVE), NoteLateJob("job")),
        (NO_JOB, seen(), seconds(34)),
        (older(NO_JOB, 35), seen(), ConfirmAbsence()),
        (older(NO_JOB, 35), seen(absence_confirmed=True), Harvest(None, is_last_try=True)),
        (replace(older(NO_JOB, 35), harvested_at=NOW), seen(absence_confirmed=True), NotePodsEnded()),
        (older(NO_JOB, 35), seen(FOREIGN, ended_pod(0), absence_confirmed=True), Harvest(None, is_last_try=True)),
    ],
)
def test_ended_attempt(attempt: AttemptFacts, look: Observation, decision: Decision) -> None:
    assert decide(attempt, look, NOW) == decision


@pytest.mark.parametrize(
    ("attempt", "look", "end"),
    [
        # Its own word in the termination message counts at once.
        (RUNNING, seen(ALIVE, ended_pod(0, word(Outcome.SUCCEEDED))), ("succeeded", "succeeded", "")),
        (RUNNING, seen(ALIVE, ended_pod(137, word(Outcome.SUCCEEDED))), ("succeeded", "succeeded", "")),
        (RUNNING, seen(ALIVE, ended_pod(20, word(Outcome.PERMANENT))), ("failed", "permanent", "X")),
        (RUNNING, seen(ALIVE, ended_pod(10, word(Outcome.RETRYABLE))), ("failed", "retryable", "X")),
        (DISPATCHED, seen(ALIVE, ended_pod(10, word(Outcome.RETRYABLE))), ("failed", "retryable", "X")),
        (DISPATCHED, seen(ALIVE, ended_pod(31, word(Outcome.REFUSED))), ("failed", "refused", "X")),
        (RUNNING, seen(None, ended_pod(0, word(Outcome.SUCCEEDED)), is_pod_gone=True), ("succeeded", "succeeded", "")),
        # Exit 0 without a word is never a success.
        (late(RUNNING), seen(COMPLETE, ended_pod(0)), ("lost", "lost", "ATTEMPT_LOST")),
        (late(UNHEARD), seen(COMPLETE), ("lost", "lost", "ATTEMPT_LOST")),
        # Nor is a success that was never begun, or that speaks of another attempt.
        (late(DISPATCHED), seen(ALIVE, ended_pod(0, word(Outcome.SUCCEEDED))), ("lost", "not_started", "ATTEMPT_LOST")),
        (
            late(RUNNING),
            seen(ALIVE, ended_pod(0, word(Outcome.SUCCEEDED, attempt=2))),
            ("lost", "lost", "ATTEMPT_LOST"),
        ),
        (
            late(RUNNING),
            seen(ALIVE, ended_pod(0, word(Outcome.SUCCEEDED, operation=FOREIGN.operation_id or OPERATION))),
            ("lost", "lost", "ATTEMPT_LOST"),
        ),
        # A container that died says why by its code, its reason and what the cluster did to it.
        (late(RUNNING), seen(ALIVE, ended_pod(137, reason="OOMKilled")), ("failed", "out_of_memory", "OUT_OF_MEMORY")),
        (late(RUNNING), seen(ALIVE, EVICTED), ("failed", "evicted", "PROVISIONER_DIED")),
        (late(RUNNING), seen(ALIVE, ended_pod(1)), ("failed", "retryable", "PROVISIONER_DIED")),
        (late(RUNNING), seen(ALIVE, ended_pod(137)), ("failed", "retryable", "PROVISIONER_DIED")),
        (late(RUNNING), seen(ALIVE, ended_pod(20)), ("failed", "permanent", "PROVISIONER_DIED")),
        (late(DISPATCHED), seen(FAILED, ended_pod(31)), ("failed", "refused", "PROVISIONER_DIED")),
        # What did not run has not begun; what shook hands has, though its status was lost with the node.
        (late(DISPATCHED), seen(ALIVE, ended_pod(128, started=False)), ("failed", "not_started", "PROVISIONER_DIED")),
        (late(RUNNING), seen(ALIVE, ended_pod(-1, started=False)), ("failed", "retryable", "PROVISIONER_DIED")),
        # A pod that does not begin in time is given up; so is a Job that gets none.
        (OLD, seen(ALIVE, STUCK), ("failed", "not_started", "POD_NOT_STARTED")),
        (OLD, seen(ALIVE, WORKING), ("failed", "not_started", "POD_NOT_STARTED")),
        (OLD, seen(ALIVE, no_pod_because="FailedCreate: quota"), ("failed", "not_started", "POD_NOT_STARTED")),
        (OLD, seen(ALIVE, ended_pod(30)), ("failed", "not_started", "POD_NOT_STARTED")),
        # The Job ended or is gone, and nobody is left to ask.
        (late(DISPATCHED), seen(FAILED), ("lost", "not_started", "ATTEMPT_LOST")),
        (late(UNHEARD), seen(FAILED), ("lost", "lost", "ATTEMPT_LOST")),
        (DISPATCHED, seen(absence_confirmed=True), ("lost", "not_started", "ATTEMPT_LOST")),
        (UNHEARD, seen(absence_confirmed=True), ("lost", "lost", "ATTEMPT_LOST")),
        (UNHEARD, seen(ALIVE, absence_confirmed=True), ("lost", "lost", "ATTEMPT_LOST")),
        # The next pod of its Job is refused the work: it is not waited for.
        (UNHEARD, seen(ALIVE, None, OTHER), ("lost", "lost", "ATTEMPT_LOST")),
    ],
)
def test_end(attempt: AttemptFacts, look: Observation, end: tuple[str, str, str]) -> None:
    decision = decide(attempt, look, NOW)
    assert isinstance(decision, EndAttempt)
    assert (decision.state, decision.outcome, (decision.problem or {}).get("code", "")) == end


def detail_of(attempt: AttemptFacts, look: Observation) -> dict[str, Any]:
    decision = decide(attempt, look, NOW)
    assert isinstance(decision, EndAttempt)
    assert decision.problem is not None
    return decision.problem


def test_cause_is_told_in_the_clusters_words() -> None:
    assert "BackoffLimitExceeded" in detail_of(late(DISPATCHED), seen(FAILED))["detail"]
    assert "quota" in detail_of(OLD, seen(ALIVE, no_pod_because="FailedCreate: exceeded quota"))["detail"]
    assert detail_of(OLD, seen(ALIVE, STUCK))["category"] == "image_pull"


def test_own_word_keeps_result_problem_and_exit_code() -> None:
    said = word(Outcome.PERMANENT)
    decision = decide(RUNNING, seen(FAILED, ended_pod(20, said)), NOW)
    assert decision == EndAttempt(AttemptState.FAILED, AttemptOutcome.PERMANENT, 20, said.result, said.problem)
