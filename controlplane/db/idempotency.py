"""Keys that clients give to requests, so that asking twice does once."""

from dataclasses import dataclass
from uuid import UUID

from controlplane.db.pool import Statements

__all__ = ["IdempotencyKey", "IdempotencyRows", "UsedKey"]


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key as it came with a request."""

    user_id: UUID
    route: str
    key: str
    fingerprint: bytes
    """SHA-256 of what is asked, the same for every way to write the same body."""


@dataclass(frozen=True, slots=True)
class UsedKey:
    """What a key was used for."""

    fingerprint: bytes
    store_id: UUID
    operation_id: UUID
    answer: str | None
    """Body of the first answer."""


class IdempotencyRows:
    """Reads and writes of keys. A key itself is written by the statement that accepts its request."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def find(self, key: IdempotencyKey) -> UsedKey | None:
        """Return what the key was used for, or None when it is new."""
        row = await self._statements.fetch_one("find_idempotency_key", key.user_id, key.route, key.key)
        if row is None:
            return None
        return UsedKey(row["fingerprint"], row["store_id"], row["operation_id"], row["answer"])

    async def keep_answer(self, key: IdempotencyKey, body: str) -> None:
        """Keep the first answer; in the transaction that wrote the key, so that no second reader finds none."""
        await self._statements.fetch_one("keep_answer", key.user_id, key.route, key.key, body)
