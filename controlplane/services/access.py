"""Who may change what, and the trace that reaching for others' things leaves."""

from uuid import UUID

from controlplane.db.pool import Statements
from controlplane.db.stores import StoreRows
from controlplane.domain.refusals import ForbiddenError
from controlplane.domain.store import Origin, Role

__all__ = ["check_admin", "check_may_change", "note_unknown_id"]


def check_admin(origin: Origin) -> None:
    """Return when the caller is an admin; `ForbiddenError` otherwise."""
    if origin.caller.role is not Role.ADMIN:
        who_may = "an admin"
        raise ForbiddenError(who_may)


def check_may_change(owner_id: UUID, origin: Origin) -> None:
    """Return when the caller is the owner or an admin; `ForbiddenError` for an operator, who may only look."""
    if origin.caller.user_id != owner_id and origin.caller.role is not Role.ADMIN:
        who_may = "its owner or an admin"
        raise ForbiddenError(who_may)


async def note_unknown_id(statements: Statements, asked: UUID, origin: Origin) -> None:
    """Keep in the audit log that the caller asked for what exists and is another user's; else do nothing.

    The answer is the same 404 either way, so that nobody learns which ids exist.
    """
    await StoreRows(statements).audit_foreign_id(asked, origin.caller, origin.ip)
