"""What an installation's Job and the pods beside it rely on: waiting for a database, and for its schema."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from controlplane.db.migrate import apply_migrations, read_migrations

pytestmark = pytest.mark.db

_LIMIT_SECONDS = 60


async def _started(url: str, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controlplane", *words),
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_awaiting_the_schema_ends_when_the_migrations_are_applied(empty_database: str) -> None:
    waiting = await _started(empty_database, "await-schema", "--seconds", str(_LIMIT_SECONDS))
    assert waiting.stderr is not None
    async with asyncio.timeout(_LIMIT_SECONDS):
        said = (await waiting.stderr.readline()).decode()
        assert said.startswith("waiting: ")
        await apply_migrations(empty_database, read_migrations())
        assert await waiting.wait() == 0


async def test_awaiting_the_schema_says_why_it_gave_up(empty_database: str) -> None:
    waiting = await _started(empty_database, "await-schema", "--seconds", "0")
    async with asyncio.timeout(_LIMIT_SECONDS):
        _, said = await waiting.communicate()
    assert waiting.returncode == 1
    assert "storeplane migrate" in said.decode()


async def test_migrating_waits_for_a_database_that_does_not_answer_yet() -> None:
    absent = await _started("postgresql://nobody@127.0.0.1:1/none", "migrate", "--wait", "1")
    async with asyncio.timeout(_LIMIT_SECONDS):
        _, said = await absent.communicate()
    assert absent.returncode == 1
    assert said.decode().count("waiting: ") == 1
