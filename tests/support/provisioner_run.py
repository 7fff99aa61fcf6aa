"""Runs of the provisioner's own frame against a real database, with phases of a test's."""

from __future__ import annotations

import asyncio
import io
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from provisioner_job.journal import Journal, Redactor
from provisioner_job.provisioner import carry_out
from provisioner_job.session import Session, Started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    from provisioner_job.contract import ExitCode, JobResult
    from provisioner_job.database import Call
    from provisioner_job.job_input import JobInput
    from provisioner_job.work import Phase

__all__ = ["Run", "held", "history", "is_told", "someone_waits", "started", "until"]

_PATIENCE_SECONDS = 0.0


async def started(session: Session) -> Started:
    return await asyncio.to_thread(session.start, patience_seconds=_PATIENCE_SECONDS)


class _Kept(Session):
    """A session that keeps what it was asked for, call by call."""

    def __init__(self, given: JobInput, journal: Journal, asked: list[list[str]]) -> None:
        super().__init__(given, journal)
        self._asked = asked

    def call(self, *calls: Call) -> list[object]:
        self._asked.append([statement.partition("storeplane.")[2].partition("(")[0] for statement, _ in calls])
        return super().call(*calls)


class Run:
    """One run of the provisioner with phases of the test's."""

    def __init__(self, given: JobInput, *phases: Phase) -> None:
        self.given = given
        self.phases = phases
        self.stop = asyncio.Event()
        self.left: list[JobResult] = []
        self.out = io.StringIO()
        self.kinds: list[str] = []
        self.asked: list[list[str]] = []

    def _phases_of(self, kind: str) -> tuple[Phase, ...]:
        self.kinds.append(kind)
        return self.phases

    async def to_its_end(self) -> ExitCode:
        session = _Kept(self.given, Journal(Redactor(), as_json=False, out=self.out), self.asked)
        answer = await started(session)
        return await carry_out(self.given, session, answer, self.stop, self.left.append, phases_of=self._phases_of)

    def problem(self) -> tuple[str, str]:
        (result,) = self.left
        assert result.problem is not None
        return result.problem["code"], result.problem["phase"]


async def until(probe: Callable[[], Awaitable[bool]]) -> None:
    """Return once a probe is true; `TimeoutError` after a minute."""
    async with asyncio.timeout(60):
        while True:
            if await probe():
                return
            await asyncio.sleep(0.05)


async def someone_waits(administrator: asyncpg.Connection, number: int = 1) -> None:
    """Return once so many calls of the provisioner wait for a lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'storeplane-provisioner' AND wait_event_type = 'Lock'"
    )

    async def probe() -> bool:
        return bool(await administrator.fetchval(query) >= number)

    await until(probe)


async def is_told(administrator: asyncpg.Connection, phase: str) -> None:
    """Return once the database has heard of a phase's start."""

    async def probe() -> bool:
        return bool(await administrator.fetchval("SELECT count(*) FROM storeplane.phases WHERE phase = $1", phase))

    await until(probe)


async def history(administrator: asyncpg.Connection) -> list[tuple[str, str]]:
    """Return starts and ends of phases as events, in their order."""
    found = await administrator.fetch(
        "SELECT event_type, metadata ->> 'phase' AS phase FROM storeplane.store_events"
        " WHERE event_type LIKE 'phase%' ORDER BY id"
    )
    return [(row["event_type"].removeprefix("phase_"), row["phase"]) for row in found]


@asynccontextmanager
async def held(url: str, operation_id: UUID) -> AsyncIterator[None]:
    """Hold the operation's row, so that every report about it waits."""
    holder = await asyncpg.connect(url)
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM storeplane.operations WHERE id = $1 FOR UPDATE", operation_id)
            yield
    finally:
        await holder.close()
