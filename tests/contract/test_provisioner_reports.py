"""The provisioner's run and reports against the database's own functions: what each of the two makes of the other."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest

from controlplane.db.migrate import apply_migrations, read_migrations, set_role_password
from controlplane.db.stores import StoreRows
from provisioner_job import provisioner
from provisioner_job.contract import Env, ExitCode, JobResult, OptionalEnv, Outcome
from provisioner_job.errors import OtherPodError, PhaseError, RefusedError, RetryableError
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal, Redactor
from provisioner_job.provisioner import carry_out
from provisioner_job.session import SESSION_KEY, Session, Started
from provisioner_job.work import Phase, Work
from tests.support import wishes
from tests.support.postgres_relay import relay

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


async def started(session: Session) -> Started:
    return await asyncio.to_thread(session.start, patience_seconds=PATIENCE_SECONDS)


class Run:
    """One run of the provisioner with phases of the test's."""

    def __init__(self, given: JobInput, *phases: Phase) -> None:
        self.given = given
        self.phases = phases
        self.stop = asyncio.Event()
        self.left: list[JobResult] = []
        self.out = io.StringIO()
        self.kinds: list[str] = []

    def _phases_of(self, kind: str) -> tuple[Phase, ...]:
        self.kinds.append(kind)
        return self.phases

    async def to_its_end(self) -> ExitCode:
        session = Session(self.given, Journal(Redactor(), as_json=False, out=self.out))
        answer = await started(session)
        return await carry_out(self.given, session, answer, self.stop, self.left.append, phases_of=self._phases_of)

    def problem(self) -> tuple[str, str]:
        (result,) = self.left
        assert result.problem is not None
        return result.problem["code"], result.problem["phase"]


async def test_wrong_password_may_be_right_for_the_next_pod(given: JobInput, journal: Journal) -> None:
    with pytest.raises(RetryableError, match="password") as caught:
        await started(Session(given._replace(db_password="yesterday's"), journal))
    assert caught.value.code == "DATABASE_LOGIN_REFUSED"


async def test_database_that_is_read_only_may_be_writable_later(
    given: JobInput, journal: Journal, administrator: asyncpg.Connection
) -> None:
    await administrator.execute(f"ALTER DATABASE {given.db_name} SET default_transaction_read_only = on")
    with pytest.raises(RetryableError, match="read-only"):
        await started(Session(given, journal))


async def test_missing_right_stays_missing(
    given: JobInput, journal: Journal, administrator: asyncpg.Connection
) -> None:
    await administrator.execute(
        "REVOKE EXECUTE ON FUNCTION storeplane.start_attempt(uuid, integer, text, text, text, text)"
        " FROM storeplane_provisioner"
    )
    with pytest.raises(PhaseError, match="permission denied"):
        await started(Session(given, journal))


async def test_handshake_with_a_wrong_token_is_refused(given: JobInput, journal: Journal) -> None:
    with pytest.raises(RefusedError, match="wrong token"):
        await started(Session(given._replace(attempt_token="guessed"), journal))


async def test_lost_answer_is_given_again_and_no_other_process_gets_it(given: JobInput, journal: Journal) -> None:
    session = Session(given, journal)
    first, again = await started(session), await started(session)
    assert (first.kind, first.spec, first.finished_phases) == ("create", again.spec, ())
    with pytest.raises(OtherPodError):
        await started(Session(given, journal))


async def test_answer_lost_on_its_way_is_asked_for_again(
    given: JobInput, journal: Journal, postgres: PostgresServer
) -> None:
    with relay(postgres.socket_folder) as line:
        line.cut_at = b"seconds_left"
        session = Session(given._replace(db_host="127.0.0.1", db_port=line.port), journal)
        answer = await asyncio.to_thread(session.start, patience_seconds=60)
        assert line.cut_at == b""
    assert answer.kind == "create"


async def test_server_that_goes_down_in_mid_call_is_asked_again_and_no_secret_stands_in_the_call(
    given: JobInput, journal: Journal, database_url: str, administrator: asyncpg.Connection
) -> None:
    async with _held(database_url, given.operation_id):
        session = Session(given, journal)
        starting = asyncio.create_task(asyncio.to_thread(session.start, patience_seconds=60))
        await _someone_waits(administrator)
        own = "FROM pg_stat_activity WHERE application_name = 'storeplane-provisioner'"
        (waiting,) = await administrator.fetch(f"SELECT pid, query {own}")
        assert "start_attempt" in waiting["query"]
        assert SESSION_KEY in waiting["query"]
        assert given.attempt_token not in waiting["query"]
        # What a shutdown does to every backend.
        assert await administrator.fetchval("SELECT pg_terminate_backend($1, 60000)", waiting["pid"])
    assert (await starting).kind == "create"


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
    given: JobInput, database_url: str, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_end, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_work: Work) -> dict[str, object]:
        at_the_end.set()
        await go_on.wait()
        return {}

    async def unheard(*_arguments: object, **_options: object) -> None:
        pass

    # Without the reports of the phase itself, so that what waits for the row is the last one.
    monkeypatch.setattr(provisioner.Reports, "phases", unheard)
    run = Run(given, Phase("expose", 60, wait))
    ending = asyncio.create_task(run.to_its_end())
    await at_the_end.wait()
    async with _held(database_url, given.operation_id):
        go_on.set()
        await _someone_waits(administrator)
        assert [result.outcome for result in run.left] == [Outcome.SUCCEEDED]
        run.stop.set()
    assert await ending is ExitCode.DONE
    assert [result.outcome for result in run.left] == [Outcome.SUCCEEDED]
    assert await administrator.fetchval("SELECT state FROM storeplane.operations") == "succeeded"


