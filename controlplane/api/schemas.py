"""Bodies of requests and responses; used nowhere else in the program."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from controlplane.domain.operation import Operation, Waiting
from controlplane.domain.store import Store, StoreEvent

__all__ = ["AcceptedBody", "CreateStoreBody", "EventBody", "EventsBody", "OperationBody", "StoreBody", "WaitingBody"]


class CreateStoreBody(BaseModel):
    """Body of `POST /api/stores`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=1000)
    """Any text; the 60 characters of the rule are checked with its own sentence."""
    engine: str = Field(max_length=64)
    slug: str | None = Field(default=None, max_length=1000)


class StoreBody(BaseModel):
    """A store."""

    id: UUID
    name: str
    engine: str
    state: str
    urls: dict[str, str | None]
    namespace: str

    @classmethod
    def from_domain(cls, store: Store) -> Self:
        """Return the body of a store."""
        return cls(
            id=store.id,
            name=store.name,
            engine=store.engine,
            state=store.state.value,
            urls=store.urls,
            namespace=store.namespace,
        )


class WaitingBody(BaseModel):
    """Why an operation waits; the position is null once it has left the queue."""

    reason: str
    position: int | None
    since: datetime

    @classmethod
    def from_domain(cls, waiting: Waiting) -> Self:
        """Return the body of a wait."""
        return cls(reason=waiting.reason, position=waiting.position, since=waiting.since)


class OperationBody(BaseModel):
    """An operation."""

    id: UUID
    kind: str
    state: str
    attempt: int
    waiting: WaitingBody | None
    error: dict[str, Any] | None
    store_id: UUID
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_domain(cls, operation: Operation) -> Self:
        """Return the body of an operation."""
        return cls(
            id=operation.id,
            kind=operation.kind.value,
            state=operation.state.value,
            attempt=operation.attempt,
            waiting=None if operation.waiting is None else WaitingBody.from_domain(operation.waiting),
            error=operation.error,
            store_id=operation.store_id,
            created_at=operation.created_at,
            started_at=operation.started_at,
            finished_at=operation.finished_at,
        )


class AcceptedBody(BaseModel):
    """A store with its newest operation; the body of every 202."""

    store: StoreBody
    operation: OperationBody


class EventBody(BaseModel):
    """One line of a store's history."""

    id: int
    event_type: str
    message: str
    metadata: dict[str, Any]
    created_at: datetime


class EventsBody(BaseModel):
    """A page of a store's history."""

    items: list[EventBody]
    next: str | None
    """Cursor of the next page, or null on the last."""

    @classmethod
    def from_domain(cls, events: list[StoreEvent], limit: int) -> Self:
        """Return a page made of up to `limit` events, when one more was asked for."""
        items = [
            EventBody(
                id=event.id,
                event_type=event.event_type,
                message=event.message,
                metadata=event.metadata,
                created_at=event.created_at,
            )
            for event in events[:limit]
        ]
        return cls(items=items, next=str(items[-1].id) if len(events) > limit else None)
