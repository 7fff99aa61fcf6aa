"""The connection pool: limits on every wait, JSON as Python values, errors translated."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, Self, TypeVar

import asyncpg
import orjson

from controlplane.db.errors import translated
from controlplane.db.queries import query
from controlplane.domain.errors import DatabaseUnavailableError

__all__ = ["Database", "Session", "Statements"]

_CONNECT_SECONDS: Final = 5.0
_ACQUIRE_SECONDS: Final = 5.0
_REQUEST_ACQUIRE_SECONDS: Final = 1.5
"""A request that waits longer for a connection is better told to come back: an answer is due within two seconds."""
_REQUEST_STATEMENT_SECONDS: Final = 3.0
"""A request's statement takes milliseconds; one that takes this long waits for something that hangs."""
_RETRIES: Final = 3
_RETRY_PAUSE_SECONDS: Final = 0.02
"""The longest pause before the first repetition; it doubles. The other side of a deadlock needs a moment to commit."""
_STATEMENT_SECONDS: Final = 10.0
_SERVER_SETTINGS: Final = {
    "application_name": "storeplane",
    # The server's own limits hold when this process cannot act any more.
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "15s",
}


def _json(value: object) -> str:
    """Return JSON that jsonb takes: what pods and clusters say may hold a NUL or half a character."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        text = orjson.dumps(_whole(value)).decode()
    return text.replace("\\u0000", "\\ufffd")


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(each) for each in value]
    return value


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_json, decoder=orjson.loads)


async def _kept(_connection: object) -> None:
    """Give a connection back as it is, an open transaction rolled back.

    Statements leave nothing in a session, and the driver's own cleaning would cost as much again as most of them.
    """


_T = TypeVar("_T")


class Statements(Protocol):
    """What rows are read and written through: the pool, each statement for itself, or a transaction's session."""

    async def fetch(self, name: str, *arguments: object) -> Sequence[Any]:
        """Run `sql/<name>.sql` and return its rows."""

    async def fetch_one(self, name: str, *arguments: object) -> Any | None:
        """Run `sql/<name>.sql` and return its row, or None."""


class Session:
    """One connection; runs statements by their file's name."""

    def __init__(self, connection: Any, *, statement_seconds: float = _STATEMENT_SECONDS) -> None:
        self._connection = connection
        self._seconds = statement_seconds

    async def fetch(self, name: str, *arguments: object) -> Sequence[Any]:
        """Run `sql/<name>.sql` and return its rows."""
        rows: Sequence[Any] = await self._connection.fetch(query(name).text, *arguments, timeout=self._seconds)
        return rows

    async def fetch_one(self, name: str, *arguments: object) -> Any | None:
        """Run `sql/<name>.sql` and return its row, or None."""
        return await self._connection.fetchrow(query(name).text, *arguments, timeout=self._seconds)

    def in_transaction(self) -> AbstractAsyncContextManager[object]:
        """Give a transaction of this connection; its end commits, an error rolls back."""
        made: AbstractAsyncContextManager[object] = self._connection.transaction()
        return made


class Database:
    """The pool. Every method opens its own transaction unless it says otherwise.

    A deadlock or serialization failure has written nothing, so the whole of a statement, or of a `run`, is repeated up
    to three times. Nothing else is ever repeated: after a cut connection nobody knows what was committed.
    """

    def __init__(
        self,
        pool: Any,
        *,
        acquire_seconds: float = _ACQUIRE_SECONDS,
        statement_seconds: float = _STATEMENT_SECONDS,
    ) -> None:
        self._pool = pool
        self._acquire_seconds = acquire_seconds
        self._statement_seconds = statement_seconds

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
                reset=_kept,
            )
        return cls(pool)

    async def close(self) -> None:
        """Close every connection; those that do not end in five seconds are cut."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    def for_requests(self) -> Self:
        """Return the same pool, less patient: for answers that a person waits for."""
        return type(self)(
            self._pool,
            acquire_seconds=_REQUEST_ACQUIRE_SECONDS,
            statement_seconds=_REQUEST_STATEMENT_SECONDS,
        )

    async def fetch(self, name: str, *arguments: object) -> Sequence[Any]:
        """Run one statement in a transaction of its own and return its rows."""

        async def step() -> Sequence[Any]:
            async with self._acquired() as session:
                return await session.fetch(name, *arguments)

        return await _repeated(step)

    async def fetch_one(self, name: str, *arguments: object) -> Any | None:
        """Run one statement in a transaction of its own and return its row, or None."""

        async def step() -> Any | None:
            async with self._acquired() as session:
                return await session.fetch_one(name, *arguments)

        return await _repeated(step)

    async def run(self, work: Callable[[Session], Awaitable[_T]]) -> _T:
        """Do `work` in one transaction and return what it returns.

        It may be done again from its beginning, so it must do nothing but run statements.
        """

        async def step() -> _T:
            async with self._acquired() as session, session.in_transaction():
                return await work(session)

        return await _repeated(step)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Open a transaction for several statements; nothing but statements belongs inside."""
        with translated():
            async with self._acquired() as session, session.in_transaction():
                yield session

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Session]:
        try:
            connection = await self._pool.acquire(timeout=self._acquire_seconds)
        except TimeoutError as error:
            # It may be well, and its connections all wait for one row.
            message = f"no connection within {self._acquire_seconds:.1f} s: all are taken, or it takes no new one"
            raise DatabaseUnavailableError(message) from error
        try:
            yield Session(connection, statement_seconds=self._statement_seconds)
        finally:
            await self._pool.release(connection)


async def _repeated(step: Callable[[], Awaitable[_T]]) -> _T:
    with translated():
        for tried in range(_RETRIES):
            try:
                return await step()
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                # Random, or both sides would meet again.
                await asyncio.sleep(random.uniform(0, _RETRY_PAUSE_SECONDS * 2**tried))  # noqa: S311 -- no secret
        return await step()
