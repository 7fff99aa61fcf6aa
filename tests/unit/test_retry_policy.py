from __future__ import annotations

from itertools import pairwise

import pytest

from controlplane.domain.attempt import AttemptOutcome as Out
from controlplane.domain.retry_policy import (
    FREE_TRIES,
    MEMORY_AFTER_OOM_MIB,
    TRIES,
    GiveUp,
    Retry,
    next_step,
)

pytestmark = pytest.mark.unit

USUAL_MIB = 512
FREE = [Out.NOT_STARTED, Out.EVICTED, Out.REFUSED]
COUNTED = [Out.RETRYABLE, Out.LOST]
FINAL = [Out.PERMANENT, Out.TIMEOUT, Out.CANCELLED, Out.SUCCEEDED]


def after(
    *outcomes: Out, seconds_left: float | None = 900, memory_mib: int = USUAL_MIB, spread: float = 0.5
) -> Retry | GiveUp:
    return next_step(outcomes, seconds_left=seconds_left, memory_mib=memory_mib, spread=spread)


def pause(*outcomes: Out, spread: float = 0.5) -> float:
    step = after(*outcomes, spread=spread, seconds_left=None)
    assert isinstance(step, Retry)
    return step.seconds


def test_every_outcome_has_its_class() -> None:
    assert sorted([*FREE, *COUNTED, *FINAL, Out.OUT_OF_MEMORY, Out.RETRIED]) == sorted(Out)


@pytest.mark.parametrize(
    ("outcome", "most"), [*((each, TRIES) for each in COUNTED), *((each, FREE_TRIES) for each in FREE)]
)
def test_class_has_its_number_of_tries(outcome: Out, most: int) -> None:
    for count in range(1, most):
        assert isinstance(after(*[outcome] * count), Retry)
    assert isinstance(after(*[outcome] * most), GiveUp)


def test_first_and_five_more_tries_may_end_without_having_begun() -> None:
    assert FREE_TRIES == 1 + 5


@pytest.mark.parametrize("outcome", FINAL)
def test_final_outcome_is_never_tried_again(outcome: Out) -> None:
    assert after(outcome) == GiveUp("")
    assert after(Out.RETRYABLE, outcome, seconds_left=None) == GiveUp("")


def test_each_class_counts_only_its_own() -> None:
    """A node that is drained often takes no try from a shop that fails for a reason of its own."""
    free = [Out.EVICTED, Out.NOT_STARTED, Out.REFUSED, Out.EVICTED, Out.NOT_STARTED]
    assert isinstance(after(*free, Out.RETRYABLE), Retry)
    assert isinstance(after(*[Out.RETRYABLE, Out.LOST, Out.RETRYABLE], *free), Retry)
    assert isinstance(after(*free, Out.RETRYABLE, Out.LOST, Out.RETRYABLE, Out.LOST), GiveUp)
    assert isinstance(after(Out.RETRYABLE, *free, Out.REFUSED), GiveUp)


def test_classes_give_up_in_their_own_words() -> None:
    assert after(*[Out.LOST] * TRIES) == GiveUp("4 attempts have failed")
    assert after(*[Out.EVICTED] * FREE_TRIES) == GiveUp("6 attempts could not begin or were taken away")


def test_pauses_grow_to_a_cap() -> None:
    pauses = [pause(*[Out.EVICTED] * count) for count in range(1, FREE_TRIES)]
    assert pauses == [5, 10, 20, 40, 60]


@pytest.mark.parametrize(("spread", "seconds"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_pauses_are_spread(spread: float, seconds: float) -> None:
    assert pause(Out.RETRYABLE, spread=spread) == pytest.approx(seconds)


def test_spread_never_turns_the_order_of_pauses() -> None:
    for shorter, longer in pairwise(range(1, TRIES)):
        assert pause(*[Out.LOST] * shorter, spread=1.0) < pause(*[Out.LOST] * longer, spread=0.0)


def test_memory_is_raised_once_and_at_once() -> None:
    step = after(Out.OUT_OF_MEMORY)
    assert isinstance(step, Retry)
    assert (step.seconds, step.memory_mib) == (0, MEMORY_AFTER_OOM_MIB)
    assert after(Out.OUT_OF_MEMORY, Out.OUT_OF_MEMORY, memory_mib=MEMORY_AFTER_OOM_MIB) == GiveUp(
        "it ran out of 1024 MiB as well"
    )


@pytest.mark.parametrize("outcome", [*FREE, *COUNTED, Out.RETRIED])
def test_memory_stays_as_it_is_otherwise(outcome: Out) -> None:
    for memory_mib in (USUAL_MIB, MEMORY_AFTER_OOM_MIB):
        step = after(Out.OUT_OF_MEMORY, outcome, memory_mib=memory_mib)
        assert isinstance(step, Retry)
        assert step.memory_mib == memory_mib


def test_persons_retry_comes_at_once_whatever_was_before_and_whatever_time_is_left() -> None:
    worst = [*[Out.LOST] * TRIES, *[Out.EVICTED] * FREE_TRIES]
    step = after(*worst, Out.RETRIED, seconds_left=1)
    assert isinstance(step, Retry)
    assert step.seconds == 0


def test_persons_retry_gives_no_tries_back() -> None:
    assert isinstance(after(*[Out.LOST] * (TRIES - 1), Out.RETRIED, Out.LOST), GiveUp)


def test_attempt_that_could_only_time_out_is_not_begun() -> None:
    assert isinstance(after(Out.RETRYABLE, seconds_left=95), Retry)
    assert after(Out.RETRYABLE, seconds_left=94.9) == GiveUp(
        "too little time is left before the deadline for another attempt"
    )
    assert isinstance(after(Out.OUT_OF_MEMORY, seconds_left=90), Retry)
    assert isinstance(after(Out.OUT_OF_MEMORY, seconds_left=89), GiveUp)
    assert isinstance(after(Out.RETRYABLE, seconds_left=-1), GiveUp)


def test_cause_is_not_hidden_behind_the_deadline() -> None:
    assert after(Out.PERMANENT, seconds_left=1) == GiveUp("")
    assert after(*[Out.LOST] * TRIES, seconds_left=1) == GiveUp("4 attempts have failed")


def test_operation_that_was_never_dispatched_has_no_deadline() -> None:
    assert isinstance(after(Out.RETRYABLE, seconds_left=None), Retry)


def test_reason_names_attempt_end_and_pause() -> None:
    step = after(Out.EVICTED, Out.RETRYABLE)
    assert isinstance(step, Retry)
    assert step.reason == "attempt 2 ended (retryable); the next one begins in 5 s"
    step = after(Out.OUT_OF_MEMORY)
    assert isinstance(step, Retry)
    assert step.reason == "attempt 1 ended (out_of_memory); the next one begins at once"
