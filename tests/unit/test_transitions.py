from __future__ import annotations

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


def test_every_state_has_its_row() -> None:
    assert set(STORE_TRANSITIONS) == set(StoreState)
    assert set(OPERATION_TRANSITIONS) == set(OperationState)
    assert set(ATTEMPT_TRANSITIONS) == set(AttemptState)


def test_final_states_are_final() -> None:
    assert {state for state in OperationState if is_final(state)} == {"succeeded", "failed", "cancelled"}
    assert {state for state in AttemptState if is_final(state)} == {"succeeded", "failed", "lost", "cancelled"}


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("queued", "running", True),
        ("queued", "succeeded", False),
        ("running", "queued", False),
        ("running", "cancelled", True),
        ("failed", "running", False),
    ],
)
def test_operation_steps(old: str, new: str, *, allowed: bool) -> None:
    assert can_become(OPERATION_TRANSITIONS, OperationState(old), OperationState(new)) is allowed


def test_every_store_can_be_deleted_and_nothing_leaves_deleted() -> None:
    for state in set(StoreState) - {StoreState.DELETING, StoreState.DELETED}:
        assert can_become(STORE_TRANSITIONS, state, StoreState.DELETING)
    assert not STORE_TRANSITIONS[StoreState.DELETED]


def test_nothing_stays_as_it_is_and_success_needs_a_job() -> None:
    for table in (STORE_TRANSITIONS, OPERATION_TRANSITIONS, ATTEMPT_TRANSITIONS):
        assert all(state not in following for state, following in table.items())
    assert not can_become(ATTEMPT_TRANSITIONS, AttemptState.CREATED, AttemptState.SUCCEEDED)
