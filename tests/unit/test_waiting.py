from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from controlplane.domain.transitions import AttemptState, OperationState
from controlplane.domain.waiting import Busy, WaitFacts, explained

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
OTHER = UUID("0198c2a0-0000-7000-8000-000000000000")
FREE = WaitFacts(
    state=OperationState.QUEUED,
    now=NOW,
    since=NOW - timedelta(minutes=1),
    next_dispatch_at=NOW,
    noted_reason="",
    is_own=True,
    is_cancelling=False,
    is_leased=False,
    attempt=0,
    attempt_state=None,
    circuit_reason=None,
    cluster_in_flight=0,
    cluster_limit=200,
    tokens=5.0,
    own_in_flight=0,
    own_slots=20,
    busy=None,
    position=3,
)
# In the order of the claim: each line is added to those below it, and tells the reason from then on.
STOPS: list[tuple[dict[str, Any], str]] = [
    ({}, "it waits for its turn"),
    ({"tokens": 0.5}, "the cluster gets its new Jobs at a limited rate, and that is used up for the moment"),
    (
        {"next_dispatch_at": NOW + timedelta(seconds=75), "noted_reason": "quota is used up"},
        "quota is used up; it goes on at 12:01:15 UTC",
    ),
    ({"busy": Busy(OTHER, "create", 0)}, f"the store is still busy with create {OTHER}"),
    (
        {"busy": Busy(OTHER, "create", 2)},
        f"the store is still busy: the pods of attempt 2 of create {OTHER} have not ended",
    ),
    ({"cluster_in_flight": 200}, "the cluster has 200 operations under way, and its limit is 200"),
    ({"own_in_flight": 20}, "you have 20 operations under way, which is your limit"),
    ({"is_own": False}, "its owner has 20 operations under way, which is their limit"),
    ({"circuit_reason": "401"}, "the cluster is left alone for the moment: 401"),
]


def test_reason_is_the_first_thing_that_stops_it() -> None:
    facts = FREE
    for changes, reason in STOPS:
        facts = replace(facts, **changes)
        waiting = explained(facts)
        assert waiting is not None
        assert (waiting.reason, waiting.position, waiting.since) == (reason, 3, FREE.since)


def test_first_in_the_queue_is_next() -> None:
    waiting = explained(replace(FREE, position=1))
    assert waiting is not None
    assert waiting.reason == "it is next"


def test_open_attempt_holds_its_slot() -> None:
    facts = replace(FREE, attempt=1, attempt_state=AttemptState.CREATED, own_in_flight=20, cluster_in_flight=200)
    waiting = explained(facts)
    assert waiting is not None
    assert waiting.reason == "it waits for its turn"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_cancelling": True}, "it is being cancelled and ends once its pod is gone"),
        ({"is_leased": True, "attempt_state": AttemptState.CREATED}, "its Job is being created"),
        (
            {"next_dispatch_at": None, "attempt": 2, "attempt_state": AttemptState.LOST},
            "attempt 2 has ended, and what follows is being decided",
        ),
        (
            {"next_dispatch_at": None, "attempt_state": AttemptState.DISPATCHED, "noted_reason": "Unschedulable"},
            "Unschedulable",
        ),
    ],
)
def test_outside_the_queue_there_is_no_place(changes: dict[str, object], reason: str) -> None:
    waiting = explained(replace(FREE, **changes))  # type: ignore[arg-type]  # fields by name
    assert waiting is not None
    assert (waiting.reason, waiting.position) == (reason, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": OperationState.SUCCEEDED},
        {"state": OperationState.FAILED, "noted_reason": "x"},
        {"state": OperationState.CANCELLED, "is_cancelling": True},
        {"next_dispatch_at": None, "attempt_state": AttemptState.RUNNING, "noted_reason": "x"},
        {"next_dispatch_at": None, "attempt_state": AttemptState.DISPATCHED},
    ],
)
def test_worked_on_or_over_waits_for_nothing(changes: dict[str, object]) -> None:
    assert explained(replace(FREE, **changes)) is None  # type: ignore[arg-type]  # fields by name
