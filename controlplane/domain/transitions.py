"""States of stores, operations and attempts, and every way from one to another.

The one table of transitions. SQL statements guard the same steps (expected state in the WHERE clause); tests hold
the states' names against the CHECKs of the tables.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

__all__ = [
    "ATTEMPT_TRANSITIONS",
    "OPERATION_TRANSITIONS",
    "STORE_TRANSITIONS",
    "AttemptState",
    "OperationState",
    "StoreState",
    "can_become",
    "is_final",
]


class StoreState(StrEnum):
    """What a tenant sees of the shop."""

    PROVISIONING = "provisioning"
    READY = "ready"
    FAILED = "failed"
    UPGRADING = "upgrading"
    ROLLING_BACK = "rolling_back"
    SUSPENDED = "suspended"
    DELETING = "deleting"
    DELETED = "deleted"


class OperationState(StrEnum):
    """How far a requested change is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """How far one try is; the Job exists from `dispatched` on, the pod has shaken hands from `running` on."""

    CREATED = "created"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"


_S, _O, _A = StoreState, OperationState, AttemptState
_ATTEMPT_ENDS: Final = frozenset({_A.FAILED, _A.LOST, _A.CANCELLED})

STORE_TRANSITIONS: Final[Mapping[StoreState, frozenset[StoreState]]] = MappingProxyType(
    {
        _S.PROVISIONING: frozenset({_S.READY, _S.FAILED, _S.DELETING}),
        _S.READY: frozenset({_S.UPGRADING, _S.ROLLING_BACK, _S.SUSPENDED, _S.DELETING}),
        _S.FAILED: frozenset({_S.PROVISIONING, _S.DELETING}),
        _S.UPGRADING: frozenset({_S.READY, _S.ROLLING_BACK, _S.FAILED, _S.DELETING}),
        _S.ROLLING_BACK: frozenset({_S.READY, _S.FAILED, _S.DELETING}),
        _S.SUSPENDED: frozenset({_S.READY, _S.DELETING}),
        _S.DELETING: frozenset({_S.DELETED}),
        _S.DELETED: frozenset(),
    }
)
OPERATION_TRANSITIONS: Final[Mapping[OperationState, frozenset[OperationState]]] = MappingProxyType(
    {
        _O.QUEUED: frozenset({_O.RUNNING, _O.FAILED, _O.CANCELLED}),
        _O.RUNNING: frozenset({_O.SUCCEEDED, _O.FAILED, _O.CANCELLED}),
        _O.SUCCEEDED: frozenset(),
        _O.FAILED: frozenset(),
        _O.CANCELLED: frozenset(),
    }
)
ATTEMPT_TRANSITIONS: Final[Mapping[AttemptState, frozenset[AttemptState]]] = MappingProxyType(
    {
        # The pod may shake hands before the dispatcher has recorded the Job: created may become running at once.
        _A.CREATED: _ATTEMPT_ENDS | {_A.DISPATCHED, _A.RUNNING},
        # A report in the termination message may end an attempt whose handshake the database never heard.
        _A.DISPATCHED: _ATTEMPT_ENDS | {_A.RUNNING, _A.SUCCEEDED},
        _A.RUNNING: _ATTEMPT_ENDS | {_A.SUCCEEDED},
        _A.SUCCEEDED: frozenset(),
        _A.FAILED: frozenset(),
        _A.LOST: frozenset(),
        _A.CANCELLED: frozenset(),
    }
)

_State = TypeVar("_State", StoreState, OperationState, AttemptState)


def can_become(table: Mapping[_State, frozenset[_State]], old: _State, new: _State) -> bool:
    """Return whether `table` allows the step from `old` to `new`."""
    return new in table[old]


def is_final(state: OperationState | AttemptState) -> bool:
    """Return whether nothing follows this state."""
    if isinstance(state, OperationState):
        return not OPERATION_TRANSITIONS[state]
    return not ATTEMPT_TRANSITIONS[state]