async def test_stop_during_a_phase_is_told_as_such(given: JobInput, administrator: asyncpg.Connection) -> None:
    async def for_ever(_work: Work) -> dict[str, object]:
        run.stop.set()
        await asyncio.Event().wait()
        return {}

    run = Run(given, Phase("setup", 60, for_ever))
    assert await run.to_its_end() is ExitCode.RETRYABLE
    assert run.problem() == ("STOPPED", "setup")
    assert await administrator.fetchval("SELECT problem ->> 'code' FROM storeplane.attempts") == "STOPPED"


async def test_cancelled_operation_stops_its_phase_at_the_next_heartbeat(
    given: JobInput, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def for_ever(_work: Work) -> dict[str, object]:
        await administrator.execute("UPDATE storeplane.operations SET cancel_requested_at = now()")
        try:
            await asyncio.Event().wait()
        finally:
            # What a phase has to put away, it puts away.
            ended.set()
        return {}

    monkeypatch.setattr(provisioner, "_HEARTBEAT_SECONDS", 0.05)
    run = Run(given, Phase("setup", 60, for_ever))
    assert await run.to_its_end() is ExitCode.REFUSED
    assert ended.is_set()
    assert [result.outcome for result in run.left] == [Outcome.REFUSED]
    assert run.problem() == ("REFUSED", "setup")
    assert "cancel" in run.out.getvalue()
    # Whoever cancelled ends the attempt; the pod has no more to say.
    assert await administrator.fetchval("SELECT outcome FROM storeplane.attempts") is None


async def test_phases_are_recorded_from_start_to_end(given: JobInput, administrator: asyncpg.Connection) -> None:
    async def done(work: Work) -> dict[str, object]:
        work.result["product_count"] = 4
        return {"release": "medusa"}

    run = Run(given, Phase("release", 60, done), Phase("verify", 60, done))
    assert await run.to_its_end() is ExitCode.DONE
    assert run.kinds == ["create"]
    found = await administrator.fetch(
        "SELECT phase, finished_at IS NOT NULL AS is_done, detail ->> 'release' AS release FROM storeplane.phases"
        " ORDER BY started_at"
    )
    assert [tuple(each) for each in found] == [("release", True, "medusa"), ("verify", True, "medusa")]
    result = await administrator.fetchval("SELECT result ->> 'product_count' FROM storeplane.attempts")
    assert result == "4"


async def test_next_attempt_is_told_what_is_done(
    given: JobInput, administrator: asyncpg.Connection, journal: Journal
) -> None:
    async def done(_work: Work) -> dict[str, object]:
        return {}

    async def fail(_work: Work) -> dict[str, object]:
        raise RetryableError("CLUSTER_UNAVAILABLE", "The cluster does not answer", "for now")

    run = Run(given, Phase("namespace", 60, done), Phase("setup", 60, fail))
    assert await run.to_its_end() is ExitCode.RETRYABLE
    # A second attempt, as the control plane makes it, is not this test's matter: the first one is opened again.
    await administrator.execute(
        "UPDATE storeplane.attempts SET state = 'dispatched', outcome = NULL, problem = NULL, finished_at = NULL,"
        " pod_uid = NULL, session_hash = NULL, started_at = NULL"
    )
    assert (await started(Session(given, journal))).finished_phases == ("namespace",)


async def test_secrets_reach_neither_the_database_nor_the_message(
    given: JobInput, administrator: asyncpg.Connection
) -> None:
    async def fail(work: Work) -> dict[str, object]:
        work.journal.redactor.learn("sesame-open", "postgres://medusa:hunter-22@db/x")
        work.result["said"] = ["sesame-open"]
        raise PhaseError("SETUP_FAILED", "It failed", "login sesame-open, password hunter-22")

    run = Run(given, Phase("setup", 60, fail))
    assert await run.to_its_end() is ExitCode.PERMANENT
    stored = await administrator.fetchrow(
        "SELECT result::text AS result, problem::text AS problem FROM storeplane.attempts"
    )
    assert stored is not None
    for text in (stored["result"], stored["problem"], str(run.left)):
        assert "sesame-open" not in text
        assert "hunter-22" not in text
    assert "[redacted]" in stored["problem"]


def _environment(given: JobInput) -> dict[str, str]:
    return {
        Env.STORE_ID: str(given.store_id),
        Env.STORE_NAME: given.store_name,
        Env.ENGINE: given.engine,
        Env.NAMESPACE: given.namespace,
        Env.OPERATION_ID: str(given.operation_id),
        Env.ATTEMPT: str(given.attempt),
        Env.DB_HOST: given.db_host,
        Env.DB_PORT: str(given.db_port),
        Env.DB_NAME: given.db_name,
        Env.DB_USER: given.db_user,
        Env.DB_PASSWORD: given.db_password,
        Env.ATTEMPT_TOKEN: given.attempt_token,
        Env.JOB_UID: given.job_uid,
        Env.POD_UID: given.pod_uid,
        Env.POD_NAME: given.pod_name,
        Env.LOG_FORMAT: "json",
        OptionalEnv.TRACEPARENT: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }


async def test_stop_during_the_handshake_ends_the_process(
    given: JobInput, database_url: str, administrator: asyncpg.Connection
) -> None:
    async with _held(database_url, given.operation_id):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "provisioner_job",
            "single",
            env={"PATH": os.defpath, **_environment(given)},
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        await _someone_waits(administrator)
        process.terminate()
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    assert process.returncode == ExitCode.RETRYABLE
    lines = [json.loads(line) for line in output.decode().splitlines()]
    assert [line["event"] for line in lines] == [
        "asking whether this attempt may run",
        "The provisioner was told to stop",
    ]
    assert {line["trace_id"] for line in lines} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert {line["operation_id"] for line in lines} == {str(given.operation_id)}
