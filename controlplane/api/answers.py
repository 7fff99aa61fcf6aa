"""Bodies of answers, with their constructors from the domain; used nowhere else in the program."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from controlplane.api.inputs import cursor_of
from controlplane.api.problem_table import FAILURES, PROBLEMS, type_of
from controlplane.domain.catalogue import CATALOGUE
from controlplane.domain.credentials import Credentials
from controlplane.domain.engines import Engine, PlannedEngine, quota
from controlplane.domain.operation import Attempt, Operation, OperationKind, Waiting
from controlplane.domain.store import Store, StoreEvent
from controlplane.domain.transitions import AttemptState, OperationState, StoreState

__all__ = [
    "AcceptedBody",
    "AttemptBody",
    "CredentialsBody",
    "EnginesBody",
    "ErrorBody",
    "EventBody",
    "EventsBody",
    "OperationBody",
    "OperationDetailBody",
    "OperationsBody",
    "ProblemBody",
    "RetriedBody",
    "StoreBody",
    "StoresBody",
]


class StoreBody(BaseModel):
    """A store."""

    id: UUID
    name: str
    engine: str
    engine_flavour: str | None = Field(
        description="`official`, or `stand-in` for a shop that only behaves like the engine; null until it is ready."
    )
    plan: str
    state: StoreState
    urls: dict[str, str | None] = Field(description="`storefront`, `admin` and `api`; null where there is none.")
    namespace: str

    @classmethod
    def from_domain(cls, store: Store) -> Self:
        """Return the body of a store."""
        return cls(
            id=store.id,
            name=store.name,
            engine=store.engine,
            engine_flavour=store.engine_flavour,
            plan=store.plan,
            state=store.state,
            urls=store.urls,
            namespace=store.namespace,
        )


class WaitingBody(BaseModel):
    """Why an operation does not go on."""

    reason: str
    position: int | None = Field(
        description="1 is next. Null once it has left the queue, and in a list behind 1,000 others of the same owner."
    )
    since: datetime

    @classmethod
    def from_domain(cls, waiting: Waiting | None) -> Self | None:
        """Return the body of a wait, or None when there is none."""
        return None if waiting is None else cls(reason=waiting.reason, position=waiting.position, since=waiting.since)


class CredentialsBody(BaseModel):
    """What the store's owner logs in with, and where."""

    store_id: UUID
    credentials: dict[str, str] = Field(
        description="By the engine's own names, such as `username`, `password` and `publishable_key`."
    )
    urls: dict[str, str | None] = Field(description="`storefront`, `admin` and `api`; null where there is none.")

    @classmethod
    def from_domain(cls, store: Store, credentials: Credentials) -> Self:
        """Return the body of a store's credentials."""
        return cls(store_id=store.id, credentials=dict(credentials.texts), urls=store.urls)


class ErrorBody(BaseModel):
    """Why an operation or attempt failed: shaped like a problem, with what to do about it."""

    model_config = ConfigDict(extra="allow")

    type: str
    code: str
    title: str
    detail: str
    remedy: str

    @classmethod
    def from_row(cls, problem: dict[str, Any] | None) -> Self | None:
        """Return the body of a stored problem, or None; its own remedy goes before the table's."""
        if problem is None:
            return None
        code = str(problem.get("code") or "ATTEMPT_FAILED")
        title = str(problem.get("title") or "The attempt failed")
        known = FAILURES.get(code) or PROBLEMS.get(code) or FAILURES["ATTEMPT_FAILED"]
        return cls(
            **problem
            | {
                "type": type_of(code),
                "code": code,
                "title": title,
                "detail": str(problem.get("detail") or title),
                "remedy": str(problem.get("remedy") or known.next_step),
            }
        )


class OperationBody(BaseModel):
    """An operation, in short."""

    id: UUID
    kind: OperationKind
    state: OperationState
    attempt: int = Field(description="Number of the newest attempt; 0 before the first.")
    waiting: WaitingBody | None
    error: ErrorBody | None

    @classmethod
    def from_domain(cls, operation: Operation) -> Self:
        """Return the body of an operation."""
        return cls(
            id=operation.id,
            kind=operation.kind,
            state=operation.state,
            attempt=operation.attempt,
            waiting=WaitingBody.from_domain(operation.waiting),
            error=ErrorBody.from_row(operation.error),
        )


