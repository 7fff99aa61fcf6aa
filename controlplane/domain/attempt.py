"""An attempt: one numbered try of an operation, exactly one Job; its name and its token.

The token lets the pod prove that it belongs to the attempt. It is derived, never stored: the database keeps its
SHA-256 and the key's id, so that a copy of the database starts no attempt.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from controlplane.domain.transitions import AttemptState, OperationState, is_final

__all__ = [
    "AttemptFacts",
    "AttemptOutcome",
    "ClaimedAttempt",
    "attempt_token",
    "token_hash",
    "token_key_id",
]


def attempt_token(key: bytes, operation_id: UUID, number: int) -> str:
    """Return the attempt's token, 64 hex characters."""
    return hmac.new(key, f"attempt:{operation_id}:{number}".encode(), hashlib.sha256).hexdigest()


def token_key_id(key: bytes) -> str:
    """Return a name for the key that says nothing about it; 8 hex characters."""
    return hmac.new(key, b"key-id", hashlib.sha256).hexdigest()[:8]


def token_hash(token: str) -> bytes:
    """Return what the database keeps of a token."""
    return hashlib.sha256(token.encode()).digest()


class AttemptOutcome(StrEnum):
    """How an attempt ended: the class that decides what follows."""

    SUCCEEDED = "succeeded"
    RETRYABLE = "retryable"
    """The provisioner says, or its exit code does, that the same may work later."""
    PERMANENT = "permanent"
    """It would fail again."""
    NOT_STARTED = "not_started"
    """Its pod never began: no image, no node, no right to it."""
    OUT_OF_MEMORY = "out_of_memory"
    EVICTED = "evicted"
    """The cluster took the pod away."""
    REFUSED = "refused"
    """The handshake refused the pod though the attempt is open."""
    LOST = "lost"
    """It ended without report, message or condition."""
    TIMEOUT = "timeout"
    """The operation's deadline passed."""
    CANCELLED = "cancelled"
    RETRIED = "retried"
    """A person asked for the next attempt."""


@dataclass(frozen=True, slots=True)
class ClaimedAttempt:
    """What the claim hands to the dispatcher."""

    operation_id: UUID
    store_id: UUID
    owner_id: UUID
    store_name: str
    engine: str
    namespace: str
    kind: str
    number: int
    job_name: str
    """A function of the attempt alone, made where the attempt is opened, so that a repeated POST meets its own Job."""
    fence: int
    """The dispatcher's right to write; a later claim or the pod's handshake raises it."""
    spec: dict[str, Any]
    request_id: str
    memory_mib: int
    """Memory limit of the pod."""
    manifest: str | None
    """Rendered Job of an attempt that was taken over; None before the first rendering."""
    token_hash: bytes | None
    """Of the token that the database expects; None before the first rendering."""
    token_key_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFacts:
    """What the reconciler knows of an attempt from Postgres. Every moment is by the database's clock."""

    operation_id: UUID
    number: int
    kind: str
    state: AttemptState
    operation_state: OperationState
    is_newest: bool
    namespace: str
    """The store's."""
    job_name: str
    job_uid: str | None
    pod_uid: str | None
    """The pod that shook hands."""
    outcome: AttemptOutcome | None
    created_at: datetime
    dispatched_at: datetime | None
    lease_until: datetime | None
    """Dispatcher's lease before the Job is recorded, the pod's after the handshake."""
    finished_at: datetime | None
    end_seen_at: datetime | None
    """When the end of its container or Job was seen first."""
    harvested_at: datetime | None
    pods_ended_at: datetime | None
    cancel_requested_at: datetime | None
    waiting_reason: str
    """What its user is told while the pod has not begun."""

    @property
    def may_be_concluded(self) -> bool:
        """Whether its end leaves the operation with something to follow: a retry, a failure, the end of a cancel."""
        return self.is_newest and self.finished_at is not None and not is_final(self.operation_state)
