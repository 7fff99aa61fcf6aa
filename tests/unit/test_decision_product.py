"""What holds for every attempt and every observation, whatever the case: the cross product, one rule a test."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controlplane.domain.attempt import AttemptFacts, AttemptOutcome
from controlplane.domain.decision import (
    CANCEL_PATIENCE,
    HARVEST_PATIENCE,
    LATE_JOB_PATIENCE,
    LEASE_MARGIN,
    PENDING_LIMIT,
    POD_LEASE,
    REPORT_GRACE,
)
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
from controlplane.domain.transitions import ATTEMPT_TRANSITIONS, AttemptState, can_become, is_final
from provisioner_job.contract import parse_result
from tests.support.attempts import (
    FOREIGN,
    NOW,
    ended_pod,
)
from tests.support.decision_cases import Case, cases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.domain.observation import JobView, PodView

pytestmark = pytest.mark.unit

STOPPED = {AttemptOutcome.TIMEOUT, AttemptOutcome.CANCELLED, AttemptOutcome.RETRIED, AttemptOutcome.NOT_STARTED}


def those(*kinds: type[Decision]) -> Iterator[Case]:
    return (case for case in cases() if isinstance(case.decision, kinds))


def age(attempt: AttemptFacts) -> timedelta:
    assert attempt.finished_at is not None
    return NOW - attempt.finished_at


def has_own_word(attempt: AttemptFacts, pod: PodView | None, outcome: str) -> bool:
    if pod is None or attempt.pod_uid not in (None, pod.uid):
        return False
    said = parse_result(pod.message)
    return said is not None and (said.attempt, said.operation_id, said.outcome) == (
        attempt.number,
        str(attempt.operation_id),
        outcome,
    )


def may_live_unseen(case: Case) -> bool:
    """Whether the pod that shook hands may be at work on a node that is cut off."""
    attempt, look = case.attempt, case.seen
    if attempt.pod_uid is None or look.is_pod_gone or (look.pod is not None and look.pod.has_ended):
        return False
    if attempt.finished_at is not None:
        return age(attempt) < POD_LEASE + LEASE_MARGIN
    return not lease_is_over(attempt)


def lease_is_over(attempt: AttemptFacts) -> bool:
    return attempt.pod_uid is not None and attempt.lease_until is not None and attempt.lease_until + LEASE_MARGIN <= NOW


def is_ours(job: JobView | None) -> bool:
    return job is not None and job is not FOREIGN


def test_product_reaches_every_step_and_every_outcome_of_an_observation() -> None:
    steps = Counter(type(case.decision) for case in cases())
    assert set(steps) == {
        ConfirmAbsence,
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
    }
    outcomes = {case.decision.outcome for case in those(EndAttempt) if isinstance(case.decision, EndAttempt)}
    # The other two come from the clock and from a person, through Postgres alone.
    assert outcomes == set(AttemptOutcome) - {AttemptOutcome.TIMEOUT, AttemptOutcome.RETRIED}


def test_nothing_succeeds_but_by_the_own_word_of_the_pod_that_shook_hands() -> None:
    for case in those(EndAttempt):
        assert isinstance(case.decision, EndAttempt)
        if AttemptState.SUCCEEDED in (case.decision.state, case.decision.outcome):
            assert case.attempt.state is AttemptState.RUNNING, case
            assert case.attempt.pod_uid is not None, case
            assert has_own_word(case.attempt, case.seen.pod, "succeeded"), case


def test_created_attempt_is_left_to_its_dispatcher() -> None:
    for case in cases():
        if case.attempt.state is not AttemptState.CREATED:
            continue
        if isinstance(case.decision, EndAttempt | ConfirmAbsence):
            assert case.attempt.cancel_requested_at is not None, case
            assert case.attempt.lease_until is None or case.attempt.lease_until <= NOW, case
        if isinstance(case.decision, EndAttempt):
            assert case.decision == EndAttempt(AttemptState.CANCELLED, AttemptOutcome.CANCELLED), case
            assert case.seen.absence_confirmed, case
        else:
            assert isinstance(case.decision, RecordJob | Wait | ConfirmAbsence), case


def test_each_step_belongs_to_open_or_to_ended_attempts() -> None:
    of_open = (EndAttempt, NoteEnd, NoteWaiting, RecordJob)
    of_ended = (Harvest, NoteLateJob, NotePodsEnded)
    for case in cases():
        if isinstance(case.decision, of_open):
            assert not is_final(case.attempt.state), case
        if isinstance(case.decision, of_ended):
            assert is_final(case.attempt.state), case


def test_end_is_a_step_that_the_table_allows() -> None:
    for case in those(EndAttempt):
        assert isinstance(case.decision, EndAttempt)
        assert can_become(ATTEMPT_TRANSITIONS, case.attempt.state, case.decision.state), case
        named = {AttemptState.SUCCEEDED: "succeeded", AttemptState.CANCELLED: "cancelled"}
        assert named.get(case.decision.state) in (None, case.decision.outcome), case


def test_failure_says_why_and_what_to_do_next() -> None:
    for case in those(EndAttempt):
        assert isinstance(case.decision, EndAttempt)
        problem = case.decision.problem
        if case.decision.state in (AttemptState.SUCCEEDED, AttemptState.CANCELLED):
            assert problem is None, case
        elif not has_own_word(case.attempt, case.seen.pod, case.decision.outcome):
            assert problem is not None, case
            assert all(problem[key] for key in ("code", "title", "detail", "remedy")), case


def test_attempt_whose_pod_lives_or_may_live_ends_only_when_it_never_began() -> None:
    for case in those(EndAttempt):
        assert isinstance(case.decision, EndAttempt)
        assert not may_live_unseen(case), case
        if case.seen.pod is not None and not case.seen.pod.has_ended:
            assert case.attempt.pod_uid is None, case
            assert case.decision.outcome is AttemptOutcome.NOT_STARTED, case
            assert case.attempt.dispatched_at is not None, case
            assert case.attempt.dispatched_at + PENDING_LIMIT <= NOW, case


def test_end_without_a_word_waits_for_the_report_that_may_be_under_way() -> None:
    for case in those(EndAttempt):
        assert isinstance(case.decision, EndAttempt)
        has_word = has_own_word(case.attempt, case.seen.pod, case.decision.outcome)
        is_timed = case.attempt.end_seen_at is not None and case.attempt.end_seen_at + REPORT_GRACE <= NOW
        is_pending = case.decision.outcome is AttemptOutcome.NOT_STARTED and case.seen.pod != ended_pod(0)
        is_cancelled = case.decision.state is AttemptState.CANCELLED
        # The pod that had begun is gone, and no other pod of its Job works in its place.
        is_replaced = case.seen.pod is None and bool(case.seen.living) and lease_is_over(case.attempt)
        is_absent = case.seen.absence_confirmed or is_replaced
        assert has_word or is_timed or is_pending or is_cancelled or is_absent, case


def test_what_has_begun_is_never_told_as_not_begun() -> None:
    """A try that costs nothing is one that cannot have done anything."""
    for case in those(EndAttempt):
        assert isinstance(case.decision, EndAttempt)
        if case.decision.outcome is AttemptOutcome.NOT_STARTED:
            assert case.attempt.pod_uid is None, case


def test_cancelled_operation_ends_cancelled_or_by_a_word_that_came_first() -> None:
    for case in those(EndAttempt):
        assert isinstance(case.decision, EndAttempt)
        if case.attempt.cancel_requested_at is None:
            assert case.decision.state is not AttemptState.CANCELLED, case
        elif case.decision.state is not AttemptState.CANCELLED:
            assert has_own_word(case.attempt, case.seen.pod, case.decision.outcome), case
            assert case.decision.outcome is not AttemptOutcome.REFUSED, case
        else:
            assert not case.seen.living, case


def test_job_is_deleted_by_the_uid_that_was_seen_and_only_when_nobody_wants_it() -> None:
    for case in those(DeleteJob):
        assert isinstance(case.decision, DeleteJob)
        assert case.seen.job is not None, case
        assert case.decision.job_uid == case.seen.job.uid, case
        assert not case.seen.job.is_terminating, case
        attempt = case.attempt
        if attempt.finished_at is not None:
            assert attempt.harvested_at is not None, case
        elif attempt.cancel_requested_at is None:
            # A pod that was asked to go and is heard of no more: its node is lost.
            assert case.seen.pod is not None, case
            assert case.seen.pod.is_terminating, case
            assert lease_is_over(attempt), case


def test_pod_that_has_begun_may_end_in_order_when_it_is_cancelled() -> None:
    for case in those(DeleteJob, ForceDeletePod):
        asked_at = case.attempt.cancel_requested_at
        if case.attempt.finished_at is None and asked_at is not None and case.attempt.pod_uid is not None:
            assert asked_at + CANCEL_PATIENCE <= NOW or not case.seen.living, case


def test_job_of_somebody_else_is_never_touched_nor_read() -> None:
    for case in cases():
        if case.seen.job is not FOREIGN:
            continue
        assert not isinstance(case.decision, DeleteJob | ForceDeletePod | RecordJob | NoteLateJob), case
        if isinstance(case.decision, Harvest):
            assert case.decision.pod_name is None, case


def test_pod_is_removed_by_force_only_after_its_lease_and_a_margin() -> None:
    for case in those(ForceDeletePod):
        assert isinstance(case.decision, ForceDeletePod)
        assert (case.decision.name, case.decision.uid) in {(pod.name, pod.uid) for pod in case.seen.living}, case
        attempt = case.attempt
        if attempt.finished_at is not None:
            lease_end = attempt.finished_at + POD_LEASE
        elif attempt.pod_uid is not None:
            assert attempt.lease_until is not None, case
            lease_end = attempt.lease_until
        else:
            assert attempt.cancel_requested_at is not None, case
            lease_end = attempt.cancel_requested_at + POD_LEASE
        assert lease_end + LEASE_MARGIN <= NOW, case


def test_pod_is_removed_by_force_only_without_its_job() -> None:
    """A Job keeps a pod whose end it never saw; and one that is gone asks no pod to go."""
    for case in those(ForceDeletePod):
        assert case.seen.job is None or case.seen.job.is_terminating, case


def test_store_is_not_set_free_while_a_pod_lives_may_live_or_may_be_made() -> None:
    for case in those(NotePodsEnded):
        assert not case.seen.living, case
        assert not may_live_unseen(case), case
        job = case.seen.job
        if is_ours(job) and job is not None and case.seen.pod is None:
            assert job.end is not None or job.is_terminating, case
        if case.attempt.job_uid is None:
            assert age(case.attempt) >= LATE_JOB_PATIENCE, case
            assert case.seen.absence_confirmed, case


def test_log_of_a_pod_that_is_not_told_to_stop_is_waited_for() -> None:
    for case in those(Harvest):
        assert isinstance(case.decision, Harvest)
        assert case.attempt.harvested_at is None, case
        pod = case.seen.pod
        assert case.decision.pod_name == (pod.name if pod is not None and case.seen.job is not FOREIGN else None), case
        is_late = age(case.attempt) >= HARVEST_PATIENCE
        if is_late:
            assert case.decision.is_last_try, case
        elif pod is not None and not pod.has_ended:
            assert case.attempt.outcome in STOPPED, case


def test_absence_is_confirmed_once() -> None:
    """What a live read has shown is not asked for again: that would go on for ever."""
    for case in those(ConfirmAbsence):
        assert not case.seen.absence_confirmed, case


def test_moment_is_noted_once_and_only_of_an_end() -> None:
    for case in those(NoteEnd):
        assert case.attempt.end_seen_at is None, case
        pod, job = case.seen.pod, case.seen.job
        assert (pod is not None and pod.has_ended) or (job is not None and job.end is not None), case


def test_reason_is_told_before_the_pod_begins_and_not_again() -> None:
    for case in those(NoteWaiting):
        assert isinstance(case.decision, NoteWaiting)
        assert case.attempt.state is AttemptState.DISPATCHED, case
        assert case.decision.reason, case
        assert case.decision.reason != case.attempt.waiting_reason, case


def test_job_is_recorded_only_where_none_is() -> None:
    for case in those(RecordJob, NoteLateJob):
        assert isinstance(case.decision, RecordJob | NoteLateJob)
        assert case.attempt.job_uid is None, case
        assert is_ours(case.seen.job), case
        assert case.seen.job is not None, case
        assert case.decision.job_uid == case.seen.job.uid, case


def test_wait_has_a_time_ahead_and_not_far() -> None:
    for case in those(Wait):
        assert isinstance(case.decision, Wait)
        if case.decision.look_again is not None:
            assert timedelta() < case.decision.look_again <= PENDING_LIMIT, case