class ListedOperationBody(OperationBody):
    """An operation."""

    store_id: UUID
    retry_of: UUID | None = Field(description="The ended operation this one tries again.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None = Field(description="Null before the first dispatch.")
    result: dict[str, Any] | None

    @classmethod
    def of(cls, operation: Operation, **more: Any) -> Self:
        """Return the body of an operation; `more` are the fields of a subclass."""
        return cls(
            **dict(OperationBody.from_domain(operation)),
            store_id=operation.store_id,
            retry_of=operation.retry_of,
            created_at=operation.created_at,
            started_at=operation.started_at,
            finished_at=operation.finished_at,
            deadline_at=operation.deadline_at,
            result=operation.result,
            **more,
        )


class PhaseBody(BaseModel):
    """One step of the provisioner."""

    phase: str
    started_at: datetime | None
    finished_at: datetime | None
    detail: dict[str, Any]


class AttemptBody(BaseModel):
    """One try of an operation: one Job."""

    number: int
    state: AttemptState
    outcome: str | None
    exit_code: int | None
    job_name: str
    created_at: datetime
    dispatched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    problem: ErrorBody | None
    diagnosis: dict[str, Any] | None = Field(description="What the cluster showed of its pod.")
    log_state: str | None = Field(description="`stored`, `unavailable`, or null before the harvest.")
    phases: list[PhaseBody]

    @classmethod
    def from_domain(cls, attempt: Attempt) -> Self:
        """Return the body of an attempt."""
        return cls(
            number=attempt.number,
            state=attempt.state,
            outcome=attempt.outcome,
            exit_code=attempt.exit_code,
            job_name=attempt.job_name,
            created_at=attempt.created_at,
            dispatched_at=attempt.dispatched_at,
            started_at=attempt.started_at,
            finished_at=attempt.finished_at,
            problem=ErrorBody.from_row(attempt.problem),
            diagnosis=attempt.diagnosis,
            log_state=attempt.log_state,
            phases=[
                PhaseBody(
                    phase=each.phase, started_at=each.started_at, finished_at=each.finished_at, detail=each.detail
                )
                for each in attempt.phases
            ],
        )


class OperationDetailBody(ListedOperationBody):
    """An operation with all its attempts."""

    attempts: list[AttemptBody]


class AcceptedBody(BaseModel):
    """A store with its newest operation; the body of every 202."""

    store: StoreBody
    operation: OperationBody

    @classmethod
    def from_domain(cls, store: Store, operation: Operation) -> Self:
        """Return the body of a store and an operation."""
        return cls(store=StoreBody.from_domain(store), operation=OperationBody.from_domain(operation))


class SpecChangeBody(BaseModel):
    """One field of the spec that differs from the retried operation's."""

    field: str
    old: Any
    new: Any


class RetriedBody(AcceptedBody):
    """The operation that tries again, and what is different about it."""

    spec_changes: list[SpecChangeBody]


class StoresBody(BaseModel):
    """A page of stores with their newest operations."""

    items: list[AcceptedBody]
    next: str | None = Field(description="Cursor of the next page, or null on the last.")

    @classmethod
    def from_domain(cls, found: list[tuple[Store, Operation]], limit: int) -> Self:
        """Return a page made of up to `limit` stores, when one more was asked for."""
        page = found[:limit]
        last = page[-1][0] if len(found) > limit else None
        return cls(
            items=[AcceptedBody.from_domain(*each) for each in page],
            next=None if last is None else cursor_of(last.created_at, last.id),
        )


class OperationsBody(BaseModel):
    """A page of operations."""

    items: list[ListedOperationBody]
    next: str | None = Field(description="Cursor of the next page, or null on the last.")

    @classmethod
    def from_domain(cls, found: list[Operation], limit: int) -> Self:
        """Return a page made of up to `limit` operations, when one more was asked for."""
        page = found[:limit]
        last = page[-1] if len(found) > limit else None
        return cls(
            items=[ListedOperationBody.of(each) for each in page],
            next=None if last is None else cursor_of(last.created_at, last.id),
        )


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
    next: str | None = Field(description="Cursor of the next page, or null on the last.")

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


class PlanBody(BaseModel):
    """A size of shop."""

    name: str
    values: dict[str, Any] = Field(description="What each part may use, as its chart is given it.")
    quota: dict[str, str] = Field(description="Hard limits of the store's namespace.")


class SupportedEngineBody(BaseModel):
    """An engine that can be ordered."""

    name: str
    version: str
    upgrades_from: list[str] = Field(description="Versions whose stores can become this one.")
    chart: str
    chart_version: str
    plans: list[PlanBody] = Field(description="Smallest first; an order that names none gets the first.")

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """Return the body of an engine."""
        newest = engine.newest
        return cls(
            name=engine.name,
            version=newest.version,
            upgrades_from=list(newest.upgrades_from),
            chart=engine.chart,
            chart_version=newest.chart_version,
            plans=[PlanBody(name=name, values=plan.values(), quota=quota(plan)) for name, plan in engine.plans.items()],
        )


class PlannedEngineBody(BaseModel):
    """An engine that is announced."""

    name: str
    version: str = Field(description="The version line it begins with.")


class EnginesBody(BaseModel):
    """The catalogue."""

    supported: list[SupportedEngineBody]
    planned: list[PlannedEngineBody]

    @classmethod
    def catalogue(cls, offered: tuple[Engine, ...]) -> Self:
        """Return what can be ordered here, and what is announced."""
        planned = (each for _, each in sorted(CATALOGUE.items()) if isinstance(each, PlannedEngine))
        return cls(
            supported=[SupportedEngineBody.of(each) for each in offered],
            planned=[PlannedEngineBody(name=each.name, version=each.version) for each in planned],
        )


class FieldProblemBody(BaseModel):
    """One wrong field."""

    pointer: str = Field(description="JSON Pointer fragment; for the query string the parameter's name.")
    detail: str


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Address of the page that explains the code.")
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblemBody] | None = None
    operation_id: UUID | None = Field(default=None, description="The operation that stands in the way.")
    retry_after_seconds: int | None = None
