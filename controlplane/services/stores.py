"""Stores: accept creates and deletes, show them, tell their history. Never talks to the cluster."""

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from uuid_utils.compat import uuid7

from controlplane.config import Settings
from controlplane.db.idempotency import IdempotencyKey, IdempotencyRows
from controlplane.db.operations import OperationRows
from controlplane.db.pool import Database, Session, Statements
from controlplane.db.stores import NewDelete, NewStore, Page, StoreRows
from controlplane.db.users import UserRows
from controlplane.domain import names
from controlplane.domain.catalogue import engine_named, plan_named
from controlplane.domain.errors import (
    ConflictError,
    ControlPlaneError,
    FieldProblem,
    InvalidInputError,
    InvalidTokenError,
    OperationInProgressError,
    StoreNotFoundError,
)
from controlplane.domain.hosts import validated_host
from controlplane.domain.operation import Operation
from controlplane.domain.refusals import (
    IdempotencyMismatchError,
    RateLimitedError,
    StoreDeletedError,
    StoreLimitReachedError,
)
from controlplane.domain.store import Origin, Store, StoreEvent
from controlplane.domain.transitions import StoreState
from controlplane.services import specs
from controlplane.services.access import check_may_change, note_unknown_id

__all__ = ["CreateStore", "Created", "Rate", "Stores"]

