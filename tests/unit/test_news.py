"""Which changes of a Job or pod bring a pass, and which ended attempts leave something to follow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from controlplane.domain.attempt import AttemptFacts, AttemptOutcome
from controlplane.domain.transitions import OperationState
from tests.support.attempts import ALIVE, COMPLETE, FAILED, RUNNING, TERMINATING, WORKING, ended, ended_pod

if TYPE_CHECKING:
    from controlplane.domain.observation import JobView, PodView

pytestmark = pytest.mark.unit

STARTING = replace(WORKING, phase="Pending", started=False)


@pytest.mark.parametrize("job", [COMPLETE, FAILED, TERMINATING])
def test_end_or_deletion_of_a_job_is_news(job: JobView) -> None:
    assert job.is_news_after(ALIVE)


def test_our_own_change_of_a_ttl_is_no_news() -> None:
    assert not replace(COMPLETE, ttl_seconds=300).is_news_after(COMPLETE)


@pytest.mark.parametrize(
    "pod",
    [
        ended_pod(0),
        ended_pod(-1, reason="Evicted", disruption="Evicted"),
        replace(WORKING, is_terminating=True),
        replace(STARTING, waits="ErrImagePull: no such image"),
    ],
)
def test_what_may_change_a_decision_is_news_of_a_pod(pod: PodView) -> None:
    assert pod.is_news_after(WORKING)


def test_usual_start_of_a_pod_is_no_news() -> None:
    placed = replace(STARTING, node="node-1")
    assert not placed.is_news_after(STARTING)
    assert not replace(WORKING, node="node-1").is_news_after(placed)


def test_exit_code_that_becomes_known_after_the_end_is_news() -> None:
    assert ended_pod(3).is_news_after(ended_pod(-1))


@pytest.mark.parametrize(
    ("attempt", "may_be"),
    [
        (RUNNING, False),
        (ended(AttemptOutcome.RETRYABLE, operation_state=OperationState.RUNNING), True),
        (ended(AttemptOutcome.RETRYABLE, operation_state=OperationState.QUEUED), True),
        (ended(AttemptOutcome.RETRYABLE, operation_state=OperationState.RUNNING, is_newest=False), False),
        (ended(AttemptOutcome.SUCCEEDED, operation_state=OperationState.SUCCEEDED), False),
    ],
)
def test_only_the_newest_end_of_an_active_operation_leaves_something_to_follow(
    attempt: AttemptFacts, *, may_be: bool
) -> None:
    assert attempt.may_be_concluded is may_be
