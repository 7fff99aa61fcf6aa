"""An operation: a requested change to one store, and why it waits or failed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from controlplane.domain.transitions import OperationState

__all__ = ["TIMEOUT_SENTENCE", "Operation", "OperationKind", "Waiting"]

TIMEOUT_SENTENCE: Final = "Provisioning timeout - exceeded 15 minutes"


class OperationKind(StrEnum):
    """What is to be done with the store."""

    CREATE = "create"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why an operation has not begun: it is queued, or its pod does not start."""

    reason: str
    position: int | None
    """1 for the operation that is claimed next; None once it has left the queue."""
    since: datetime


@dataclass(frozen=True, slots=True)
class Operation:
    """A requested change to one store."""

    id: UUID
    store_id: UUID
    kind: OperationKind
    state: OperationState
    attempt: int
    """Number of the newest attempt; 0 before the first claim."""
    waiting: Waiting | None
    error: dict[str, Any] | None
    """Problem of a failed operation: `code`, `title`, `detail`."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
