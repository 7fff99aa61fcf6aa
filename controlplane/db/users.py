"""Rows of users: who a token belongs to, and how much a user may order."""

from dataclasses import dataclass
from uuid import UUID

from controlplane.db.pool import Statements
from controlplane.domain.store import Caller, Role

__all__ = ["Allowance", "UserRows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a user may still order."""

    max_stores: int
    store_count: int
    creates_left: int
    """In this minute."""
    reset_seconds: int
    """Until the whole rate is there again."""
    retry_after_seconds: int
    """Until the next create, where none is left."""


class UserRows:
    """Reads and writes of users; on a pool each method is a transaction of its own."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def by_token(self, token_hash: bytes) -> Caller | None:
        """Return whose token this is, or None."""
        row = await self._statements.fetch_one("user_by_token", token_hash)
        return None if row is None else Caller(row["id"], Role(row["role"]))

    async def add(self, user_id: UUID, name: str, role: Role, token_hash: bytes, max_stores: int | None) -> UUID:
        """Add a user, or change the one with this name; return the id. `max_stores` None changes nothing."""
        row = await self._statements.fetch_one("add_user", user_id, name, role.value, token_hash, max_stores)
        if row is None:
            message = "add_user always returns a row"
            raise RuntimeError(message)
        return row["id"]  # type: ignore[no-any-return]  # rows are untyped

    async def allowance(self, user_id: UUID, creates_per_minute: int) -> Allowance | None:
        """Return what a user may still order, or None for an unknown one."""
        row = await self._statements.fetch_one("user_allowance", user_id, creates_per_minute)
        return None if row is None else Allowance(**dict(row))
