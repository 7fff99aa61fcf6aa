from __future__ import annotations

from itertools import product

import pytest

from controlplane.domain.transitions import (
    ATTEMPT_TRANSITIONS,
    OPERATION_TRANSITIONS,
    STORE_TRANSITIONS,
    AttemptState,
    OperationState,
    StoreState,
    can_become,
    is_final,
)

pytestmark = pytest.mark.unit

ATTEMPT_STEPS = {
    "created dispatched",
    "created running",
    "created failed",
    "created lost",
    "created cancelled",
    "dispatched running",
    "dispatched succeeded",
    "dispatched failed",
    "dispatched lost",
    "dispatched cancelled",
    "running succeeded",
    "running failed",
    "running lost",
    "running cancelled",
}
OPERATION_STEPS = {
    "queued running",
    "queued failed",
    "queued cancelled",
    "running succeeded",
    "running failed",
    "running cancelled",
}


def test_every_state_has_its_row() -> None:
    assert set(STORE_TRANSITIONS) == set(StoreState)
    assert set(OPERATION_TRANSITIONS) == set(OperationState)
    assert set(ATTEMPT_TRANSITIONS) == set(AttemptState)


def test_final_states_are_final() -> None:
    assert {state for state in OperationState if is_final(state)} == {"succeeded", "failed", "cancelled"}
    assert {state for state in AttemptState if is_final(state)} == {"succeeded", "failed", "lost", "cancelled"}


@pytest.mark.parametrize(("old", "new"), list(product(OperationState, repeat=2)))
def test_operation_takes_these_steps_and_no_other(old: OperationState, new: OperationState) -> None:
    assert can_become(OPERATION_TRANSITIONS, old, new) is (f"{old} {new}" in OPERATION_STEPS)


@pytest.mark.parametrize(("old", "new"), list(product(AttemptState, repeat=2)))
def test_attempt_takes_these_steps_and_no_other(old: AttemptState, new: AttemptState) -> None:
    assert can_become(ATTEMPT_TRANSITIONS, old, new) is (f"{old} {new}" in ATTEMPT_STEPS)


def test_every_store_can_be_deleted_and_nothing_leaves_deleted() -> None:
    for state in set(StoreState) - {StoreState.DELETING, StoreState.DELETED}:
        assert can_become(STORE_TRANSITIONS, state, StoreState.DELETING)
    assert not STORE_TRANSITIONS[StoreState.DELETED]


def test_failed_store_can_be_tried_again_and_only_ready_ones_are_changed() -> None:
    assert can_become(STORE_TRANSITIONS, StoreState.FAILED, StoreState.PROVISIONING)
    for state in (StoreState.UPGRADING, StoreState.SUSPENDED):
        assert [old for old in StoreState if can_become(STORE_TRANSITIONS, old, state)] == [StoreState.READY]


@pytest.mark.parametrize(
    ("first", "table"),
    [
        (StoreState.PROVISIONING, STORE_TRANSITIONS),
        (OperationState.QUEUED, OPERATION_TRANSITIONS),
        (AttemptState.CREATED, ATTEMPT_TRANSITIONS),
    ],
    ids=["store", "operation", "attempt"],
)
def test_every_state_is_reached_and_an_end_from_each(first: str, table: dict[str, frozenset[str]]) -> None:
    reached = {first}
    while more := {new for old in reached for new in table[old]} - reached:
        reached |= more
    assert reached == set(table)
    leads_out = {state for state, following in table.items() if not following}
    while more := {old for old, following in table.items() if following & leads_out} - leads_out:
        leads_out |= more
    assert leads_out == set(table)


def test_nothing_stays_as_it_is() -> None:
    for table in (STORE_TRANSITIONS, OPERATION_TRANSITIONS, ATTEMPT_TRANSITIONS):
        assert all(state not in following for state, following in table.items())
