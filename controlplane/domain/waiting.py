"""Why an operation waits: one sentence a person reads, from facts that were read together.

Pure. The order of the questions is the order of the claim: what stops everything is told before what stops this user,
and that before what stops this operation.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from controlplane.domain.operation import Waiting
from controlplane.domain.transitions import AttemptState, OperationState, is_final

__all__ = ["Busy", "WaitFacts", "explained"]


@dataclass(frozen=True, slots=True)
class Busy:
    """What still holds a store: an operation, or the pods of one of its attempts."""

    operation_id: UUID
    kind: str
    number: int
    """The attempt whose pods may still act; 0 when none has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFacts:
    """Everything that decides why an operation waits, as of `now`."""

    state: OperationState
    now: datetime
    since: datetime
    next_dispatch_at: datetime | None
    noted_reason: str
    """What the dispatcher or reconciler wrote down: a quota, a refusal, why a pod does not start."""
    is_own: bool
    """The reader is the operation's owner."""
    is_cancelling: bool
    is_leased: bool
    attempt: int
    attempt_state: AttemptState | None
    circuit_reason: str | None
    cluster_in_flight: int
    cluster_limit: int
    tokens: float
    own_in_flight: int
    own_slots: int
    busy: Busy | None
    position: int | None


def explained(facts: WaitFacts) -> Waiting | None:
    """Return why the operation waits, or None while it is worked on or over."""
    if is_final(facts.state):
        return None
    if facts.is_cancelling:
        return Waiting("it is being cancelled and ends once its pod is gone", None, facts.since)
    if facts.next_dispatch_at is None:
        reason = _under_way(facts)
        return Waiting(reason, None, facts.since) if reason else None
    if facts.is_leased and facts.attempt_state is AttemptState.CREATED:
        return Waiting("its Job is being created", None, facts.since)
    return Waiting(_queued(facts, facts.next_dispatch_at), facts.position, facts.since)


def _under_way(facts: WaitFacts) -> str:
    if facts.attempt_state is None or is_final(facts.attempt_state):
        return f"attempt {facts.attempt} has ended, and what follows is being decided"
    # The pod has not begun: the reconciler says so only when that takes unusually long.
    return "" if facts.attempt_state is AttemptState.RUNNING else facts.noted_reason


def _queued(facts: WaitFacts, due_at: datetime) -> str:
    if facts.circuit_reason is not None:
        return f"the cluster is left alone for the moment: {facts.circuit_reason}"
    # An open attempt holds its slot already: limits do not stop it.
    if facts.attempt_state is not AttemptState.CREATED and (limit := _limit(facts)):
        return limit
    if facts.busy is not None:
        return _held_by(facts.busy)
    if due_at > facts.now:
        reason = facts.noted_reason or "the next attempt comes after a pause"
        return f"{reason}; it goes on at {due_at:%H:%M:%S} UTC"
    if facts.tokens < 1:
        return "the cluster gets its new Jobs at a limited rate, and that is used up for the moment"
    return "it is next" if facts.position == 1 else "it waits for its turn"


def _limit(facts: WaitFacts) -> str:
    if facts.own_in_flight >= facts.own_slots:
        whose, limit = ("you have", "your limit") if facts.is_own else ("its owner has", "their limit")
        return f"{whose} {facts.own_in_flight} operations under way, which is {limit}"
    if facts.cluster_in_flight >= facts.cluster_limit:
        if facts.cluster_limit == 0:
            return "the cluster takes no operations for now: an operator has set its limit to 0"
        return f"the cluster has {facts.cluster_in_flight} operations under way, and its limit is {facts.cluster_limit}"
    return ""


def _held_by(busy: Busy) -> str:
    if busy.number == 0:
        return f"the store is still busy with {busy.kind} {busy.operation_id}"
    return (
        f"the store is still busy: the pods of attempt {busy.number} of {busy.kind} {busy.operation_id} have not ended"
    )
