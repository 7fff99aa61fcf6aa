"""The test run's Postgres, whose socket is a file, where pods of a devcluster reach it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.postgres import PostgresServer

__all__ = ["reachable"]

_CHUNK_BYTES = 65536


@asynccontextmanager
async def reachable(server: PostgresServer, host: str) -> AsyncIterator[int]:
    """Give a port of an address of this machine that leads to the server.

    Parameters
    ----------
    host
        The machine's address on the cluster's own network (``host_address`` of ``devcluster status``).
    """
    lines: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        lines.add(task)
        with suppress(OSError):
            there, back = await asyncio.open_unix_connection(str(server.socket_folder / ".s.PGSQL.5432"))
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        lines.discard(task)

    relay = await asyncio.start_server(serve, host, 0)
    try:
        yield relay.sockets[0].getsockname()[1]
    finally:
        relay.close()
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
        await relay.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
