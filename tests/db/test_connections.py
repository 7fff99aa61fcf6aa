"""Connections lent and kept, on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from controlplane.db.connections import Connections

pytestmark = pytest.mark.db

_SECONDS = 5.0


async def test_connection_given_back_is_lent_again(database_url: str) -> None:
    connections = Connections(lambda: asyncpg.connect(database_url), 2)
    first = await connections.take(_SECONDS)
    connections.give_back(first, is_clean=True)
    assert await connections.take(_SECONDS) is first
    connections.give_back(first, is_clean=True)
    await connections.close(_SECONDS)
    assert first.is_closed()


async def test_no_more_are_lent_than_there_are_and_who_waits_gets_the_next(database_url: str) -> None:
    connections = Connections(lambda: asyncpg.connect(database_url), 1)
    only = await connections.take(_SECONDS)
    with pytest.raises(TimeoutError):
        await connections.take(0.05)
    waiting = asyncio.create_task(connections.take(_SECONDS))
    await asyncio.sleep(0)
    connections.give_back(only, is_clean=True)
    assert await waiting is only
    connections.give_back(only, is_clean=True)
    await connections.close(_SECONDS)


async def test_connection_in_the_middle_of_something_is_replaced(database_url: str) -> None:
    connections = Connections(lambda: asyncpg.connect(database_url), 1)
    first = await connections.take(_SECONDS)
    await first.execute("BEGIN")
    connections.give_back(first, is_clean=True)
    second = await connections.take(_SECONDS)
    assert second is not first
    connections.give_back(second, is_clean=False)
    third = await connections.take(_SECONDS)
    assert third is not second
    assert await third.fetchval("SELECT 1") == 1
    connections.give_back(third, is_clean=True)
    await connections.close(_SECONDS)


async def test_connection_the_server_has_closed_is_forgotten(database_url: str) -> None:
    connections = Connections(lambda: asyncpg.connect(database_url), 2)
    lost, other = await connections.take(_SECONDS), await connections.take(_SECONDS)
    gone = asyncio.Event()
    lost.add_termination_listener(lambda _connection: gone.set())
    await other.execute("SELECT pg_terminate_backend($1)", lost.get_server_pid())
    connections.give_back(lost, is_clean=True)
    async with asyncio.timeout(_SECONDS):
        await gone.wait()
    found = await connections.take(_SECONDS)
    assert found is not lost
    assert await found.fetchval("SELECT 1") == 1
    for each in (found, other):
        connections.give_back(each, is_clean=True)
    await connections.close(_SECONDS)


async def test_failure_to_connect_keeps_no_place(database_url: str) -> None:
    answers = iter([OSError("refused"), OSError("refused")])

    async def connect() -> Any:
        if (error := next(answers, None)) is not None:
            raise error
        return await asyncpg.connect(database_url)

    connections = Connections(connect, 1)
    for _ in range(2):
        with pytest.raises(OSError, match="refused"):
            await connections.take(_SECONDS)
    found = await connections.take(_SECONDS)
    connections.give_back(found, is_clean=True)
    await connections.close(_SECONDS)
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await connections.take(_SECONDS)


async def test_close_cuts_what_is_not_given_back(database_url: str) -> None:
    connections = Connections(lambda: asyncpg.connect(database_url), 1)
    kept = await connections.take(_SECONDS)
    with pytest.raises(TimeoutError):
        await connections.close(0.05)
    assert kept.is_closed()
