"""The connection pool: limits on every wait, JSON as Python values, errors translated."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import asyncpg
import orjson

from controlplane.db.errors import translated
from controlplane.db.queries import query

__all__ = ["Database", "Session"]

_CONNECT_SECONDS: Final = 5.0
_ACQUIRE_SECONDS: Final = 5.0
"""A request that waits longer for a connection is better told to come back."""
_STATEMENT_SECONDS: Final = 10.0
_SERVER_SETTINGS: Final = {
    "application_name": "storeplane",
    # The server's own limits hold when this process cannot act any more.
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "15s",
}


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_json, decoder=orjson.loads)


class Session:
    """One connection; runs statements by their file's name."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, name: str, *arguments: object) -> Sequence[Any]:
        """Run `sql/<name>.sql` and return its rows."""
        rows: Sequence[Any] = await self._connection.fetch(query(name).text, *arguments)
        return rows

    async def fetch_one(self, name: str, *arguments: object) -> Any | None:
        """Run `sql/<name>.sql` and return its row, or None."""
        return await self._connection.fetchrow(query(name).text, *arguments)


class Database:
    """The pool. Every method opens its own transaction unless it says otherwise."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, url: str, *, size: int) -> Self:
        """Open the pool and one connection.

        Raises
        ------
        ConfigurationError
            The address cannot be used, or the server refuses user, password or database.
        DatabaseUnavailableError
            The server does not answer within five seconds.
        """
        with translated(is_start=True):
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=size,
                timeout=_CONNECT_SECONDS,
                command_timeout=_STATEMENT_SECONDS,
                server_settings=_SERVER_SETTINGS,
                init=_prepare,
            )
        return cls(pool)

    async def close(self) -> None:
        """Close every connection; those that do not end in five seconds are cut."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def fetch(self, name: str, *arguments: object) -> Sequence[Any]:
        """Run one statement in a transaction of its own and return its rows."""
        async with self._session() as session:
            return await session.fetch(name, *arguments)

    async def fetch_one(self, name: str, *arguments: object) -> Any | None:
        """Run one statement in a transaction of its own and return its row, or None."""
        async with self._session() as session:
            return await session.fetch_one(name, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Open a transaction for several statements; nothing but statements belongs inside."""
        with translated():
            async with self._pool.acquire(timeout=_ACQUIRE_SECONDS) as connection, connection.transaction():
                yield Session(connection)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        with translated():
            async with self._pool.acquire(timeout=_ACQUIRE_SECONDS) as connection:
                yield Session(connection)