BodyOf = Callable[[Store, Operation], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateStore:
    """A wish, as it came in."""

    name: str
    engine: str
    slug: str | None
    plan: str | None
    """None for the engine's smallest."""
    host: str | None
    """One of the customer's own; None to be given one."""
    tls: bool | None
    """Whether the store gets a certificate of its own; None for whether it has a host of its own and can."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast the caller may order, and what is left of it."""

    per_minute: int
    left: int
    reset_seconds: int


@dataclass(frozen=True, slots=True)
class Created:
    """The answer to a create."""

    operation_id: UUID
    body: str
    is_replay: bool
    rate: Rate | None
    """None of a replay, which uses nothing up."""


class Stores:
    """What callers do with stores."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._rows = StoreRows(database)
        self._operations = OperationRows(database)
        self._settings = settings

    async def create(
        self, wish: CreateStore, origin: Origin, body_of: BodyOf, *, key: IdempotencyKey | None = None
    ) -> Created:
        """Accept a store: check the wish, freeze the spec, write it in one statement.

        With a key, the first answer is kept in the same transaction, and whoever asks again gets its bytes.

        Raises
        ------
        InvalidInputError
            Name, slug, engine, plan or host cannot be accepted; `IdempotencyMismatchError` for a key of another wish.
        NameTakenError, HostTakenError
            The caller has a store with this slug, or somebody has one with this host.
        StoreLimitReachedError, RateLimitedError
            The caller has as many stores as allowed, or orders too fast.
        """
        if key is not None and (replayed := await self._replayed(key, origin, body_of)) is not None:
            return replayed
        new = self._new_store(wish, origin, key)
        try:
            # With what the answer is made of in one transaction: a store that nobody is told of would be ordered again.
            created = await self._database.run(lambda session: self._write(session, new, origin, body_of))
            error: ControlPlaneError | None = None if created is not None else await self._limit(origin)
        except ConflictError as conflict:
            created, error = None, conflict
        if created is None and key is not None:
            # Whatever stood in the way may have been written by this very key, a moment ago.
            created = await self._replayed(key, origin, body_of)
        if created is None:
            raise error or StoreNotFoundError(new.store_id)
        return created

    async def get(self, store_id: UUID, origin: Origin) -> Store:
        """Return a store; `StoreNotFoundError` when there is none for this caller."""
        store = await self._rows.get_store(store_id, origin.caller)
        if store is None:
            await note_unknown_id(self._database, store_id, origin)
            raise StoreNotFoundError(store_id)
        return store

    async def get_with_operation(self, store_id: UUID, origin: Origin) -> tuple[Store, Operation]:
        """Return a store and its newest operation; `StoreNotFoundError` when there is none for this caller."""
        store = await self.get(store_id, origin)
        return (await self._with_operations([store], origin))[0]

    async def list_stores(
        self, origin: Origin, page: Page, *, state: StoreState | None, engine: str | None
    ) -> list[tuple[Store, Operation]]:
        """Return a page of stores with their newest operations, newest first."""
        stores = await self._rows.list_stores(origin.caller, page, state=state, engine=engine)
        return await self._with_operations(stores, origin)

    async def delete(self, store_id: UUID, origin: Origin) -> tuple[Store, Operation]:
        """Accept the deletion of a store: whatever it is busy with is cancelled, and the delete waits behind it.

        Raises
        ------
        StoreNotFoundError, ForbiddenError
            There is none for this caller, or they may only look at it.
        StoreDeletedError
            It is deleted already.
        OperationInProgressError
            It is being deleted, by the operation named.
        """
        store = await self.get(store_id, origin)
        check_may_change(store.owner_id, origin)
        old_spec = await self._rows.newest_spec(store_id, origin.caller) or {}
        new = NewDelete(
            store_id=store_id,
            operation_id=uuid7(),
            spec=specs.for_delete(old_spec, self._settings, origin.traceparent),
            request_id=origin.request_id,
            ip=origin.ip,
        )
        try:
            if not await self._database.run(lambda session: self._write_delete(session, new, origin)):
                raise StoreDeletedError(store_id)
        except OperationInProgressError:
            active = await self._operations.active_of_store(store_id, origin.caller)
            raise OperationInProgressError(*((active.id, active.kind.value) if active else ())) from None
        return await self.get_with_operation(store_id, origin)

    async def events(self, store_id: UUID, origin: Origin, *, after: int, limit: int) -> list[StoreEvent]:
        """Return a page of the store's history, oldest first; `StoreNotFoundError` as above."""
        await self.get(store_id, origin)
        return await self._rows.list_events(store_id, origin.caller, after=after, limit=limit)

    async def _write(self, statements: Statements, new: NewStore, origin: Origin, body_of: BodyOf) -> Created | None:
        accepted = await StoreRows(statements).submit_create(new)
        if accepted is None:
            return None
        operation = await OperationRows(statements).get_operation(new.operation_id, origin.caller)
        if operation is None:
            raise StoreNotFoundError(new.store_id)
        body = body_of(accepted.store, operation)
        if new.key is not None:
            await IdempotencyRows(statements).keep_answer(new.key, body)
        rate = Rate(new.creates_per_minute, accepted.creates_left, accepted.reset_seconds)
        return Created(new.operation_id, body, is_replay=False, rate=rate)

    async def _write_delete(self, session: Session, new: NewDelete, origin: Origin) -> bool:
        rows = StoreRows(session)
        # Operations before stores: the order of locks.
        cancelled = await rows.cancel_for_delete(new.store_id, origin.caller)
        if not await rows.submit_delete(new, origin.caller):
            return False
        # A retry may have slipped in between; with the store's row locked, none can any more.
        cancelled += await rows.cancel_for_delete(new.store_id, origin.caller)
        for each in dict.fromkeys(cancelled):
            await OperationRows(session).finish_cancel(each, uuid7())
        return True

    async def _replayed(self, key: IdempotencyKey, origin: Origin, body_of: BodyOf) -> Created | None:
        used = await IdempotencyRows(self._database).find(key)
        if used is None:
            return None
        if used.fingerprint != key.fingerprint:
            raise IdempotencyMismatchError
        body = used.answer or await self._body(self._database, used.store_id, used.operation_id, origin, body_of)
        return Created(used.operation_id, body, is_replay=True, rate=None)

    async def _limit(self, origin: Origin) -> ControlPlaneError:
        per_minute = self._settings.create_rate_per_minute
        left = await UserRows(self._database).allowance(origin.caller.user_id, per_minute)
        if left is None:
            return InvalidTokenError()
        if left.store_count >= left.max_stores:
            return StoreLimitReachedError(left.max_stores)
        return RateLimitedError(per_minute, left.retry_after_seconds)

    async def _body(
        self, statements: Statements, store_id: UUID, operation_id: UUID, origin: Origin, body_of: BodyOf
    ) -> str:
        store = await StoreRows(statements).get_store(store_id, origin.caller)
        operation = await OperationRows(statements).get_operation(operation_id, origin.caller)
        if store is None or operation is None:
            raise StoreNotFoundError(store_id)
        return body_of(store, operation)

    async def _with_operations(self, stores: list[Store], origin: Origin) -> list[tuple[Store, Operation]]:
        found = await self._operations.read([store.operation_id for store in stores], origin.caller)
        by_id = {operation.id: operation for operation in found}
        return [(store, by_id[store.operation_id]) for store in stores]

    def _new_store(self, wish: CreateStore, origin: Origin, key: IdempotencyKey | None) -> NewStore:
        engine = engine_named(wish.engine, self._settings.engine_images)
        plan = plan_named(engine, wish.plan)
        name = names.display_name(wish.name)
        slug = names.slug_from_name(name) if wish.slug is None else names.validated_slug(wish.slug)
        suffix = base64.b32encode(secrets.token_bytes(5)).decode().lower()
        host = self._host(wish, slug, suffix)
        at = specs.place(names.namespace(slug, suffix), host, self._settings, has_tls=self._has_tls(wish))
        spec = specs.frozen(engine, at, self._settings, plan=plan, name=name, traceparent=origin.traceparent)
        return NewStore(
            store_id=uuid7(),
            operation_id=uuid7(),
            owner_id=origin.caller.user_id,
            cluster_id=self._settings.cluster_id,
            name=name,
            slug=slug,
            engine=engine.name,
            plan=plan,
            namespace=at.namespace,
            host=host,
            urls=specs.urls(spec),
            spec=spec,
            request_id=origin.request_id,
            ip=origin.ip,
            creates_per_minute=self._settings.create_rate_per_minute,
            key=key,
        )

    def _host(self, wish: CreateStore, slug: str, suffix: str) -> str:
        settings = self._settings
        if wish.host is not None and not settings.store_custom_hosts:
            detail = "hosts of one's own are switched off here; leave `host` out to be given one"
            raise InvalidInputError("Store host is not available", FieldProblem("#/host", detail))
        if wish.host is None:
            return f"{names.host_label(slug, suffix)}.{settings.store_domain}"
        return validated_host(wish.host, domain=settings.store_domain, reserved=settings.store_reserved_hosts or ())

    def _has_tls(self, wish: CreateStore) -> bool:
        can = bool(self._settings.store_cluster_issuer)
        if wish.tls is None:
            if wish.host is not None and not can and self._settings.store_url_scheme == "https":
                detail = "no issuer of certificates is set up here, and the platform's own does not cover this host: "
                raise InvalidInputError(
                    "TLS is not available", FieldProblem("#/tls", f"{detail}give `false` for plain http")
                )
            return can and wish.host is not None
        if wish.tls and not can:
            detail = "no issuer of certificates is set up here; leave `tls` out, or ask the platform for one"
            raise InvalidInputError("TLS is not available", FieldProblem("#/tls", detail))
        return wish.tls
