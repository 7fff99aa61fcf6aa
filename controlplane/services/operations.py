"""Operations: show, list and cancel them. Cancelling asks; the reconciler ends what runs in the cluster."""

from uuid import UUID

from uuid_utils.compat import uuid7

from controlplane.db.operations import OperationRows
from controlplane.db.pool import Database, Session
from controlplane.db.stores import Page, StoreRows
from controlplane.domain.errors import OperationNotFoundError
from controlplane.domain.operation import Attempt, Operation, OperationKind
from controlplane.domain.refusals import NotCancellableError, OperationEndedError
from controlplane.domain.store import Origin, Store
from controlplane.domain.transitions import OperationState, is_final
from controlplane.services.access import check_may_change, note_unknown_id

__all__ = ["Operations"]


class Operations:
    """What callers do with operations."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = OperationRows(database)

    async def get(self, operation_id: UUID, origin: Origin) -> Operation:
        """Return an operation; `OperationNotFoundError` when there is none for this caller."""
        operation = await self._rows.get_operation(operation_id, origin.caller)
        if operation is None:
            await note_unknown_id(self._database, operation_id, origin)
            raise OperationNotFoundError(operation_id)
        return operation

    async def get_with_attempts(self, operation_id: UUID, origin: Origin) -> tuple[Operation, list[Attempt]]:
        """Return an operation and all its attempts; `OperationNotFoundError` as above."""
        return await self.get(operation_id, origin), await self._rows.attempts(operation_id, origin.caller)

    async def get_with_store(self, operation_id: UUID, origin: Origin) -> tuple[Store, Operation]:
        """Return an operation and its store; `OperationNotFoundError` as above."""
        operation = await self.get(operation_id, origin)
        store = await StoreRows(self._database).get_store(operation.store_id, origin.caller)
        if store is None:
            raise OperationNotFoundError(operation_id)
        return store, operation

    async def list_operations(
        self,
        origin: Origin,
        page: Page,
        *,
        store_id: UUID | None,
        state: OperationState | None,
        kind: OperationKind | None,
    ) -> list[Operation]:
        """Return a page of operations, newest first; a store of somebody else has none."""
        return await self._rows.list_operations(origin.caller, page, store_id=store_id, state=state, kind=kind)

    async def cancel(self, operation_id: UUID, origin: Origin) -> tuple[Store, Operation]:
        """Ask an operation to end, and end it at once when no attempt is open; asking again changes nothing.

        Raises
        ------
        OperationNotFoundError, ForbiddenError
            There is none for this caller, or they may only look at it.
        NotCancellableError
            It removes a store, which is carried through.
        OperationEndedError
            It has succeeded or failed.
        """
        store, operation = await self.get_with_store(operation_id, origin)
        check_may_change(store.owner_id, origin)
        if operation.kind in (OperationKind.DELETE, OperationKind.CLEANUP):
            raise NotCancellableError(operation_id, operation.kind.value)
        await self._database.run(lambda session: self._write_cancel(session, operation_id, origin))
        store, operation = await self.get_with_store(operation_id, origin)
        if is_final(operation.state) and operation.state is not OperationState.CANCELLED:
            raise OperationEndedError(operation_id, operation.state.value)
        return store, operation

    async def _write_cancel(self, session: Session, operation_id: UUID, origin: Origin) -> None:
        rows = OperationRows(session)
        if await rows.cancel(operation_id, origin.caller, origin.ip):
            await rows.finish_cancel(operation_id, uuid7())
