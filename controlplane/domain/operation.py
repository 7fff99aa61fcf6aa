"""An operation: a requested change to one store, its attempts, and why it waits or failed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from controlplane.domain.transitions import AttemptState, OperationState

__all__ = ["TIMEOUT_SENTENCE", "Attempt", "Operation", "OperationKind", "Phase", "Waiting"]

TIMEOUT_SENTENCE: Final = "Provisioning timeout - exceeded 15 minutes"


class OperationKind(StrEnum):
    """What is to be done with the store."""

    CREATE = "create"
    UPGRADE = "upgrade"
    ROLLBACK = "rollback"
    SUSPEND = "suspend"
    RESUME = "resume"
    BACKUP = "backup"
    DELETE = "delete"
    CLEANUP = "cleanup"
    """The system's own: removes what a failed create left."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why an operation does not go on."""

    reason: str
    position: int | None
    """1 for the operation that is claimed next; None once it has left the queue."""
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
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
    """Problem of a failed operation: `code`, `title`, `detail`, `remedy`."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    """None before the first dispatch."""
    retry_of: UUID | None
    """The ended operation this one tries again."""
    result: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of the provisioner within an attempt."""

    phase: str
    started_at: datetime | None
    finished_at: datetime | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of an operation, as it is shown."""

    number: int
    state: AttemptState
    outcome: str | None
    exit_code: int | None
    job_name: str
    created_at: datetime
    dispatched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    problem: dict[str, Any] | None
    diagnosis: dict[str, Any] | None
    """What the cluster showed of its pod."""
    log_state: str | None
    phases: tuple[Phase, ...]
