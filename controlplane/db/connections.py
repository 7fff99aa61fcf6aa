"""The open connections of one process: lent to one user at a time, kept for the next.

The driver's own pool does the same and takes our process 60 to 130 us for each use, more than most statements: it runs
two tasks and sets a timer each time. Here a connection that lies ready is taken and given back without either.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

__all__ = ["Connections"]

_IDLE_SECONDS: Final = 300.0
"""A connection that nobody needed for that long is closed: after a burst the server gets its memory back."""
_LIFE_SECONDS: Final = 3600.0
"""A backend's caches only grow; and after a failover of the server every replica finds the new one in an hour."""
_CLOSE_SECONDS: Final = 2.0


@dataclass(slots=True)
class _Kept:
    """A connection that lies ready."""

    connection: Any
    since: float


class Connections:
    """Up to `size` connections that `connect` opens."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], size: int) -> None:
        self._connect = connect
        self._size = size
        self._places = asyncio.Semaphore(size)
        self._kept: deque[_Kept] = deque()
        """The longest unused first: the last one is lent, so that those nobody needs grow old."""
        self._made_at: dict[Any, float] = {}
        self._is_closed = False

    async def take(self, seconds: float) -> Any:
        """Lend a connection, opening one when none lies ready.

        Raises
        ------
        TimeoutError
            Within `seconds` none was given back, or none could be opened.
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError
            None can be opened, or `close` was called.
        """
        if self._is_closed:
            message = "the connections are closed"
            raise asyncpg.InterfaceError(message)
        if self._kept and not self._places.locked():
            # Waits for nothing, so it needs no limit.
            await self._places.acquire()
            if (connection := self._ready()) is not None:
                return connection
            async with asyncio.timeout(seconds):
                return await self._opened()
        async with asyncio.timeout(seconds):
            await self._places.acquire()
            return self._ready() or await self._opened()

    def give_back(self, connection: Any, *, is_clean: bool) -> None:
        """Take a connection back; one in the middle of something is closed, and the server rolls back."""
        now = time.monotonic()
        is_usable = is_clean and not connection.is_closed() and not connection.is_in_transaction()
        if is_usable and now - self._made_at[connection] < _LIFE_SECONDS:
            self._kept.append(_Kept(connection, now))
        else:
            self._drop(connection)
        while self._kept and now - self._kept[0].since > _IDLE_SECONDS:
            self._drop(self._kept.popleft().connection)
        self._places.release()

    async def close(self, seconds: float) -> None:
        """Close every connection as it is given back; those that are not within `seconds` are cut."""
        self._is_closed = True
        try:
            async with asyncio.timeout(seconds):
                for _ in range(self._size):
                    await self._places.acquire()
                for kept in self._kept:
                    await kept.connection.close(timeout=_CLOSE_SECONDS)
        finally:
            for connection in list(self._made_at):
                self._drop(connection)
            self._kept.clear()

    def _ready(self) -> Any | None:
        """Return the connection that was used last; one the server has closed meanwhile is forgotten."""
        while self._kept:
            connection = self._kept.pop().connection
            if not connection.is_closed():
                return connection
            self._drop(connection)
        return None

    async def _opened(self) -> Any:
        """Open a connection in the place that was taken; the place is given back when that fails."""
        try:
            connection = await self._connect()
        except BaseException:
            self._places.release()
            raise
        self._made_at[connection] = time.monotonic()
        return connection

    def _drop(self, connection: Any) -> None:
        self._made_at.pop(connection, None)
        connection.terminate()
