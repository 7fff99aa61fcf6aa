"""A person's retry: a new operation for an ended one, the next attempt for a running one."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from uuid_utils.compat import uuid7

from controlplane.config import Settings
from controlplane.db.operations import NewRetry, OperationRows, RetryFacts
from controlplane.db.pool import Database, Session
from controlplane.domain.errors import ConflictError, OperationInProgressError, OperationNotFoundError
from controlplane.domain.operation import OperationKind
from controlplane.domain.refusals import NotRetryableError, RetryInProgressError
from controlplane.domain.store import Origin
from controlplane.domain.transitions import OperationState, StoreState
from controlplane.services import specs
from controlplane.services.access import check_may_change, note_unknown_id

__all__ = ["Retried", "Retries"]

_RETRIED: Final = {
    "code": "RETRIED",
    "title": "Retried by a person",
    "detail": "A person ended this attempt to begin the next one",
    "remedy": "Follow the next attempt",
}


@dataclass(frozen=True, slots=True)
class Retried:
    """What a retry led to."""

    operation_id: UUID
    """The new operation, or the same when it was running."""
    spec_changes: list[dict[str, Any]]


class Retries:
    """Retries on behalf of a caller."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._rows = OperationRows(database)
        self._settings = settings

    async def retry(self, operation_id: UUID, origin: Origin, *, is_fresh: bool) -> Retried:
        """Try an operation again; `is_fresh` resolves images, chart and plan anew.

        Raises
        ------
        OperationNotFoundError, ForbiddenError
            There is none for this caller, or they may only look at it.
        NotRetryableError
            It is queued, has succeeded, is being cancelled, or is not the store's newest.
        RetryInProgressError, OperationInProgressError
            Somebody else was first, or the store is busy.
        """
        facts = await self._rows.retry_facts(operation_id, origin.caller)
        if facts is None:
            await note_unknown_id(self._database, operation_id, origin)
            raise OperationNotFoundError(operation_id)
        check_may_change(facts.owner_id, origin)
        if facts.state is OperationState.RUNNING:
            return await self._next_attempt(operation_id, facts, origin, is_fresh=is_fresh)
        if facts.state is OperationState.QUEUED:
            raise NotRetryableError(operation_id, "it has not begun yet, and `waiting` says why")
        if facts.state is OperationState.SUCCEEDED:
            raise NotRetryableError(operation_id, "it has succeeded")
        return await self._again(operation_id, facts, origin, is_fresh=is_fresh)

    async def _next_attempt(self, operation_id: UUID, facts: RetryFacts, origin: Origin, *, is_fresh: bool) -> Retried:
        if facts.is_cancelling:
            raise NotRetryableError(operation_id, "it is being cancelled; retry it once it has ended")
        if is_fresh:
            reason = "while it runs it keeps its spec; cancel it, then retry it with refresh_spec"
            raise NotRetryableError(operation_id, reason)

        async def work(session: Session) -> bool:
            rows = OperationRows(session)
            number = await rows.supersede_attempt(operation_id, origin.caller, origin.ip)
            if number is None or not await rows.end_as_retried(operation_id, number, _RETRIED):
                # Raised inside, so that fence and audit row are rolled back.
                raise RetryInProgressError(operation_id)
            return True

        await self._database.run(work)
        return Retried(operation_id, [])

    async def _again(self, operation_id: UUID, facts: RetryFacts, origin: Origin, *, is_fresh: bool) -> Retried:
        if facts.store_state is StoreState.DELETED:
            raise NotRetryableError(operation_id, "its store is deleted")
        try:
            spec = self._spec(facts, origin, is_fresh=is_fresh)
        except specs.RefreshError as reason:
            raise NotRetryableError(operation_id, str(reason)) from None
        new = NewRetry(
            retry_of=operation_id,
            operation_id=uuid7(),
            spec=spec,
            urls=specs.urls(spec) if is_fresh and "paths" in spec else None,
            spec_changes=specs.spec_changes(facts.spec, spec),
            request_id=origin.request_id,
            ip=origin.ip,
        )
        try:
            is_accepted = await self._rows.submit_retry(new, origin.caller)
        except OperationInProgressError:
            is_accepted = False
        if not is_accepted:
            raise await self._why_not(operation_id, facts, origin)
        return Retried(new.operation_id, new.spec_changes)

    def _spec(self, facts: RetryFacts, origin: Origin, *, is_fresh: bool) -> dict[str, Any]:
        if not is_fresh:
            return specs.repeated(facts.spec, origin.traceparent)
        if facts.kind is OperationKind.CREATE:
            return specs.refreshed(facts.spec, self._settings, origin.traceparent)
        # What removes a store needs nothing of its engine.
        return specs.for_delete(facts.spec, self._settings, origin.traceparent)

    async def _why_not(self, operation_id: UUID, facts: RetryFacts, origin: Origin) -> ConflictError:
        active = await self._rows.active_of_store(facts.store_id, origin.caller)
        if active is not None and active.retry_of == operation_id:
            return RetryInProgressError(active.id)
        if facts.newer_id is not None:
            return NotRetryableError(operation_id, f"operation {facts.newer_id} of the store came after it")
        if active is not None:
            return OperationInProgressError(active.id, active.kind.value)
        return NotRetryableError(operation_id, "the store has changed since")
