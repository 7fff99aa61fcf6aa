"""Wake-ups between processes: NOTIFY as a hint, on connections of its own.

Nothing depends on a hint arriving: whoever listens polls as well. A hint is sent after the commit, outside any
transaction and not more often than every 20 ms, because NOTIFY inside one takes a lock that all commits share.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import asyncpg

from controlplane.db.pool import Database
from controlplane.domain.errors import ControlPlaneError
from controlplane.telemetry import get_logger

__all__ = ["Listener", "Notifier"]

_CHANNEL: Final = "storeplane_work"
_DEBOUNCE_SECONDS: Final = 0.02
_CONNECT_SECONDS: Final = 5.0
_HEARTBEAT_SECONDS: Final = 4.0
_ANSWER_SECONDS: Final = 2.0
"""A heartbeat later than this means a dead connection: with the pause above it is noticed within ten seconds."""
_SELF_TEST_SECONDS: Final = 2.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0
_POOLED_PAUSE_SECONDS: Final = 300.0
"""A transaction pooler will deliver nothing however often it is asked."""
_SELF_TEST: Final = "self-test"

_log = get_logger(__name__)


class Notifier:
    """Tells the other processes that there is work; any number of calls within 20 ms are one hint."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sending: asyncio.Task[None] | None = None
        self._is_wanted = False

    def notify(self) -> None:
        """Send a hint soon. Never waits and never fails; the log has what went wrong."""
        self._is_wanted = True
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._is_wanted:
            await asyncio.sleep(_DEBOUNCE_SECONDS)
            self._is_wanted = False
            try:
                await self._database.fetch("notify_work")
            except ControlPlaneError as error:
                _log.info("hint not sent", error=str(error))


class Listener:
    """Hears the other processes' hints and passes them on."""

    def __init__(self, url: str, on_hint: Callable[[], None]) -> None:
        self._url = url
        self._on_hint = on_hint
        self._tested = asyncio.Event()

    async def run(self) -> None:
        """Listen for ever: connect, test, heartbeat; after every connection look once, since hints were missed."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                is_heard = await self._listen_once()
                pause = _FIRST_PAUSE_SECONDS if is_heard else _POOLED_PAUSE_SECONDS
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
                # The text of a ValueError may hold a piece of the address.
                told = type(error).__name__ if isinstance(error, ValueError) else str(error) or type(error).__name__
                _log.info("not listening for hints", error=told)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _listen_once(self) -> bool:
        """Listen until the connection dies; False when it delivers no hints at all."""
        connection = await asyncpg.connect(
            self._url,
            timeout=_CONNECT_SECONDS,
            command_timeout=_ANSWER_SECONDS,
            statement_cache_size=0,
            server_settings={"application_name": "storeplane-listener"},
        )
        try:
            await connection.add_listener(_CHANNEL, self._heard)
            if not await self._is_delivering(connection):
                _log.warning("the database delivers no notifications: a transaction pooler? polling alone from now on")
                return False
            self._on_hint()
            while True:
                await asyncio.sleep(_HEARTBEAT_SECONDS)
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await connection.fetchval("SELECT 1")
        finally:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await connection.close(timeout=_ANSWER_SECONDS)

    async def _is_delivering(self, connection: Any) -> bool:
        self._tested.clear()
        await connection.execute("SELECT pg_notify($1, $2)", _CHANNEL, _SELF_TEST)
        try:
            async with asyncio.timeout(_SELF_TEST_SECONDS):
                await self._tested.wait()
        except TimeoutError:
            return False
        return True

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload == _SELF_TEST:
            self._tested.set()
        else:
            self._on_hint()
