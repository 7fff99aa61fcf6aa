"""The provisioner's run and reports against the database's own functions: what each of the two makes of the other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest

from controlplane.db.migrate import apply_migrations, read_migrations, set_role_password
from controlplane.db.stores import StoreRows
from provisioner_job import provisioner
from provisioner_job.contract import ExitCode, JobResult, Outcome
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal, Redactor
from provisioner_job.phases import Phase, Work
from provisioner_job.provisioner import provision
from provisioner_job.reports import Reports
from tests.support import wishes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database
    from controlplane.domain.store import Caller
    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.contract

PASSWORD = "provisioner-password"
PATIENCE_SECONDS = 0.0


@pytest.fixture
async def database_url(empty_database: str) -> str:
    """Migrated, not copied: a copy has the template's tables and not its database's rights."""
    await apply_migrations(empty_database, read_migrations())
    await set_role_password(empty_database, "storeplane_provisioner", PASSWORD)
    return empty_database


@pytest.fixture
async def owner(database: Database) -> Caller:
    caller, _ = await wishes.add_user(database)
    return caller


@pytest.fixture
async def given(database: Database, database_url: str, postgres: PostgresServer, owner: Caller) -> JobInput:
    await StoreRows(database).submit_create(wishes.new_store(owner))
    claimed = await wishes.claim(database)
    return JobInput(
        store_id=claimed.store_id,
        store_name="shop",
        engine="medusa",
        namespace="store-shop-abcd1234",
        operation_id=claimed.operation_id,
        attempt=claimed.number,
        request_id="",
        db_host=str(postgres.socket_folder),
        db_port=5432,
        db_name=database_url.split("@/")[1].split("?", maxsplit=1)[0],
        db_user="storeplane_provisioner",
        db_password=PASSWORD,
        attempt_token=wishes.token_of(claimed),
        job_uid=str(uuid4()),
        pod_uid=str(uuid4()),
        pod_name="pod",
        logs_json=False,
    )


@pytest.fixture
async def administrator(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def journal() -> Journal:
    return Journal(Redactor(), as_json=False)


async def test_wrong_password_may_be_right_for_the_next_pod(given: JobInput, journal: Journal) -> None:
    wrong = JobInput(**{name: getattr(given, name) for name in JobInput.__slots__} | {"db_password": "yesterday's"})
    with pytest.raises(RetryableError, match="password") as caught:
        await Reports(wrong, journal).start(patience_seconds=PATIENCE_SECONDS)
    assert caught.value.code == "DATABASE_LOGIN_REFUSED"


async def test_database_that_is_read_only_may_be_writable_later(
    given: JobInput, journal: Journal, administrator: asyncpg.Connection
) -> None:
    await administrator.execute(f"ALTER DATABASE {given.db_name} SET default_transaction_read_only = on")
    with pytest.raises(RetryableError, match="read-only"):
        await Reports(given, journal).start(patience_seconds=PATIENCE_SECONDS)


async def test_missing_right_stays_missing(
    given: JobInput, journal: Journal, administrator: asyncpg.Connection
) -> None:
    await administrator.execute(
        "REVOKE EXECUTE ON FUNCTION storeplane.start_attempt(uuid, integer, text, text, text, text)"
        " FROM storeplane_provisioner"
    )
    with pytest.raises(PhaseError, match="permission denied"):
        await Reports(given, journal).start(patience_seconds=60)


async def _someone_waits(administrator: asyncpg.Connection) -> None:
    """Return once a call of the provisioner waits for a lock."""
    async with asyncio.timeout(60):
        while True:
            if await administrator.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'storeplane-provisioner' AND wait_event_type = 'Lock'"
            ):
                return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _held(url: str, operation_id: UUID) -> AsyncIterator[None]:
    """Hold the operation's row, so that every report about it waits."""
    holder = await asyncpg.connect(url)
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM storeplane.operations WHERE id = $1 FOR UPDATE", operation_id)
            yield
    finally:
        await holder.close()


async def test_stop_during_the_last_report_changes_nothing_of_the_result(
    given: JobInput,
    journal: Journal,
    database_url: str,
    administrator: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_the_end, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_work: Work) -> dict[str, object]:
        at_the_end.set()
        await go_on.wait()
        return {}

    # Without the reports of the phase itself, so that what waits for the row is the last one.
    monkeypatch.setattr(provisioner, "PHASE_STEPS", (Phase("expose", 60, wait),))
    monkeypatch.setattr(provisioner, "_one_phase", lambda work, _reports, phase: phase.act(work))
    left: list[JobResult] = []
    stop = asyncio.Event()
    run = asyncio.create_task(provision(given, journal, stop, left.append))
    await at_the_end.wait()
    async with _held(database_url, given.operation_id):
        go_on.set()
        await _someone_waits(administrator)
        assert [result.outcome for result in left] == [Outcome.SUCCEEDED]
        stop.set()
    assert await run is ExitCode.DONE
    assert [result.outcome for result in left] == [Outcome.SUCCEEDED]
    assert await administrator.fetchval("SELECT state FROM storeplane.operations") == "succeeded"


async def test_stop_during_a_phase_is_told_as_such(
    given: JobInput, journal: Journal, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()

    async def for_ever(_work: Work) -> dict[str, object]:
        stop.set()
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(provisioner, "PHASE_STEPS", (Phase("setup", 60, for_ever),))
    left: list[JobResult] = []
    assert await provision(given, journal, stop, left.append) is ExitCode.RETRYABLE
    assert left[0].problem is not None
    assert (left[0].problem["code"], left[0].problem["phase"]) == ("STOPPED", "setup")
    told = await administrator.fetchval("SELECT problem ->> 'code' FROM storeplane.attempts")
    assert told == "STOPPED"


async def test_stop_during_the_handshake_ends_it(
    given: JobInput, journal: Journal, database_url: str, administrator: asyncpg.Connection
) -> None:
    left: list[JobResult] = []
    stop = asyncio.Event()
    async with _held(database_url, given.operation_id):
        run = asyncio.create_task(provision(given, journal, stop, left.append))
        await _someone_waits(administrator)
        stop.set()
        assert await run is ExitCode.RETRYABLE
    assert left[0].problem is not None
    assert (left[0].problem["code"], left[0].problem["phase"]) == ("STOPPED", "start")


async def test_secrets_reach_neither_the_database_nor_the_message(
    given: JobInput, journal: Journal, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(work: Work) -> dict[str, object]:
        work.journal.redactor.learn("sesame-open", "postgres://medusa:hunter-22@db/x")
        work.result["said"] = ["sesame-open"]
        raise PhaseError("SETUP_FAILED", "It failed", "login sesame-open, password hunter-22")

    monkeypatch.setattr(provisioner, "PHASE_STEPS", (Phase("setup", 60, fail),))
    left: list[JobResult] = []
    assert await provision(given, journal, asyncio.Event(), left.append) is ExitCode.PERMANENT
    stored = await administrator.fetchrow(
        "SELECT result::text AS result, problem::text AS problem FROM storeplane.attempts"
    )
    assert stored is not None
    for text in (stored["result"], stored["problem"], str(left)):
        assert "sesame-open" not in text
        assert "hunter-22" not in text
    assert "[redacted]" in stored["problem"]
